"""How far one tensor lies from another, and one model's predictions from another's. All arithmetic in float64."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persimmon_lab.numerics.formats import NumberFormat, format_of

PIECE = 2**22  # numbers turned into float64 at a time
POSITIONS = 64  # of logits turned into float64 at a time: 262,144 numbers each in the 8B model


@dataclass(frozen=True)
class Distance:
    """One tensor against its reference.

    `relative_error` is ||candidate - reference|| / ||reference||, infinite where the candidate is not finite;
    `largest` the reference's largest magnitude; `overflowed` counts what is finite in the reference alone,
    `underflowed` what is 0 in the candidate because its format has nothing that small; `first_bad` is the first index
    that overflowed.
    """

    format: NumberFormat
    relative_error: float
    largest: float
    overflowed: int
    underflowed: int
    first_bad: tuple[int, ...] | None

    @property
    def signal_to_noise(self) -> float:
        """In dB: 6 for every bit that is right."""
        return -20 * math.log10(self.relative_error) if self.relative_error else math.inf

    @property
    def share(self) -> float:
        """The largest magnitude as a share of the format's largest number; above 1 it cannot be held."""
        return self.largest / self.format.largest


def _pieces(reference: Tensor, candidate: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    flat = (rearrange(tensor, "... -> (...)").split(PIECE) for tensor in (reference, candidate))
    for one, other in zip(*flat, strict=True):
        yield one.double(), other.to(one.device).double()


def distance(
    reference: Float[Tensor, "*shape"], candidate: Float[Tensor, "*shape"], is_masked: bool = False
) -> Distance:
    """The candidate against the reference. `is_masked`: leave out where the reference holds its dtype's lowest
    number, which in attention scores says "not visible" and differs from dtype to dtype."""
    lowest = torch.finfo(reference.dtype).min / 2 if is_masked else -math.inf
    format = format_of(candidate.dtype)
    error = norm = largest = 0.0
    overflowed = underflowed = seen = 0
    first_bad = None
    for one, other in _pieces(reference, candidate):
        compared = ~(one < lowest)
        bad = compared & one.isfinite() & ~other.isfinite()
        if first_bad is None and bool(bad.any()):
            first_bad = seen + int(bad.nonzero()[0])
        overflowed += int(bad.sum())
        underflowed += int((compared & (other == 0) & (one != 0) & (one.abs() <= format.smallest_subnormal / 2)).sum())
        one, other = one[compared], other[compared]
        error += float((other - one).square().sum())
        norm += float(one.square().sum())
        largest = max(largest, float(one.abs().max())) if one.numel() else largest
        seen += compared.numel()
    ratio = math.sqrt(error / norm) if norm and math.isfinite(error) else math.inf
    return Distance(
        format,
        relative_error=0.0 if error == 0 else ratio,
        largest=largest,
        overflowed=overflowed,
        underflowed=underflowed,
        first_bad=first_bad
        if first_bad is None
        else tuple(int(index) for index in torch.unravel_index(torch.tensor(first_bad), reference.shape)),
    )


@dataclass(frozen=True)
class Predictions:
    """What the candidate predicts, against what the reference predicts, position by position.

    `kl` is KL(reference || candidate) in nats, infinite where the candidate's logits are not finite; `choice` and
    `reference_choice` are the likeliest tokens; the perplexities are of the tokens that were read, from the second on.
    """

    kl: Float[Tensor, "batch position"]
    choice: Int[Tensor, "batch position"]
    reference_choice: Int[Tensor, "batch position"]
    perplexity: float
    reference_perplexity: float

    def __repr__(self) -> str:
        flipped = f"{int(self.flipped.sum())} of {self.flipped.numel()} flipped"
        return f"<Predictions: mean KL {float(self.kl.mean()):.2g} nats, {flipped}, perplexity {self.perplexity:.4g}>"

    @property
    def flipped(self) -> Bool[Tensor, "batch position"]:
        """Where the likeliest token is another one."""
        return self.choice != self.reference_choice

    @property
    def is_finite(self) -> bool:
        return bool(self.kl.isfinite().all())


def predictions(
    reference: Float[Tensor, "batch position vocab"],
    candidate: Float[Tensor, "batch position vocab"],
    ids: Int[Tensor, "batch position"],
) -> Predictions:
    """Compare two models' logits on the tokens `ids` that both have read. A choice among NaN is -1."""
    kl: list[Tensor] = []
    choices: list[Tensor] = []
    reference_choices: list[Tensor] = []
    losses: tuple[list[Tensor], list[Tensor]] = ([], [])  # of the reference, of the candidate
    following = torch.nn.functional.pad(ids[:, 1:], (0, 1)).to(reference.device)  # the last one is not counted
    pieces = (tensor.split(POSITIONS, dim=1) for tensor in (reference, candidate, following))
    for one, other, labels in zip(*pieces, strict=True):
        other = other.to(one.device)
        p, q = (logits.double().log_softmax(dim=-1) for logits in (one, other))
        finite = other.isfinite().all(dim=-1)
        kl.append(torch.where(finite, (p.exp() * (p - q)).sum(dim=-1), torch.inf))
        choices.append(torch.where(finite, other.argmax(dim=-1), -1))
        reference_choices.append(one.argmax(dim=-1))
        for log_probabilities, of_model in zip((p, q), losses):
            of_model.append(-log_probabilities.gather(-1, labels[..., None])[..., 0])
    reference_loss, loss = (torch.cat(of_model, dim=1)[:, :-1].mean() for of_model in losses)
    return Predictions(
        kl=torch.cat(kl, dim=1).clamp(min=0).cpu(),  # it is never negative, but rounding may say so
        choice=torch.cat(choices, dim=1).cpu(),
        reference_choice=torch.cat(reference_choices, dim=1).cpu(),
        perplexity=float(loss.exp()),
        reference_perplexity=float(reference_loss.exp()),
    )
