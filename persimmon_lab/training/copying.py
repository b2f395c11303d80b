"""The copying task: a row of random symbols that comes again. What is new is pure chance; what comes again is known.

A model that has learned it pays log(symbols) nats for a new symbol and nothing for a copied one, so the two halves of
its loss say how far it has come. With one period the answer stands at one distance, and a head that looks back that far
is enough. With many periods it must be found by what stood before it: an induction head (Olsson et al. 2022,
"In-context learning and induction heads"). `training/drills.py` has the same lesson for text.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from persimmon_lab.anatomy import layer_of, within_layer
from persimmon_lab.losses import IGNORED, next_token_loss

START = 0  # the id that every row begins with; the symbols follow it


class Rows(NamedTuple):
    """Rows of ids, and which of them can be known.

    `new` marks the symbols drawn by chance, `copied` those that repeat one a period before. The first symbol of a copy
    is neither: where periods differ, nothing announces it.
    """

    ids: Int[Tensor, "batch position"]
    new: Bool[Tensor, "batch position"]
    copied: Bool[Tensor, "batch position"]

    @property
    def labels(self) -> Int[Tensor, "batch position"]:
        """The ids where they are copied, -100 elsewhere: a loss that does not ask for luck."""
        return self.ids.masked_fill(~self.copied, IGNORED)


@dataclass(frozen=True)
class CopyTask:
    """START, then a block of `shortest` … `longest` symbols, again and again until the row has `length` symbols.

    With `distinct`, no symbol comes twice within a block, so that each one's successor is unambiguous.
    Raises ValueError for sizes that leave nothing to copy.
    """

    symbols: int = 32
    shortest: int = 12
    longest: int = 12
    length: int = 24
    distinct: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.shortest <= self.longest < self.length:
            raise ValueError(
                f"periods of {self.shortest} … {self.longest} in rows of {self.length} symbols; "
                "expected 1 <= shortest <= longest < length, so that something comes again"
            )
        if self.distinct and self.longest > self.symbols:
            raise ValueError(f"{self.longest} distinct symbols are asked for, and there are {self.symbols}")

    @property
    def vocab_size(self) -> int:
        return self.symbols + 1

    @property
    def chance(self) -> float:
        """Nats for one of the symbols when nothing is known: log(symbols)."""
        return math.log(self.symbols)

    def rows(self, count: int, generator: torch.Generator) -> Rows:
        """`count` rows, each with a period of its own, evenly drawn."""
        if self.distinct:
            drawn = torch.rand(count, self.symbols, generator=generator).argsort(dim=-1)[:, : self.longest]
        else:
            drawn = torch.randint(self.symbols, (count, self.longest), generator=generator)
        periods = torch.randint(self.shortest, self.longest + 1, (count, 1), generator=generator)
        place = repeat(torch.arange(self.length), "position -> batch position", batch=count)
        ids = torch.cat((torch.full((count, 1), START), drawn.gather(1, place % periods) + 1), dim=1)
        start = torch.zeros(count, 1, dtype=torch.bool)
        return Rows(ids, torch.cat((start, place < periods), dim=1), torch.cat((start, place > periods), dim=1))


class Lesson(NamedTuple):
    """One step of training: nats per new and per copied symbol before the update, and the norm of the gradient of each
    part before it is clipped."""

    step: int
    new: float
    copied: float
    gradients: dict[str, float]


def part_of(name: str) -> str:
    """The part of a causal model that a parameter belongs to: a norm counts to what it feeds."""
    layer, module = layer_of(name), within_layer(name).partition(".")[0]
    if layer is None:
        return {"embed_tokens": "embedding", "final_layernorm": "final norm", "lm_head": "head"}[name.split(".")[-2]]
    return f"layer {layer} {'attention' if module in ('input_layernorm', 'self_attn') else 'MLP'}"


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """The length of the gradient of each part, in the order of the forward pass."""
    squares: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = part_of(name)
            squares[part] = squares.get(part, torch.zeros(())) + parameter.grad.square().sum()
    return {part: math.sqrt(square) for part, square in squares.items()}


def loss_by_symbol(model: nn.Module, ids: Int[Tensor, "batch position"]) -> Float[Tensor, "batch position"]:
    """-log p of every id, in nats; 0 for the first of a row, which nothing predicts."""
    losses = next_token_loss(model, ids)
    return torch.cat((torch.zeros_like(losses[:, :1]), losses), dim=1)


def teach(
    model: nn.Module,
    task: CopyTask,
    generator: torch.Generator,
    *,
    steps: int = 160,
    rate: float = 0.01,
    count: int = 32,
    warmup: int = 10,
    decay: float = 0.4,
    most: float = 1.0,
) -> Iterator[Lesson]:
    """Train a causal model on fresh rows, `count` a step, as far as the iterator is drawn; yields after each update.

    AdamW without weight decay on the mean loss of all symbols, gradients clipped to a norm of `most`; the rate rises
    over `warmup` steps and falls to 0 over the last `decay` of the steps.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        rows = task.rows(count, generator)
        losses = loss_by_symbol(model, rows.ids)
        optimiser.zero_grad()
        losses[:, 1:].mean().backward()
        gradients = gradient_norms(model)
        nn.utils.clip_grad_norm_(model.parameters(), most)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / warmup, (steps - step) / (decay * steps))
        optimiser.step()
        yield Lesson(step, losses[rows.new].mean().item(), losses[rows.copied].mean().item(), gradients)


@torch.no_grad()
def copying_accuracy(model: nn.Module, rows: Rows) -> float:
    """The share of the copied symbols that the model finds most likely."""
    guesses = model(rows.ids, use_cache=False).logits[:, :-1].argmax(dim=-1)
    copied = rows.copied[:, 1:]
    return float((guesses == rows.ids[:, 1:])[copied].float().mean())
