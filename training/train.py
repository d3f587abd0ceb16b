"""
Trains the bundled model on generated stories; it resumes from its last checkpoint.

    OMP_NUM_THREADS=2 python3 training/train.py --run /tmp/kvasir-run

Loss: next-token cross entropy, mostly on the values in answers, and a loss that makes the memory heads' importance
high for the value tokens of facts and low for the rest. The stages below go from short text with full attention to
text in which most tokens have been forgotten when a question comes. Positions jump at sentence starts by up to a
million in total, so that distances at use are none that training has not seen.
"""
import argparse
import json
import math
import os
import queue
import shlex
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F

from checkpoint import save_model
from initial import initialise
from model import Config, Doge, fuse

SAMPLES_COMMAND = os.environ.get("SAMPLES_COMMAND", "npx tsx training/samples.ts")
TEXT, ANSWER, VALUE = 0, 1, 2  # roles, as in samples.ts
KEEP, FORGET = 1, 2
ROLE_WEIGHTS = torch.tensor([0.1, 2.0, 2.0, 0.0])
TEXT_SHARE = 0.15  # of running-text positions whose loss is computed
IMPORTANCE_WEIGHT, IMPORTANCE_MARGIN, HARDEST_SHARE = 0.5, 2.0, 0.01
LARGEST_JUMP = 1_000_000


@dataclass(frozen=True)
class Stage:
    """Runs until step `end`; `repeats` is the share of samples that are random strings."""
    end: int
    length: int
    batch: int
    facts: str
    window: int
    chunk: int  # tokens read at once, with a bounded cache in between
    repeats: float
    jumps: float  # share of samples with jumping positions


STAGES = [
    Stage(300, 192, 40, "3-5", 256, 256, 0.05, 0.0),
    Stage(600, 256, 32, "4-7", 256, 256, 0.0, 0.5),
    Stage(1000, 512, 16, "7-14", 64, 128, 0.0, 0.8),
    Stage(2350, 1024, 4, "12-28", 128, 256, 0.0, 0.8),
    Stage(100_000, 1024, 4, "12-28", 256, 256, 0.0, 0.8),
]


def read_batches(stage, seed, tokenizer):
    """Yields ids and flags, int64 [batch, length], read ahead by a thread."""
    command = shlex.split(SAMPLES_COMMAND) + [
        "--tokenizer", str(tokenizer), "--length", str(stage.length), "--facts", stage.facts, "--seed", str(seed),
        "--repeats", str(stage.repeats)]
    ahead = queue.Queue(maxsize=4)
    process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def read():
        size = stage.batch * stage.length * 4
        while len(raw := process.stdout.read(size)) == size:
            block = numpy.frombuffer(raw, dtype="<u2").astype(numpy.int64).reshape(stage.batch, 2, stage.length)
            ahead.put(torch.from_numpy(block))
        ahead.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (block := ahead.get()) is not None:
            yield block[:, 0], block[:, 1]
        raise RuntimeError(f"{shlex.join(command)} ended with status {process.wait()}")
    finally:
        process.kill()


def jumping_positions(flags, share):
    """Consecutive within a sentence; at some of the sentence starts, log-uniform jumps."""
    batch, length = flags.shape
    starts = (flags & 4) > 0
    largest = LARGEST_JUMP ** torch.rand(batch, 1)
    jumps = largest ** torch.rand(batch, length) * starts * (torch.rand(batch, length) < 0.15)
    jumps = jumps * (torch.rand(batch, 1) < share)
    scale = (LARGEST_JUMP / jumps.sum(1, keepdim=True).clamp(min=1)).clamp(max=1)
    return (torch.arange(length) + (jumps * scale).long().cumsum(1))


def answer_loss(model, hidden, ids, flags, dtype):
    """Weighted cross entropy of the next token, and how often value tokens are predicted right."""
    roles = (flags[:, 1:] >> 3).reshape(-1)
    wanted = (roles == ANSWER) | (roles == VALUE) | ((roles == TEXT) & (torch.rand(roles.shape) < TEXT_SHARE))
    at = wanted.nonzero().squeeze(1)
    logits = model.logits(hidden[:, :-1].reshape(-1, hidden.shape[-1])[at], dtype)
    targets, roles = ids[:, 1:].reshape(-1)[at], roles[at]
    losses, weights = F.cross_entropy(logits, targets, reduction="none"), ROLE_WEIGHTS[roles]
    right = (logits.argmax(-1) == targets)[roles == VALUE].float().mean()
    return (losses * weights).sum() / weights.sum(), losses[roles == VALUE].mean(), right


