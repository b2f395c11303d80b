"""Why a training step failed: which tensor stopped being finite first, in which quantity, and by what mechanism."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from persimmon_lab.numerics.formats import NumberFormat, format_of, round_to
from persimmon_lab.numerics.observation import Magnitudes, Observation, Step, largest, share

# The mechanisms; a failure names one of them.
DIVISION = "division by zero"
LEAP = "unbounded update"
SQUARE = "squared ReLU"
LOSS_SCALE = "loss scale"
RANGE = "range"

# In rates: with torch's betas AdamW moves no weight further. Source: Kingma and Ba 2015, section 2.1.
LONGEST_UPDATE = (1 - 0.9) / math.sqrt(1 - 0.999)

Why = tuple[str, str, dict[str, float]]  # mechanism, sentence, evidence


@dataclass(frozen=True)
class Failure:
    """The first tensor that was not finite: where, in which quantity, by which mechanism, and the numbers behind it."""

    step: int
    quantity: str  # activation, loss, gradient, moment or weight
    tensor: str  # the name of a module or of a parameter
    mechanism: str
    sentence: str
    evidence: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"step {self.step}, {self.quantity} of {self.tensor}: {self.sentence}"


def diagnose(seen: Observation, previous: Step | None) -> Failure | None:
    """What failed first within a step, or None; `previous` is the step before it."""

    def failure(quantity: str, tensor: str, why: Why) -> Failure:
        return Failure(seen.step, quantity, tensor, *why)

    if name := first_not_finite(seen.activations):
        return failure("activation", name, why_activation(seen, name, previous))
    if not math.isfinite(seen.loss):
        return failure("loss", "loss", (RANGE, "it is not finite although every activation is", {}))
    if name := first_not_finite(seen.gradients):
        return failure("gradient", name, why_scaled("it", seen, format_of(seen.dtype)))
    if name := first_not_finite({name: largest(m.first) + largest(m.second) for name, m in seen.moments.items()}):
        what = "the square of a gradient"
        return failure("moment", name, why_scaled(what, seen, format_of(seen.moments[name].second.dtype)))
    if name := first_not_finite({name: largest(weight) for name, weight in seen.weights.items()}):
        return failure("weight", name, why_weight(seen, format_of(seen.weights[name].dtype)))
    return None


def first_not_finite(magnitudes: Magnitudes) -> str | None:
    """The name of the first magnitude that is inf or nan."""
    return next((name for name, magnitude in magnitudes.items() if not magnitude.isfinite()), None)


def ends(format: NumberFormat) -> str:
    return f"beyond {format.largest:,.5g}, where {format.name} ends"


def why_activation(seen: Observation, name: str, previous: Step | None) -> Why:
    format = format_of(seen.dtype)
    if previous is not None and previous.longest_update > 2 * LONGEST_UPDATE:
        return (
            LEAP,
            f"the step before moved a weight by {previous.longest_update:,.0f} rates, where AdamW's bound is "
            f"{LONGEST_UPDATE:.1f}: the second moment of {previous.unnormalised:.0%} of the weights is 0 in "
            f"{format.name}, and only eps divided their updates",
            {"longest_update": previous.longest_update, "unnormalised": previous.unnormalised},
        )
    if name.endswith("mlp.activations"):
        before = float(seen.highest[name.removesuffix("activations") + "dense_h_to_4h"])
        if before**2 > format.largest:
            return (
                SQUARE,
                f"a neuron reached {before:,.1f}, and its square is {ends(format)}",
                {"before": before, "limit": format.largest},
            )
    return RANGE, f"an output is {ends(format)}", {"limit": format.largest}


def why_scaled(what: str, seen: Observation, format: NumberFormat) -> Why:
    mechanism = LOSS_SCALE if seen.loss_scale > 1 else RANGE
    evidence = {"loss_scale": seen.loss_scale, "limit": format.largest}
    return mechanism, f"with the loss times {seen.loss_scale:,.0f}, {what} is {ends(format)}", evidence


def why_weight(seen: Observation, format: NumberFormat) -> Why:
    eps = float(round_to(torch.tensor(seen.eps, dtype=torch.float64), format))
    evidence = {
        "eps": eps,
        "nan": share({name: weight.isnan() for name, weight in seen.weights.items()}),
        "inf": share({name: weight.isinf() for name, weight in seen.weights.items()}),
    }
    if eps > 0:
        return RANGE, f"an update led {ends(format)}", evidence
    return (
        DIVISION,
        f"AdamW's eps of {seen.eps:g} is 0 in {format.name}, and so are second moments: {evidence['inf']:.1%} of the "
        f"weights became x/0 = inf, and {evidence['nan']:.1%}, whose first moment is 0 as well, 0/0 = nan",
        evidence,
    )
