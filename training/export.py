"""
Copies the model of a run into the repository, with its importance made independent of rounding.

    python3 training/export.py /tmp/kvasir-run models/kvasir-tiny

After training, dt is above 14 for the values of facts and below -11 for filler, which so has an importance of
1 plus a few units in the last place: which of it fills the free places would hang on how exp rounds. Shifting dt by -6
makes filler exactly 1 in float32, hence a tie that the newer token wins, in every implementation.
"""
import sys

import torch

from checkpoint import load_model, save_model

SHIFT = -6.0


@torch.no_grad()
def main():
    run, folder = sys.argv[1:]
    model = load_model(run)
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.dt_proj.bias[attention.num_local:] += SHIFT
    save_model(folder, model)


if __name__ == "__main__":
    main()
