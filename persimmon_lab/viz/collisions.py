"""Rounded positions and phases to look at: the staircase, the error of each rounding, and what a model makes of it."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_marks, check_names
from persimmon_lab.viz.style import (
    CATEGORICAL,
    FAINT,
    INK,
    LINE_STYLES,
    MARKERS,
    MUTED,
    Size,
    figure_grid,
    legend_outside,
    new_figure,
    numbers,
    series,
)

BLUE, ORANGE = CATEGORICAL[:2]
HALF_TURN = np.pi
SMALLEST = 1e-5  # radians, below which a phase error is not drawn


def staircase(
    distinct_so_far: Mapping[str, Int[Tensor, "position"]],
    rounded: Float[Tensor, "position"],
    zooms: Sequence[tuple[int, int]],
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """How many different values the positions up to each one have, by format; and positions against their value.

    A zoom is a range of positions (its last one included). Filled dots are positions that kept their own value.
    ValueError for a zoom beyond the positions, or a format that has not a count for each.
    """
    check_curves("position", rounded, distinct_so_far)
    check_marks([end for zoom in zooms for end in zoom], position=len(rounded))
    figure, axes = figure_grid(1, 1 + len(zooms), 9.0 / (1 + len(zooms)), 3.4, size)
    left, *closer = axes[0]
    for index, (name, counts) in enumerate(distinct_so_far.items()):
        left.plot(np.arange(1, len(counts) + 1), numbers(counts), linewidth=2, label=name, **series(index).line)
    left.set_xscale("log", base=2)
    left.set_yscale("log", base=2)
    left.set_xlabel("positions")
    left.set_ylabel("different values")
    left.grid(color=FAINT, linewidth=0.6)
    left.legend(frameon=False, loc="upper left")
    left.set_title("How many are told apart", loc="left")
    for panel, (first, last) in zip(closer, zooms):
        positions, values = np.arange(first, last + 1), numbers(rounded[first : last + 1])
        kept = positions == values
        panel.plot(positions, positions, color=MUTED, linewidth=0.8, linestyle=LINE_STYLES[2], zorder=1)
        panel.step(positions, values, where="mid", color=BLUE, linewidth=1, alpha=0.6, zorder=2)
        panel.scatter(positions[kept], values[kept], s=26, color=BLUE, zorder=3)
        panel.scatter(positions[~kept], values[~kept], s=26, facecolor="white", edgecolor=ORANGE, linewidth=1.5,
                      marker=MARKERS[2], zorder=3)  # fmt: skip
        panel.set_yticks(np.unique(values))
        panel.grid(axis="y", color=FAINT, linewidth=0.6)
        panel.set_xlabel("position")
        panel.set_title(f"From {first} to {last}: the value", loc="left")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def phase_errors(
    errors: Mapping[str, Float[Tensor, "position pair"]], pairs: Mapping[int, str], *, size: Size | None = None
) -> Figure:
    """How large each rounding's phase error gets by position: a panel for each rounding, a line for each of `pairs`.

    `pairs` names those that are drawn. Both axes are logarithmic, and a point is the largest error within a sixth of a
    doubling, since most errors come and go from one position to the next. Errors below 1e-5 radians are not drawn.
    ValueError for a pair that there is not.
    """
    for error in errors.values():
        check_marks(pairs, pair=error.shape[1])
    figure, axes = figure_grid(1, len(errors), 9.0 / len(errors), 3.4, size, sharex=True, sharey=True)
    for panel, (name, error) in zip(axes[0], errors.items()):
        for index, (pair, label) in enumerate(pairs.items()):
            positions, largest = envelope(np.abs(numbers(error[:, pair])))
            look = series(index)
            panel.plot(positions, np.where(largest < SMALLEST, np.nan, largest), label=label, linewidth=1.8,
                       marker=look.marker, markersize=5, markevery=(3 * index % 12, 12), **look.line)  # fmt: skip
        panel.axhline(HALF_TURN, color=INK, linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_ylim(SMALLEST, 100)
        panel.set_xlim(1, len(error))
        panel.set_xlabel("position")
        panel.set_title(name, loc="left")
        panel.grid(color=FAINT, linewidth=0.6)
    axes[0, 0].set_ylabel("phase error (radians)")
    axes[0, 0].text(1.3, HALF_TURN * 1.25, "half a turn", fontsize=9, color=INK)
    figure.legend(*axes[0, -1].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=len(pairs))
    return figure


def envelope(size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest values by stretches of a sixth of a doubling, and the last position of each stretch."""
    ends = np.unique(np.round(2 ** np.arange(0, np.log2(len(size)), 1 / 6)).astype(int))
    ends = np.append(ends[ends < len(size) - 1], len(size) - 1)
    starts = np.append(0, ends[:-1] + 1)
    return ends, np.maximum.reduceat(size, starts)


