"""Where two runs of a model part: the same tokens through several dtypes, measured at every module.

    reference = in_dtype(model, torch.float64)
    comparison = compare(reference, {name: in_dtype(model, dtype) for name, dtype in …}, ids)
    comparison.frame()      # one row per module and candidate
    comparison.summary()    # one row per candidate: KL, flips, perplexity, the first number that is not finite

One pass per model, on hooks, without keeping activations: for any size. Works on this package's models and on
transformers', which share the names of their modules.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.numerics.lockstep import lockstep, matches
from persimmon_lab.numerics.measures import Distance, Predictions, distance, predictions

OUTPUT = "lm_head"
RESIDUAL, SQUARED_RELU = "residual stream", "squared ReLU"
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:$|\.)")
OPERATIONS = {
    "embed_tokens": "embedding",
    "query_key_value": "linear map",
    "dense": "linear map",
    "dense_h_to_4h": "linear map",
    "dense_4h_to_h": "linear map",
    "rotated_query": "rotation",
    "rotated_key": "rotation",
    "scores": "scores",
    "pattern": "softmax",
    "head_output": "mean of the values",
    "self_attn": "attention",
    "mlp": "MLP",
    OUTPUT: "logits",
}  # and every norm is a "LayerNorm"


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose parameters are in `dtype`; tied ones stay tied, and buffers stay as they are.

    Not `copy.deepcopy(model).to(dtype)`, which needs the memory of the original again on the way, and rounds the
    inverse frequencies that transformers keeps in buffers.
    """
    converted = {
        id(parameter): nn.Parameter(parameter.detach().to(dtype, copy=True), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, converted)


def layer_of(path: str) -> int | None:
    """The number of the decoder layer that a module belongs to."""
    found = LAYER.search(path)
    return int(found[1]) if found else None


def operation_of(path: str, hidden_act: str = "") -> str:
    """What the module of that path computes, in words; `hidden_act` names the activation."""
    name = path.rpartition(".")[2]
    if name.isdigit():
        return RESIDUAL
    if name == "activations":
        return SQUARED_RELU if hidden_act == "relu2" else f"activation {hidden_act}".strip()
    return "LayerNorm" if name.endswith("layernorm") else OPERATIONS.get(name, name)


@dataclass(frozen=True)
class Tap:
    """One module of one candidate against the reference."""

    candidate: str
    path: str
    operation: str
    distance: Distance

    def row(self) -> dict:
        there = self.distance
        return {
            "candidate": self.candidate,
            "path": self.path,
            "layer": layer_of(self.path),
            "operation": self.operation,
            "relative error": there.relative_error,
            "signal to noise (dB)": there.signal_to_noise,
            "largest": there.largest,
            "share of the format": there.share,
            "overflowed": there.overflowed,
            "underflowed": there.underflowed,
        }


@dataclass(frozen=True)
class NonFinite:
    """The first number of a candidate that is not finite: the module that made it, where, and what it should be."""

    path: str
    operation: str
    index: tuple[int, ...]
    value: float
    exact: float
    largest: float
    format_name: str

    def __str__(self) -> str:
        where = f"{self.path} {list(self.index)}"
        if abs(self.exact) <= self.largest:
            return f"{where}: {self.operation} gives {self.value}, where the reference has {_number(self.exact)}"
        # What a squared ReLU was given can be read off what it should give.
        given = f" of {_number(self.exact**0.5)}" if self.operation == SQUARED_RELU else ""
        ends = f"{self.format_name} ends at {_number(self.largest)}"
        return f"{where}: {self.operation}{given} is {_number(self.exact)}; {ends}"


def _number(value: float) -> str:
    """90721.4 -> "90,721", 301.21 -> "301.2", 3.4e38 -> "3.39e+38"."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `taps` in the order in which the modules ran."""

    reference: str
    taps: list[Tap]
    first_non_finite: dict[str, NonFinite | None]
    predictions: dict[str, Predictions]

    def frame(self) -> pandas.DataFrame:
        """One row per module and candidate."""
        return pandas.DataFrame([tap.row() for tap in self.taps])

    def summary(self) -> pandas.DataFrame:
        """One row per candidate: what its predictions lost, and its first number that is not finite."""
        rows = [
            {
                "candidate": name,
                "mean KL (nats)": float(made.kl.mean()),
                "largest KL (nats)": float(made.kl.max()),
                "flipped": int(made.flipped.sum()),
                "positions": made.flipped.numel(),
                "perplexity": made.perplexity,
                "perplexity of the reference": made.reference_perplexity,
                "first not finite": str(self.first_non_finite[name] or "none"),
            }
            for name, made in self.predictions.items()
        ]
        return pandas.DataFrame(rows).set_index("candidate")

    def growth(self) -> pandas.DataFrame:
        """How the relative error of the residual stream grows: one row per layer, one column per candidate."""
        frame = self.frame()
        stream = frame[frame["operation"] == RESIDUAL].astype({"layer": int})
        return stream.pivot(index="layer", columns="candidate", values="relative error")[list(self.first_non_finite)]


def compare(
    reference: nn.Module,
    candidates: Mapping[str, nn.Module],
    ids: Int[Tensor, "batch position"],
    *,
    only: Iterable[str] | None = None,
) -> Comparison:
    """Run the reference and the candidates, by name, on the same tokens and measure every module that all have.

    `only` are patterns of module paths ("*.mlp.*"); the logits are always compared where the models make any. Metrics
    are float64; a float64 reference (`in_dtype(model, torch.float64)`) separates rounding from bugs.
    """
    wanted = None if only is None else list(only)
    taps, made = [], {}
    first_non_finite: dict[str, NonFinite | None] = dict.fromkeys(candidates)
    models = [reference, *candidates.values()]
    for path, (exact, *others) in lockstep(models, lambda model: _read(model, ids), wanted and [*wanted, OUTPUT]):
        operation = operation_of(path, str(reference.config.hidden_act))
        for name, other in zip(candidates, others, strict=True):
            there = distance(exact, other, is_masked=operation == "scores")
            if matches(path, wanted):
                taps.append(Tap(name, path, operation, there))
            if first_non_finite[name] is None and (at := there.first_bad) is not None:
                first_non_finite[name] = NonFinite(
                    path, operation, at, float(other[at]), float(exact[at]), there.format.largest, there.format.name
                )
            if path == OUTPUT:
                made[name] = predictions(exact, other, ids)
    return Comparison(str(_dtype(reference)).removeprefix("torch."), taps, first_non_finite, made)


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def _read(model: nn.Module, ids: Int[Tensor, "batch position"]) -> object:
    """A forward pass without a cache, on the device where the model takes its tokens."""
    device = next(model.parameters()).device
    return model(input_ids=ids if device.type == "meta" else ids.to(device), use_cache=False)
