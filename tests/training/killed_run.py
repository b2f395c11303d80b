"""A small training run that kills itself with SIGKILL after a step: `python killed_run.py FOLDER STEP`."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.training.batches import DRILLS, drills, stretches
from persimmon_lab.training.recipe import Recipe
from persimmon_lab.training.trainer import train

CONFIG = PersimmonConfig.tiny()
RECIPE = Recipe(
    steps=12, warmup_steps=3, tokens=64, lengths=((0.0, 16), (0.8, 32)), first_piece=5,
    weights={"chat": 0.7, DRILLS: 0.3},
)  # fmt: skip
# The model's precision is named: a machine that emulates bfloat16 would choose float32.
TEXT = np.random.default_rng(0).integers(5, 128, 2000).astype(np.uint16)
SOURCES = {"chat": stretches(TEXT), DRILLS: drills([stretches(TEXT)], RECIPE.first_piece, CONFIG.vocab_size)}


def run(folder: Path, recipe: Recipe = RECIPE, kill_at: int | None = None) -> PersimmonForCausalLM:
    """Train; with `kill_at` the process ends there and then, two steps after the last checkpoint."""

    def kill(model: PersimmonForCausalLM, step: int) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    return train(
        CONFIG, recipe, SOURCES, {"chat": TEXT[:200]}, folder, dtype=torch.bfloat16,
        checkpoint_every=3, evaluate_every=5, log_every=1, progress=False, on_evaluation=kill,
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the tests: sums are taken in another order with two
    run(Path(sys.argv[1]), kill_at=int(sys.argv[2]))