def importance_loss(model, all_dt, flags):
    """
    Logistic loss with a margin on dt of the memory heads. The hardest filler tokens count as much as all filler
    together, since at use a thousand times as many of them compete for the places.
    """
    labels, losses = flags & 3, []
    for layer, dt in zip(model.model.layers, all_dt):
        for head in range(layer.self_attn.num_local, dt.shape[-1]):
            keep = F.softplus(IMPORTANCE_MARGIN - dt[..., head][labels == KEEP])
            forget = F.softplus(IMPORTANCE_MARGIN + dt[..., head][labels == FORGET])
            if keep.numel() == 0 or forget.numel() == 0:
                continue
            hardest = forget.topk(max(1, int(forget.numel() * HARDEST_SHARE))).values
            losses.append(keep.mean() + keep.max() * 0.1 + forget.mean() + hardest.mean())
    return sum(losses) / max(1, len(losses))


def learning_rate(step, steps, peak):
    warm, finish = min(1, (step + 1) / 100), min(1, (steps - step) / (0.4 * steps))
    return peak * warm * max(0.02, finish)


def train_step(model, optimizer, stage, ids, flags, dtype):
    hidden, all_dt, _ = model.read(ids, jumping_positions(flags, stage.jumps), stage.window, stage.chunk, dtype)
    loss, value_loss, right = answer_loss(model, hidden, ids, flags, dtype)
    remember = importance_loss(model, all_dt, flags)
    (loss + IMPORTANCE_WEIGHT * remember).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return torch.stack([loss.detach(), value_loss.detach(), right, torch.as_tensor(remember).detach()])


def create_model(tokenizer, seed):
    torch.manual_seed(seed)
    vocabulary = json.loads(Path(tokenizer).read_text())["model"]["vocab"]
    model = initialise(Doge(Config(vocab_size=len(vocabulary))))
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.A.register_hook(lambda grad, local=attention.num_local: grad * (torch.arange(len(grad)) >= local))
    return model


def create_optimizer(model):
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], betas=(0.9, 0.98), eps=1e-9)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="folder for checkpoints and the exported model")
    parser.add_argument("--tokenizer", type=Path, default=Path("models/kvasir-tiny/tokenizer.json"))
    parser.add_argument("--steps", type=int, default=2800)
    parser.add_argument("--peak", type=float, default=1.6e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--float32", action="store_true", help="matrix products in float32 instead of bfloat16")
    parser.add_argument("--fuse", action="store_true", help="compile the element-wise parts (PyTorch 2, a C++ compiler)")
    run(parser.parse_args())


def run(options):
    dtype = torch.float32 if options.float32 else torch.bfloat16
    model = create_model(options.tokenizer, options.seed)
    optimizer = create_optimizer(model)
    if options.fuse:
        fuse()
    options.run.mkdir(parents=True, exist_ok=True)
    (options.run / "tokenizer.json").write_text(options.tokenizer.read_text())
    state_file, step, tokens, seconds = options.run / "state.pt", 0, 0, 0.0
    if state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, tokens, seconds = state["step"], state["tokens"], state["seconds"]
        torch.manual_seed(options.seed + step)
    shown, saved, totals, count = time.time(), time.time(), torch.zeros(4), 0
    while step < options.steps:
        stage = next(stage for stage in STAGES if step < stage.end)
        for ids, flags in read_batches(stage, options.seed + step, options.tokenizer):
            began = time.time()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, options.steps, options.peak)
            totals += train_step(model, optimizer, stage, ids, flags, dtype)
            step, count, tokens, seconds = step + 1, count + 1, tokens + ids.numel(), seconds + time.time() - began
            if step % 25 == 0:
                loss, value_loss, right, remember = (totals / count).tolist()
                print(f"step {step} length {stage.length} loss {loss:.3f} value {value_loss:.3f} right {right:.3f} "
                      f"importance {remember:.3f} tokens/s {count * ids.numel() / (time.time() - shown):.0f} "
                      f"tokens {tokens} seconds {seconds:.0f}", flush=True)
                shown, totals, count = time.time(), torch.zeros(4), 0
            finished = step >= min(stage.end, options.steps)
            if finished or time.time() - saved > 120:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "tokens": tokens,
                            "seconds": seconds}, state_file)
                save_model(options.run, model)
                saved = time.time()
            if finished:
                break


if __name__ == "__main__":
    main()
