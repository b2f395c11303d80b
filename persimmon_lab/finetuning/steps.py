"""The steps of a run: which batches each one reads, and at what rate it learns."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from persimmon_lab.checkpoints.tensor_streams import bytes_of
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.finetuning.encoding import Encoded, encode_all
from persimmon_lab.finetuning.examples import Example, check_overlap
from persimmon_lab.finetuning.lora import PAIR
from persimmon_lab.finetuning.packing import Packed, fill_rows, lay_out
from persimmon_lab.finetuning.settings import Settings
from persimmon_lab.tokenizer import PersimmonTokenizer


@dataclass(frozen=True)
class Plan:
    """All that a run reads: the batches of its steps, and those of what is held out."""

    length: int
    documents: list[Encoded]
    held_out_documents: list[Encoded]
    steps: list[list[Packed]]
    held_out_batches: list[Packed]
    evaluate_every: int

    @property
    def tokens_per_step(self) -> int:
        return sum(batch.input_ids.numel() for step in self.steps for batch in step) // len(self.steps)

    @property
    def cut(self) -> list[int]:
        """Of each document that was longer than a row, how many of its tokens nobody reads."""
        return [document.cut for document in (*self.documents, *self.held_out_documents) if document.cut]


def make_plan(
    training: Sequence[Example],
    held_out: Sequence[Example],
    tokenizer: PersimmonTokenizer,
    settings: Settings,
    context_limit: int,
) -> Plan:
    """Raises ValueError where most held-out examples are taught, and for an example that does not fit a row."""
    check_overlap(training, held_out)
    length = settings.row_length(context_limit)
    documents = encode_all(training, tokenizer, length)
    held_out_documents = encode_all(held_out, tokenizer, length)
    epochs = [steps_of_epoch(documents, settings, length, epoch) for epoch in range(settings.epochs)]
    return Plan(
        length,
        documents,
        held_out_documents,
        steps=[step for epoch in epochs for step in epoch],
        held_out_batches=[b for step in steps_of_epoch(held_out_documents, settings, length, None) for b in step],
        evaluate_every=settings.evaluate_every or max(1, len(epochs[0]) // 2),
    )


def run_identity(model: nn.Module, config: PersimmonConfig, settings: Settings, plan: Plan) -> str:
    """What a checkpoint must have in common with the run that goes on from it: settings, examples, and every bit of the
    weights that it began with, frozen ones and the adapters' too."""
    told = (asdict(settings), plan.documents, plan.held_out_documents, config.to_dict())
    digest = hashlib.sha256(repr(told).encode())
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} {weight.requires_grad}".encode())
        digest.update(bytes_of(weight))
    for name, module in model.named_modules():  # what decides the adapters, besides their first values
        for part in ("scaling", "lora_dropout"):
            if PAIR not in name and hasattr(module, part):
                digest.update(f"{name} {part} {getattr(module, part)}".encode())
    return digest.hexdigest()


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