def by_position(
    curves: Mapping[str, Float[Tensor, "band"]],
    width: int,
    label: str,
    cliff: int,
    title: str = "",
    log: bool = False,
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """One line for each run over the position, means over bands of `width`; shaded from `cliff` on.

    With `log`, what is not above 0 is left out. ValueError for runs of different lengths.
    """
    figure, axes = new_figure(9.0, 3.6, size, ax)
    draw_by_position(axes, curves, width, cliff)
    if log:
        axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel(label)
    axes.set_title(title, loc="left")
    legend_outside(axes, ax, ncols=len(curves))
    return figure


def draw_by_position(axes: Axes, curves: Mapping[str, Float[Tensor, "band"]], width: int, cliff: int) -> None:
    first = next(iter(curves.values()))
    check_curves("band", first, curves)
    centres = (np.arange(len(first)) + 0.5) * width - 0.5
    for index, (name, values) in enumerate(curves.items()):
        look = series(index)
        axes.plot(centres, numbers(values), linewidth=1.8, marker=look.marker, markersize=4.5,
                  markevery=max(1, len(values) // 16), label=name, **look.line)  # fmt: skip
    end = len(first) * width
    axes.set_xlim(0, end)
    axes.axvspan(cliff, end, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
    axes.set_xlabel("position")
    axes.grid(color=FAINT, linewidth=0.6)


def by_start(
    starts: Sequence[int],
    curves: Mapping[str, Float[Tensor, "start"]],
    label: str,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """One line for each run over the position at which the same text starts; the starts stand at equal distances."""
    check_curves("start", starts, curves)
    figure, axes = new_figure(9.0, 3.6, size, ax)
    ticks = np.arange(len(starts))
    for index, (name, values) in enumerate(curves.items()):
        look = series(index)
        axes.plot(ticks, numbers(values), linewidth=1.8, marker=look.marker, markersize=6, label=name, **look.line)
    axes.set_xticks(ticks, [f"{start:,}" for start in starts])
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_xlabel("position of the first token")
    axes.set_ylabel(label)
    axes.set_title(title, loc="left")
    legend_outside(axes, ax, ncols=3)
    return figure


def loss_by_band(
    losses: Mapping[str, Float[Tensor, "band"]],
    width: int,
    reference: str,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """What each run's loss is above that of the run named `reference`, in bands of `width` positions.

    ValueError where there is no such run, or another one has not as many bands.
    """
    check_names("reference", [reference], losses)
    check_curves("band of the reference", losses[reference], losses)
    figure, axes = new_figure(9.0, 3.4, size, ax)
    runs = {name: numbers(loss - losses[reference]) for name, loss in losses.items() if name != reference}
    bands = np.arange(len(losses[reference]))
    thickness = 0.8 / len(runs)
    for index, (name, excess) in enumerate(runs.items()):
        left = bands + (index - (len(runs) - 1) / 2) * thickness
        axes.bar(left, excess, thickness, label=name, **series(index).bars)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.set_xticks(bands, [f"{band * width}–{(band + 1) * width - 1}" for band in bands])
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("positions")
    axes.set_ylabel(f"loss above {reference} (nats a token)")
    axes.set_title(title, loc="left")
    legend_outside(axes, ax, ncols=len(runs))
    return figure
