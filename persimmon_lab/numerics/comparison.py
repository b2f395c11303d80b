"""What a comparison of several runs is: one row per module, predictions, and the first number that is not finite."""

from dataclasses import dataclass
from typing import Any

import pandas

from persimmon_lab.anatomy import RESIDUAL, SQUARED_RELU, layer_of, within_layer
from persimmon_lab.numerics.measures import Distance, Predictions

SHOWN = 3  # candidates that a comparison names when it shows itself


@dataclass(frozen=True)
class ModuleDistance:
    """One module of one candidate against the reference."""

    candidate: str
    path: str
    operation: str
    distance: Distance

    def row(self) -> dict[str, Any]:
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
    """What `compare` found; `modules` in the order in which the modules ran."""

    reference: str
    modules: list[ModuleDistance]
    first_non_finite: dict[str, NonFinite | None]
    predictions: dict[str, Predictions]

    def __repr__(self) -> str:
        paths = {module.path for module in self.modules}
        lines = [
            f"Comparison with {self.reference}, {len(paths)} modules; .summary(), .frame() and .growth() tell more"
        ]
        for name, non_finite in list(self.first_non_finite.items())[:SHOWN]:
            if (made := self.predictions.get(name)) is None:
                lines.append(f"  {name}: no predictions")
                continue
            flipped = f"{int(made.flipped.sum())} of {made.flipped.numel()} likeliest tokens flipped"
            lines.append(f"  {name}: mean KL {float(made.kl.mean()):.2g} nats, {flipped}")
            lines += [f"    first not finite: {non_finite}"] if non_finite is not None else []
        if (more := len(self.first_non_finite) - SHOWN) > 0:
            lines.append(f"  and {more} more")
        return "\n".join(lines)

    def frame(self) -> pandas.DataFrame:
        """One row per module and candidate."""
        return pandas.DataFrame([module.row() for module in self.modules])

    def summary(self) -> pandas.DataFrame:
        """One row per candidate: what its predictions lost, and its first number that is not finite.

        Raises ValueError where the models make no predictions.
        """
        if not self.predictions:
            raise ValueError("the models have no lm_head, so there are no predictions to sum up; see .frame()")
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
        ("mlp.activations", …); "residual stream" is what the layer itself gives on.

        Raises ValueError for a candidate or a column that is not there, and where no layer was compared.
        """
        if candidate not in self.first_non_finite:
            raise ValueError(f"no candidate is called {candidate!r}; there are {', '.join(self.first_non_finite)}")
        rows = [
            module.row()
            for module in self.modules
            if module.candidate == candidate and layer_of(module.path) is not None
        ]
        if not rows:
            raise ValueError('no module of a layer was compared; leave out only=, or add "layers.*" to it')
        if column not in rows[0]:
            raise ValueError(f"no column is called {column!r}; there are {', '.join(rows[0])}")
        frame = pandas.DataFrame(rows).astype({"layer": int})
        module = frame["path"].map(within_layer).replace("", RESIDUAL)
        table = frame.assign(module=module).pivot(index="layer", columns="module", values=column)
        return table[list(dict.fromkeys(module))]  # in the order in which they ran

    def growth(self) -> pandas.DataFrame:
        """How the relative error of the residual stream grows: one row per layer, one column per candidate.

        Raises ValueError where the layers' own outputs were not compared.
        """
        layers = {name: self.by_layer(name) for name in self.first_non_finite}
        if any(RESIDUAL not in table for table in layers.values()):
            raise ValueError('the residual stream was not compared; leave out only=, or add "layers.*[0-9]" to it')
        return pandas.DataFrame({name: table[RESIDUAL] for name, table in layers.items()})
