"""What a comparison of several runs is: one row per module, predictions, and the first number that is not finite."""

import re
from dataclasses import dataclass

import pandas

from persimmon_lab.numerics.measures import Distance, Predictions

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
    """The first number of a candidate that is not finite: the module that made it, where, and what it should be.

    `weight` names a weight of the module that is not finite itself, where there is one: it was lost in conversion.
    """

    path: str
    operation: str
    index: tuple[int, ...]
    value: float
    exact: float
    largest: float
    format_name: str
    weight: str | None = None

    def __str__(self) -> str:
        where = f"{self.path} {list(self.index)}"
        if self.weight is not None:
            return (
                f"{where}: {self.operation} gives {self.value}; its {self.weight} is not finite in {self.format_name}"
            )
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

    def by_layer(self, candidate: str, column: str = "relative error") -> pandas.DataFrame:
        """One column of the frame for one candidate, a row per layer and a column per module of a layer
        ("mlp.activations", …); "residual stream" is what the layer itself gives on."""
        rows = [tap.row() for tap in self.taps if tap.candidate == candidate and layer_of(tap.path) is not None]
        frame = pandas.DataFrame(rows).astype({"layer": int})
        module = frame["path"].str.replace(LAYER, "|", regex=True).str.rpartition("|")[2].replace("", RESIDUAL)
        table = frame.assign(module=module).pivot(index="layer", columns="module", values=column)
        return table[list(dict.fromkeys(module))]  # in the order in which they ran

    def growth(self) -> pandas.DataFrame:
        """How the relative error of the residual stream grows: one row per layer, one column per candidate."""
        return pandas.DataFrame({name: self.by_layer(name)[RESIDUAL] for name in self.first_non_finite})
