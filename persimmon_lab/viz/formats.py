"""Number formats to look at: how far each reaches, and how far apart its numbers stand."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves
from persimmon_lab.viz.style import (
    CATEGORICAL,
    FAINT,
    INK,
    LINE_STYLES,
    MUTED,
    Size,
    figure_grid,
    legend_outside,
    new_figure,
    numbers,
    series,
    title_outside,
)

BLUE, ORANGE = CATEGORICAL[:2]
WHOLE = (1e-48, 1e42)  # what the upper panel shows; float64 goes on to either side
CLOSE = (1e-9, 1e6)  # the lower panel: where a model's numbers are
Range = tuple[float, float, float]  # smallest subnormal, smallest normal, largest


def as_power(value: int | float) -> str:
    """65504 -> "65,504", 3.4e38 -> "3.4e38", 1e-08 -> "1e-8": as short as it can be read."""
    if 0.01 <= abs(value) < 1e6 and float(f"{value:.6g}") == value:
        return f"{value:,.6g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def ranges(
    formats: Mapping[str, Range],
    marks: Mapping[str, int | float] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """What each format reaches, as (smallest subnormal, smallest normal, largest), and numbers that it should hold.

    Hatched: subnormal, where digits are lost one by one. Below, the part where a model's numbers are: a mark is a dot
    where the format holds such a number, and a cross where it becomes 0 or leaves the format.
    """
    figure, axes = figure_grid(2, 1, 9.0, 1.0 + 0.22 * len(formats), size)
    above, below = axes[:, 0]
    for panel, limits in ((above, WHOLE), (below, CLOSE)):
        _draw_ranges(panel, formats, limits)
    above.set_xticks([10.0**power for power in range(-40, 41, 10)])
    above.axvspan(*CLOSE, color=FAINT, alpha=0.7, linewidth=0, zorder=0)
    for row, (_, _, largest) in enumerate(formats.values()):
        above.annotate(f"to {as_power(largest)}", (1, row), (6, 0), xycoords=("axes fraction", "data"),
                       textcoords="offset points", va="center", fontsize=8.5, color=INK)  # fmt: skip
    for index, (name, value) in enumerate(sorted((marks or {}).items(), key=lambda mark: mark[1])):
        below.axvline(value, color=MUTED, linewidth=0.8, linestyle=LINE_STYLES[2], zorder=2)
        # At two heights, so that neighbours may stand closer than their names are wide.
        below.annotate(name, (value, 1), (0, 3 + 12 * (index % 2)), xycoords=("data", "axes fraction"),
                       textcoords="offset points", ha="center", va="bottom", fontsize=8.5, color=INK)  # fmt: skip
        for row, (subnormal, _, largest) in enumerate(formats.values()):
            holds = subnormal / 2 < value <= largest
            below.plot(value, row, marker="o" if holds else "X", markersize=6 if holds else 8, zorder=4,
                       color="black" if holds else ORANGE, markeredgecolor="white", clip_on=False)  # fmt: skip
    below.set_xlabel("magnitude")
    above.set_title(title or "How far each format reaches", loc="left")
    return figure


def _draw_ranges(axes: Axes, formats: Mapping[str, Range], limits: tuple[float, float]) -> None:
    low, high = limits
    for row, (subnormal, normal, largest) in enumerate(formats.values()):
        parts: list[tuple[float, float, dict[str, Any]]] = [
            (subnormal, normal, {"facecolor": "white", "hatch": "/////"}),
            (normal, largest, {"facecolor": BLUE}),
        ]
        for start, end, style in parts:
            start, end = max(start, low), min(end, high)
            if start < end:
                axes.barh(row, end - start, left=start, height=0.6, edgecolor=BLUE, linewidth=0.8, **style)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(len(formats) - 0.5, -0.5)
    axes.set_yticks(range(len(formats)), formats)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)


def spacings(
    magnitudes: Float[Tensor, "magnitude"],
    steps: Mapping[str, Float[Tensor, "magnitude"]],
    marks: Mapping[str, int | float] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The step between neighbouring numbers by magnitude, one staircase per format; NaN beyond its end.

    Above the horizontal line steps are longer than 1, and integers are lost. `marks` are magnitudes to point at.
    """
    check_curves("magnitude", magnitudes, steps)
    figure, axes = new_figure(9.0, 3.8, size, ax)
    x = numbers(magnitudes)
    for index, (name, step) in enumerate(steps.items()):
        y, look = numbers(step), series(index)
        axes.step(x, y, where="post", linewidth=2, label=name, **look.line)
        last = (y == y).nonzero()[0][-1]
        if last < len(x) - 1:  # the format ends within the figure
            axes.plot(x[last], y[last], marker="X", markersize=9, color=look.colour, markeredgecolor="white")
    axes.axhline(1, color=INK, linewidth=0.9)
    axes.annotate("steps of 1: all integers up to here", (0, 1), (4, 3), xycoords=("axes fraction", "data"),
                  textcoords="offset points", fontsize=8.5)  # fmt: skip
    for index, (name, value) in enumerate(sorted((marks or {}).items(), key=lambda mark: mark[1])):
        axes.axvline(value, color=MUTED, linewidth=0.8, linestyle=LINE_STYLES[2], zorder=1)
        axes.annotate(name, (value, 1), (0, 3 + 12 * (index % 2)), xycoords=("data", "axes fraction"),
                      textcoords="offset points", ha="center", va="bottom", fontsize=8.5)  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlim(x[0], x[-1])
    axes.set_xlabel("magnitude")
    axes.set_ylabel("step to the next number")
    axes.grid(color=FAINT, linewidth=0.6)
    legend_outside(axes, ax, ncols=len(steps))
    title_outside(axes, ax, title or "How far apart the numbers of each format stand", fontsize=11)
    return figure
