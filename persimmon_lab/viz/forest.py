"""Scores with what they are worth: intervals between the floors and the ceiling, a line for each."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from persimmon_lab.viz.agreement import check_curves
from persimmon_lab.viz.results import Measured
from persimmon_lab.viz.style import FAINT, INK, MUTED, Size, legend_outside, new_figure, series

BAND = 0.7  # of a row that is filled by its series
FLOORS = {"chance": "solid", "5-gram": (0, (1, 1))}


def forest_plot(
    scores: Mapping[str, Sequence[Measured]],
    rows: Sequence[str],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Scores of each series, as many as `rows` has names: a point with its interval, and the share in digits beside it.

    The band of a row reaches from its higher floor to its ceiling: what is left of it, a guesser or a 5-gram gets as
    well. Floors are ticks (chance solid, the 5-gram dotted), the ceiling is a line. A point is filled where the whole
    interval lies above both floors. Where series have floors of their own, the first's are drawn.

    ValueError where a series has not one score for each row, or there is none.
    """
    check_curves("row", rows, scores)
    if not scores or not len(rows):
        raise ValueError("no scores to draw; give at least one series, such as {report.name: report.scores}")
    step = BAND / len(scores)
    figure, axes = new_figure(9.0, 1.5 + len(rows) * (0.26 + 0.2 * len(scores)), size, ax)
    for row, first in enumerate(next(iter(scores.values()))):
        floor = max(first.chance, first.five_gram)
        axes.barh(row, first.ceiling - floor, BAND + 0.12, floor, color=FAINT, alpha=0.5, zorder=1)
        for share, dash in zip((first.chance, first.five_gram), FLOORS.values(), strict=True):
            axes.vlines(share, row - 0.42, row + 0.42, color=INK, linestyle=dash, linewidth=1.5, zorder=3)
        axes.vlines(first.ceiling, row - 0.5, row + 0.5, color=MUTED, linewidth=2.2, zorder=3)
    for index, (name, column) in enumerate(scores.items()):
        look = series(index)
        axes.plot([], [], marker=look.marker, color=look.colour, linewidth=2, label=name or "score and 95% interval")
        for row, score in enumerate(column):
            y = row + (index - (len(scores) - 1) / 2) * step
            above = score.low > max(score.chance, score.five_gram)
            axes.hlines(y, score.low, score.high, color=look.colour, linewidth=2, zorder=4)
            axes.plot([score.share], [y], marker=look.marker, markersize=7, color=look.colour, zorder=5, clip_on=False,
                      markerfacecolor=look.colour if above else "white", markeredgewidth=1.6)  # fmt: skip
            axes.annotate(f"{score.share:.0%}", (1, y), xytext=(12, 0), xycoords=("axes fraction", "data"),
                          textcoords="offset points", va="center", fontsize=9, color=look.colour)  # fmt: skip
    for name, dash in FLOORS.items():
        axes.plot([], [], color=INK, linestyle=dash, linewidth=1.5, label=name)
    axes.plot([], [], color=MUTED, linewidth=2.2, label="oracle")
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("items answered right (filled: the whole interval is above both floors)")
    axes.set_title(title, loc="left")
    legend_outside(axes, ax, ncols=len(scores) + 3)
    return figure
