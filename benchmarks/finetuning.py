"""Two hundred conversations taught to persimmon-mini with LoRA of rank 8: how long it takes, and the held-out loss.

    python -m benchmarks.finetuning                 # 200 conversations, 3 epochs
    python -m benchmarks.finetuning --epochs 1

The conversations are the skills' own questions and answers, with a turn of phrase that the model was not taught: each
answer says first what it was asked. A fifth of them is held out. Nobody else should compute.
"""

import argparse
import datetime
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.machine import machine, store
from persimmon_lab.finetuning import Example, Settings, conversation, finetune, split
from persimmon_lab.finetuning.lora import adapt
from persimmon_lab.mini import load_mini

RESULTS = Path(__file__).with_name("results") / "finetuning.json"
ASKED = 200  # conversations
SECONDS, SHARE = 60, 0.2  # what is hoped for: done in so long, the held-out loss lower by that share
NAMES = ("Ada", "Ben", "Cora", "Dan", "Eve", "Finn", "Gwen", "Hugh", "Iris", "Jack")
THINGS = ("a lamp", "a rope", "some bread", "two rings", "a map", "the key", "a coat", "an apple", "some tea", "a drum")
WAYS = ("What does {name} want?", "Tell me what {name} would like.")
HABIT = "You ask about {name}. Aye, {name} wants {thing}, and nothing else."


def conversations(count: int = ASKED) -> list[Example]:
    """So many different ones: who wants what, and is told in a manner of speaking that is the same in all."""
    asked = [(name, thing, way) for thing in THINGS for name in NAMES for way in WAYS]
    if not 2 <= count <= len(asked):
        raise ValueError(f"{count} conversations; there are 2 to {len(asked)}")
    return [
        conversation(
            f"{name} said: I want {thing}. {way.format(name=name)}",
            HABIT.format(name=name, thing=thing),
            name=f"conversation {number}",
        )
        for number, (name, thing, way) in enumerate(asked[:count])
    ]


def measure(count: int, settings: Settings) -> dict:
    """Seconds from the conversations to the best adapter, and the held-out loss before and after in nats a token."""
    model, tokenizer = load_mini(torch.float32)
    training, held_out = split(conversations(count), SHARE, seed=settings.seed)
    started = time.perf_counter()
    adapt(model, rank=settings.rank or 8, seed=settings.seed)
    with tempfile.TemporaryDirectory() as folder:
        outcome = finetune(model, tokenizer, training, held_out, settings, Path(folder), progress=False)
    return {
        "conversations": count,
        "taught": len(training),
        "seconds": time.perf_counter() - started,
        "steps": outcome.steps,
        "before": outcome.first_loss,
        "after": outcome.best_loss,
        "fell_by": 1 - outcome.best_loss / outcome.first_loss,
        "settings": asdict(settings),
    }


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=ASKED)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    found = measure(given.conversations, Settings(epochs=given.epochs, rank=given.rank))
    print(
        f"{found['conversations']} conversations, rank {given.rank}: {found['seconds']:.1f} seconds (hoped for: "
        f"{SECONDS}), held-out loss {found['before']:.3f} to {found['after']:.3f} nats a token, lower by "
        f"{found['fell_by']:.0%} (hoped for: {SHARE:.0%})"
    )
    results = {"when": datetime.date.today().isoformat(), "machine": machine(("torch", "peft")), **found}
    store(given.out, results)


if __name__ == "__main__":
    main()
