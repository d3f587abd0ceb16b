"""Reads and writes a model folder: config.json, generation_config.json and model.safetensors, with no dependencies."""
import json
import struct
from pathlib import Path

import torch

from model import Config, Doge

MAX_POSITIONS = 1_048_576
FIELDS = Config.__dataclass_fields__


def save_model(folder, model):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", model.state_dict())
    write_json(folder / "config.json", huggingface_config(model.config))
    write_json(folder / "generation_config.json", generation_config(folder))


def load_model(folder):
    folder = Path(folder)
    stored = json.loads((folder / "config.json").read_text())
    model = Doge(Config(**{name: stored[name] for name in FIELDS}))
    model.load_state_dict(read_safetensors(folder / "model.safetensors"))
    return model.eval()


def huggingface_config(config):
    return {
        "architectures": ["DogeForCausalLM"],
        "model_type": "doge",
        **config.to_dict(),
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": True,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "hidden_act": "silu",
        "is_moe": False,
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def generation_config(folder):
    """An answer ends with a line break, so generation stops there as well as at the end of text."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    return {"bos_token_id": 0, "pad_token_id": 0, "eos_token_id": [0, vocabulary["\u010a"]], "do_sample": False}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_safetensors(path, tensors):
    """float32, in name order; the header is padded with spaces so that every tensor is aligned."""
    header, data, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name in sorted(tensors):
        raw = tensors[name].detach().contiguous().float().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, offset + len(raw)]}
        data.append(raw)
        offset += len(raw)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))


def read_safetensors(path):
    raw = path.read_bytes()
    (size,) = struct.unpack_from("<Q", raw)
    header, data = json.loads(raw[8:8 + size]), memoryview(bytearray(raw[8 + size:]))
    return {
        name: torch.frombuffer(data[slice(*entry["data_offsets"])], dtype=torch.float32).view(entry["shape"])
        for name, entry in header.items() if name != "__metadata__"
    }
