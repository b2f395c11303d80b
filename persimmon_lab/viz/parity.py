"""Where two models part, module by module."""

import math
import re
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from persimmon_lab.viz.style import CATEGORICAL, FAINT, LINE_STYLES, MUTED, new_figure

MARKERS = ("o", "s", "^", "D", "v", "P")
HIGHEST = 10.0  # what is larger, or infinite, is drawn here
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:$|\.)")


def parity_ladder(
    errors: Mapping[str, Mapping[str, float]], levels: Mapping[str, float] | None = None, title: str = ""
) -> Figure:
    """Relative errors of several runs against one reference, from the first module (above) to the last (below).

    `errors` goes from a run's name to its errors by module path, in the order in which the modules ran; `levels` names
    errors to compare with. An error of 0 has no place on a logarithmic axis and stands in a lane of its own, errors
    above 10 stand at 10.
    """
    paths = list(max(errors.values(), key=len))
    rows = {path: row for row, path in enumerate(paths)}
    drawn = [min(error, HIGHEST) for run in errors.values() for error in run.values() if error > 0]
    lowest = math.floor(math.log10(min([1e-8, *drawn]))) - 0.5
    zero = 10.0 ** (lowest - 0.8)
    parts = by_part(paths)
    figure, axes = new_figure(8.6, max(5.6, 1.5 + 0.17 * len(parts)))
    for members in list(parts.values())[1::2]:
        axes.axhspan(members[0] - 0.5, members[-1] + 0.5, color=FAINT, alpha=0.45, linewidth=0)
    for name, level in (levels or {}).items():
        axes.axvline(level, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
        axes.text(level, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8.5,
                  color=MUTED)  # fmt: skip
    for index, (name, run) in enumerate(errors.items()):
        places = [(min(error, HIGHEST) or zero, rows[path]) for path, error in run.items()]
        axes.plot(*zip(*places), color=CATEGORICAL[index], linestyle=LINE_STYLES[index], linewidth=1,
                  marker=MARKERS[index], markersize=3.5, label=name)  # fmt: skip
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
    figure.legend(loc="outside lower center", ncols=min(4, len(errors)), frameon=False)
    return figure


def by_part(paths: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each layer, of what runs before the layers and of what runs after them."""
    parts: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        if found := LAYER.search(path):
            name = f"layer {found[1]}"
        else:
            name = "embedding" if not any(part.startswith("layer") for part in parts) else "norm, head"
        parts.setdefault(name, []).append(row)
    return parts
