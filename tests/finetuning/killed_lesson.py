"""A lesson by LoRA with dropout that kills itself with SIGKILL after a step: `python -m … FOLDER STEP`."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor

from persimmon_lab.finetuning import Settings, conversation, finetune
from persimmon_lab.finetuning.lora import adapt
from persimmon_lab.mini import load_mini

EXAMPLES = [conversation(f"What is {n}?", " ".join(["A number"] * (1 + n)), name=str(n)) for n in range(8)]
SETTINGS = Settings(
    epochs=2, rows=1, length=64, evaluate_every=2, packed=False, rate=1e-3, rank=2, dropout=0.2, patience=None
)


def run(folder: Path, kill_at: int | None = None) -> dict[str, Tensor]:
    """Teach the adapters and return all weights; with `kill_at` the process ends there and then."""

    def kill(step: int) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    model, tokenizer = load_mini()
    adapt(model, rank=2, dropout=0.2, seed=0)
    finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], SETTINGS, folder, False, kill)
    return model.state_dict()


if __name__ == "__main__":
    torch.set_num_threads(1)  # as in the tests: sums are taken in another order with two
    run(Path(sys.argv[1]), kill_at=int(sys.argv[2]))
