"""Marks for notebook 07, A whole Persimmon: its training on copies."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checks.marking import Verdict, Wrong, call, verdict
from persimmon_lab.training.copying import CopyTask, copying_accuracy

# Open: shortest_training

ANY_DISTANCE = CopyTask(symbols=32, shortest=4, longest=12, length=24, distinct=True)
UNSEEN = CopyTask(symbols=32, shortest=16, longest=16, length=24, distinct=True)  # a period that no row had
NEEDED = 0.95  # of the copied symbols
LONG = 1800.0  # seconds that a training may take
ENOUGH = 160 * 32  # rows: what the notebook takes


def shortest_training(answer: Callable[..., PersimmonForCausalLM]) -> Verdict:
    """Any training will do that copies at distances seen and unseen, and reads fewer rows than the notebook's."""
    return verdict(
        _check_training,
        answer,
        lambda rows: f"it copies at any distance after {rows:,} rows; how few can you make them?",
        seconds=LONG,
    )


def _check_training(answer: Callable[..., PersimmonForCausalLM]) -> int:
    """How many rows it read."""
    read: list[int] = []
    generator = torch.Generator().manual_seed(70)

    def draw(rows: int) -> Int[Tensor, "row position"]:
        read.append(rows)
        if sum(read) >= ENOUGH:
            raise Wrong(f"it asks for {sum(read):,} rows; do it with fewer than the {ENOUGH:,} of the notebook")
        return ANY_DISTANCE.rows(rows, generator).ids

    model = call(answer, draw=draw, generator=torch.Generator().manual_seed(7))
    if not isinstance(model, PersimmonForCausalLM):
        raise Wrong(f"it returned a {type(model).__name__}; return the trained PersimmonForCausalLM")
    if model.config.vocab_size != ANY_DISTANCE.vocab_size:
        raise Wrong(f"its vocabulary is {model.config.vocab_size}; the task has {ANY_DISTANCE.vocab_size} ids")
    model.eval()
    test = torch.Generator().manual_seed(71)
    if (seen := copying_accuracy(model, ANY_DISTANCE.rows(256, test))) < NEEDED:
        chance = 1 / ANY_DISTANCE.symbols
        raise Wrong(
            f"it copies {seen:.0%} of the symbols at the periods that it was taught, and {NEEDED:.0%} are needed "
            f"(chance: {chance:.0%}); watch the loss on copied symbols: is it still falling?"
        )
    if (unseen := copying_accuracy(model, UNSEEN.rows(256, test))) < NEEDED:
        raise Wrong(
            f"it copies {seen:.0%} at the periods that it was taught and {unseen:.0%} at a period of 16: it has "
            "learned distances, not to look for what stood before"
        )
    return sum(read)
