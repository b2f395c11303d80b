"""Do two models compute the same? Module by module, between any two of this package, transformers, dtypes, devices."""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.numerics.compare import compare
from persimmon_lab.numerics.comparison import Comparison
from persimmon_lab.numerics.tolerances import NORMS, coarser


@dataclass(frozen=True)
class Parity:
    """`other` against `one`: relative errors, and whether all of them lie within the tolerance."""

    comparison: Comparison
    tolerance: float

    @property
    def first_difference(self) -> str | None:
        """The path of the first module beyond the tolerance: the bug is there, or in what runs just before."""
        beyond = (module.path for module in self.comparison.modules if module.distance.relative_error > self.tolerance)
        return next(beyond, None)

    @property
    def holds(self) -> bool:
        return self.first_difference is None

    def frame(self) -> pandas.DataFrame:
        """One row per module, in the order in which they ran."""
        return self.comparison.frame().drop(columns="candidate")

    def layers(self) -> pandas.DataFrame:
        """The worst module of each layer, and of what comes before and after the layers."""
        frame = self.frame()[["path", "layer", "relative error"]]
        part = frame["layer"].map("layer {:.0f}".format).where(frame["layer"].notna(), frame["path"])
        worst = frame.groupby(part, sort=False)["relative error"].idxmax()
        return (
            frame.loc[worst, ["relative error", "path"]].set_axis(worst.index).rename(columns={"path": "worst module"})
        )

    def __repr__(self) -> str:
        return f"<Parity: {self._verdict()}; print it for the report>"

    def _verdict(self) -> str:
        verdict = "agree" if self.holds else f"DIFFER, first at {self.first_difference}"
        return f"{verdict} (tolerance {self.tolerance:g} of the norm, {len(self.comparison.modules)} modules)"

    def __str__(self) -> str:
        lines = [self._verdict()]
        for name, made in self.comparison.predictions.items():
            lines.append(f"predictions: mean KL {float(made.kl.mean()):.2g} nats, {int(made.flipped.sum())} of "
                         f"{made.flipped.numel()} likeliest tokens differ")  # fmt: skip
            if (bad := self.comparison.first_non_finite[name]) is not None:
                lines.append(f"first number that is not finite: {bad}")
        return "\n".join([*lines, "", self.layers().to_string(float_format="{:.2e}".format)])


def parity(
    one: nn.Module,
    other: nn.Module,
    ids: Int[Tensor, "batch position"],
    *,
    tolerance: float | None = None,
    only: Iterable[str] | None = None,
) -> Parity:
    """Compare all modules that both models have on the same tokens; `str` of the result is a report.

    Without a `tolerance`, that of the coarser of the two dtypes. Raises ValueError as `compare` does.
    """
    if tolerance is None:
        tolerance = coarser(next(one.parameters()).dtype, next(other.parameters()).dtype, NORMS)
    return Parity(compare(one, {"other": other}, ids, only=only), tolerance)
