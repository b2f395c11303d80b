"""Where two models part, module by module."""

import math
import re
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persimmon_lab.viz.agreement import check_names
from persimmon_lab.viz.results import Framed
from persimmon_lab.viz.style import FAINT, MUTED, Size, legend_outside, new_figure, series

HIGHEST = 10.0  # what is larger, or infinite, is drawn here
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:$|\.)")


def parity_ladder(
    errors: Mapping[str, Mapping[str, float] | Framed],
    levels: Mapping[str, float] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Relative errors of several runs against one reference, from the first module (above) to the last (below).

    `errors` goes from a run's name to its errors by module path, in the order in which the modules ran, or to what
    `parity` gave; `levels` names errors to compare with. An error of 0 has no place on a logarithmic axis and stands in
    a lane of its own, errors above 10 stand at 10. ValueError for a module that the run of the most modules has not.
    """
    runs = {name: _by_path(run) for name, run in errors.items()}
    longest = max(runs.values(), key=len)
    paths = list(longest)
    for run in runs.values():
        check_names("module", run, paths)
    rows = {path: row for row, path in enumerate(paths)}
    drawn = [min(error, HIGHEST) for run in runs.values() for error in run.values() if error > 0]
    lowest = math.floor(math.log10(min([1e-8, *drawn]))) - 0.5
    zero = 10.0 ** (lowest - 0.8)
    parts = by_part(paths)
    figure, axes = new_figure(8.6, max(5.6, 1.5 + 0.17 * len(parts)), size, ax)
    for members in list(parts.values())[1::2]:
        axes.axhspan(members[0] - 0.5, members[-1] + 0.5, color=FAINT, alpha=0.45, linewidth=0)
    for name, level in (levels or {}).items():
        axes.axvline(level, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
        axes.text(level, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8.5,
                  color=MUTED)  # fmt: skip
    for index, (name, run) in enumerate(runs.items()):
        look, heights = series(index), [rows[path] for path in run]
        axes.plot([min(error, HIGHEST) or zero for error in run.values()], heights, linewidth=1, marker=look.marker,
                  markersize=3.5, label=name, **look.line)  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(zero / 4, 3 * HIGHEST)
    decades = [power for power in range(math.ceil(lowest), 2) if power % 2 == 0]
    axes.set_xticks(
        [zero, *(10.0**power for power in decades)], ["0: the\nsame bits", *(f"$10^{{{power}}}$" for power in decades)]
    )
    axes.xaxis.minorticks_off()
    axes.axvline(10.0 ** (lowest - 0.2), color=MUTED, linewidth=0.8)
    axes.set_ylim(len(paths) - 0.3, -0.7)
    axes.set_yticks([(members[0] + members[-1]) / 2 for members in parts.values()], list(parts))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("relative error of what a module makes, ‖difference‖ / ‖reference‖")
    axes.set_title(title, loc="left", pad=22 if levels else 8)
    legend_outside(axes, ax, ncols=min(4, len(runs)))
    return figure


def _by_path(run: Mapping[str, float] | Framed) -> Mapping[str, float]:
    if not isinstance(run, Framed):
        return run
    table = run.frame()
    return {str(path): float(error) for path, error in zip(table["path"], table["relative error"])}


def by_part(paths: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each layer, of what runs before the layers and of what runs after them."""
    parts: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        if layer := LAYER.search(path):
            name = f"layer {layer[1]}"
        else:
            name = "embedding" if not any(part.startswith("layer") for part in parts) else "norm, head"
        parts.setdefault(name, []).append(row)
    return parts
