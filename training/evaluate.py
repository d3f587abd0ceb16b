"""
Measures recall: a long document is read with a bounded cache, then every question is answered from a fork of it.

    OMP_NUM_THREADS=2 python3 training/evaluate.py --model models/kvasir-tiny --tokens 2048 16384 65536

Reads in chunks with one cache a layer, in float32. An answer counts only if all its tokens up to the line break are
the greedy choice; that is checked in one teacher-forced pass, which finds the same as decoding token by token.
`--window-only` sets every A to zero, which turns the memory heads into sliding windows too: the control.
"""
import argparse
import json
import os
import shlex
import subprocess
import time
from collections import defaultdict
from pathlib import Path

import torch

from checkpoint import load_model
from model import Cache

DOCUMENTS_COMMAND = os.environ.get("DOCUMENTS_COMMAND", "npx tsx training/documents.ts")
CHUNK = 256


def make_document(tokenizer, tokens, seed, facts, placement):
    command = shlex.split(DOCUMENTS_COMMAND) + [
        "--tokenizer", str(tokenizer), "--tokens", str(tokens), "--seed", str(seed), "--facts", str(facts), "--placement", placement]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


@torch.no_grad()
def read_document(model, ids, window):
    """Caches after all tokens, and dt of every token [L, T, K]."""
    positions = torch.arange(len(ids)).unsqueeze(0)
    _, all_dt, caches = model.read(torch.tensor([ids]), positions, window, CHUNK)
    return caches, torch.cat(all_dt)


@torch.no_grad()
def answer_all(model, caches, begin, questions, window):
    """One bool a question; the forks share the caches and are padded on the right, where nobody looks."""
    lines = [question["prompt"] + question["answer"] for question in questions]
    longest = max(map(len, lines))
    ids = torch.tensor([line + [0] * (longest - len(line)) for line in lines])
    positions = torch.arange(begin, begin + longest).expand_as(ids)
    forks = [Cache(*(part.expand(len(lines), *part.shape[1:]) for part in (c.k, c.v, c.importance))) for c in caches]
    hidden, _, _ = model(ids, positions, window, caches=forks)
    choices = model.logits(hidden).argmax(-1)
    return [
        choices[row, len(question["prompt"]) - 1:len(line) - 1].tolist() == question["answer"]
        for row, (question, line) in enumerate(zip(questions, lines))
    ]


def margins(model, all_dt, keep):
    """For each memory head: how many other tokens outrank the worst needed one, and how many needed ones are lost."""
    needed = torch.zeros(all_dt.shape[1], dtype=torch.bool)
    needed[keep] = True
    window, report = model.config.keep_window_size, {}
    for index, layer in enumerate(model.model.layers):
        for head in range(layer.self_attn.num_local, all_dt.shape[-1]):
            dt = all_dt[index, :, head]
            above = int(((dt >= dt[needed].min()) & ~needed).sum())
            threshold = dt.sort(descending=True).values[min(window, len(dt)) - 1]
            report[f"layer {index} head {head}"] = (above, int((dt[needed] < threshold).sum()))
    return report


def evaluate(model, tokenizer, tokens, seeds, facts=20, placement="start"):
    window = model.config.keep_window_size
    right, asked, ranks = defaultdict(int), defaultdict(int), defaultdict(list)
    began = time.time()
    for seed in seeds:
        document = make_document(tokenizer, tokens, seed, facts, placement)
        caches, all_dt = read_document(model, document["ids"], window)
        for question, ok in zip(document["questions"], answer_all(model, caches, len(document["ids"]), document["questions"], window)):
            for kind in ("all", question["kind"]):
                right[kind] += ok
                asked[kind] += 1
        for head, counts in margins(model, all_dt, document["keep"]).items():
            ranks[head].append(counts)
    return {
        "tokens": tokens, "facts": facts, "placement": placement, "questions": asked["all"],
        "recall": {kind: round(right[kind] / asked[kind], 4) for kind in sorted(asked)},
        "others above the worst needed token / needed tokens lost": {
            head: " ".join(f"{above}/{lost}" for above, lost in counts) for head, counts in ranks.items()},
        "seconds": round(time.time() - began, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path, default=Path("models/kvasir-tiny"))
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048, 16384, 65536])
    parser.add_argument("--documents", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1000, help="of the first document; training uses other streams")
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--placement", choices=["start", "spread"], default="start")
    parser.add_argument("--window-only", action="store_true")
    options = parser.parse_args()
    model = load_model(options.model)
    if options.window_only:
        for layer in model.model.layers:
            layer.self_attn.A.data.zero_()
    for tokens in options.tokens:
        seeds = range(options.seed, options.seed + options.documents)
        report = evaluate(model, options.model / "tokenizer.json", tokens, seeds, options.facts, options.placement)
        print(json.dumps(report, indent=1), flush=True)


if __name__ == "__main__":
    main()
