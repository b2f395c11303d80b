"""The steps of a run: which batches each one reads, and at what rate it learns."""

import math
from collections.abc import Sequence

import torch

from persimmon_lab.finetuning.encoding import Encoded
from persimmon_lab.finetuning.packing import Packed, fill_rows, lay_out
from persimmon_lab.finetuning.settings import Settings


def steps_of_epoch(
    encoded: Sequence[Encoded], settings: Settings, length: int, epoch: int | None
) -> list[list[Packed]]:
    """The batches of each step, in an order that depends on seed and epoch alone; None: as they are given."""
    order = list(range(len(encoded)))
    if epoch is not None:
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
        order = torch.randperm(len(encoded), generator=generator).tolist()
    documents = [encoded[index] for index in order]
    rows = [[index] for index in range(len(documents))]
    if settings.packed:
        rows = fill_rows([len(document.input_ids) for document in documents], length)
    laid = [[documents[index] for index in row] for row in rows]
    batches = [lay_out(laid[start : start + settings.rows]) for start in range(0, len(laid), settings.rows)]
    return [batches[start : start + settings.accumulate] for start in range(0, len(batches), settings.accumulate)]


def rate_scale(step: int, steps: int, settings: Settings) -> float:
    """The rate at `step` (from 0) over the highest one."""
    warmup = round(settings.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.schedule]
