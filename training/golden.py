"""
Check values for other implementations: logits and importance of two prompts, computed from the exported files alone.

    python3 training/golden.py models/kvasir-tiny

This shares no code with the trainer on purpose: it is DogeForCausalLM of transformers written out a second time, one
token row after the other, in plain float32, with a full mask instead of caches. The long prompt exceeds the window,
so tokens have been dropped. Writes golden.json: `ids`; for the last three positions the twenty highest logits; for the
first sixteen tokens the importance of both KV heads of layer 1; and a greedy answer to the question that ends a prompt.
"""
import json
import math
import os
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy
import torch

DOCUMENTS_COMMAND = os.environ.get("DOCUMENTS_COMMAND", "npx tsx training/documents.ts")
PROMPTS = {"short": {"tokens": 24, "facts": 1, "seed": 7}, "long": {"tokens": 600, "facts": 12, "seed": 8}}
ANSWER_TOKENS = 16


def read_tensors(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            values = numpy.frombuffer(data[begin:end], dtype="<f4").reshape(entry["shape"])
            tensors[name] = torch.from_numpy(values.copy())
    return tensors


def norm(x, weight, eps):
    return weight * (x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps))


def rotate_half(x):
    first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2:]
    return torch.cat([-second, first], -1)


def rope(x, theta):
    """x [heads, T, D] at positions 0 .. T-1."""
    dim = x.shape[-1]
    inverse = 1.0 / theta ** (torch.arange(0, dim, 2).double() / dim)
    angles = torch.outer(torch.arange(x.shape[1]).double(), inverse)
    angles = torch.cat([angles, angles], -1)
    return x * angles.cos().float() + rotate_half(x) * angles.sin().float()


def dynamic_mask(importance, window):
    """[K, T] -> additive mask [K, T, T]: the importance of the best `window` tokens up to each row, else the minimum."""
    heads, length = importance.shape
    mask = torch.full((heads, length, length), torch.finfo(torch.float32).min)
    scores = importance.tolist()
    for head in range(heads):
        for row in range(length):
            best = sorted(range(row + 1), key=lambda token: (scores[head][token], token))[-window:]
            mask[head, row, best] = importance[head, best]
    return mask


def attention(x, weights, config):
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    project = lambda name: x @ weights[f"{name}_proj.weight"].T + weights[f"{name}_proj.bias"]
    split = lambda y: y.view(len(x), -1, dim).transpose(0, 1)
    v_flat = project("v")
    q = rope(norm(split(project("q")), weights["q_norm.weight"], config["rms_norm_eps"]), config["rope_theta"])
    k = rope(norm(split(project("k")), weights["k_norm.weight"], config["rms_norm_eps"]), config["rope_theta"])
    v = split(v_flat)
    dt = v_flat @ weights["dt_proj.weight"].T + weights["dt_proj.bias"]
    importance = torch.exp(weights["A"] * torch.log1p(torch.exp(dt.double())).float()).T
    mask = dynamic_mask(importance, config["keep_window_size"])
    outputs = []
    for head in range(heads):
        kv = head // (heads // kv_heads)
        scores = q[head] @ k[kv].T / math.sqrt(dim) + mask[kv]
        outputs.append(torch.softmax(scores, -1) @ v[kv])
    merged = torch.stack(outputs, 1).reshape(len(x), heads * dim)
    return merged @ weights["o_proj.weight"].T + weights["o_proj.bias"], importance


def feed_forward(x, weights):
    gate = x @ weights["gate_proj.weight"].T
    return (gate * torch.sigmoid(gate) * (x @ weights["up_proj.weight"].T)) @ weights["down_proj.weight"].T


def forward(ids, tensors, config):
    """Logits [T, vocabulary] and the importance [K, T] of each layer."""
    eps = config["rms_norm_eps"]
    x, importances = tensors["model.embed_tokens.weight"][ids], []
    for layer in range(config["num_hidden_layers"]):
        inside = lambda prefix: {name[len(prefix):]: value for name, value in tensors.items() if name.startswith(prefix)}
        weights = inside(f"model.layers.{layer}.")
        attended, importance = attention(norm(x, weights["input_layernorm.weight"], eps), inside(f"model.layers.{layer}.self_attn."), config)
        x = weights["input_residual"] * x + attended
        fed = feed_forward(norm(x, weights["post_attention_layernorm.weight"], eps), inside(f"model.layers.{layer}.mlp."))
        x = weights["post_attention_residual"] * x + fed
        importances.append(importance)
    return norm(x, tensors["model.norm.weight"], eps) @ tensors["model.embed_tokens.weight"].T, importances


def greedy(ids, tensors, config, stops):
    """Decodes by reading everything again for each token: slow, and with nothing to go wrong."""
    answer = []
    while len(answer) < ANSWER_TOKENS and (not answer or answer[-1] not in stops):
        logits, _ = forward(ids + answer, tensors, config)
        answer.append(int(logits[-1].argmax()))
    return answer


def describe(ids, tensors, config, stops):
    logits, importances = forward(ids, tensors, config)
    best = logits[-3:].topk(20)
    return {
        "ids": ids,
        "lastThreePositionsTop20": [
            {"ids": i.tolist(), "logits": [round(value, 6) for value in v.tolist()]} for i, v in zip(best.indices, best.values)],
        "layer1ImportanceOfFirst16": [[round(value, 7) for value in head[:16].tolist()] for head in importances[1]],
        "greedyAnswer": greedy(ids, tensors, config, stops),
    }


def prompt_ids(folder, tokens, facts, seed):
    """A story and one question about it."""
    command = shlex.split(DOCUMENTS_COMMAND) + [
        "--tokenizer", str(folder / "tokenizer.json"), "--tokens", str(tokens), "--facts", str(facts), "--seed", str(seed)]
    document = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return document["ids"] + document["questions"][0]["prompt"]


@torch.no_grad()
def main():
    folder = Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    tensors = read_tensors(folder / "model.safetensors")
    golden = {name: describe(prompt_ids(folder, **options), tensors, config, stops) for name, options in PROMPTS.items()}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    for name, values in golden.items():
        print(name, len(values["ids"]), "tokens, greedy answer", values["greedyAnswer"])


if __name__ == "__main__":
    main()
