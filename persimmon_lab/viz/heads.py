"""Heads to look at: scores in a map of layers and heads, beside their null distribution, and what ablation does."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from persimmon_lab.viz.agreement import check_marks, check_names, check_shapes
from persimmon_lab.viz.results import Detected, Effects, HeadMap, Summed, effects_in, scores_in
from persimmon_lab.viz.signs import counted
from persimmon_lab.viz.style import (
    CATEGORICAL,
    DIVERGING,
    FAINT,
    INK,
    MUTED,
    SEQUENTIAL,
    ColourMap,
    Size,
    figure_grid,
    ink_on,
    legend_outside,
    new_figure,
    numbers,
    series,
)

Head = tuple[int, int]
LARGEST = 16  # heads or layers to a side at which a cell still has room for its number
DARK = 0.6  # of the colour scale, from where on a number is white


def short(value: float, signed: bool) -> str:
    """As much as a cell has room for: 0.874 -> ".87"; with its sign 1.64 -> "+1.64" and -0.004 -> "0"."""
    if signed:
        return "0" if abs(value) < 0.005 else f"{value:+.2f}".replace("+0.", "+.").replace("-0.", "−.")
    return "1.0" if value >= 0.995 else f"{value:.2f}".lstrip("0")


def draw_head_map(
    axes: Axes,
    values: HeadMap,
    limit: float,
    signed: bool,
    marks: Sequence[Head] = (),
    flipped: bool = False,
    cmap: ColourMap | None = None,
) -> AxesImage:
    """Cells of layers (downwards) and heads, with their numbers; `marks` are framed. Returns the image.

    `flipped` colours a number as if it had the other sign. ValueError for a mark on a head that there is not.
    """
    grid = numbers(values)
    layers, heads = grid.shape
    check_marks(marks, layer=layers, head=heads)
    cmap = cmap or (DIVERGING if signed else SEQUENTIAL)
    low, sign = (-limit if signed else 0.0), (-1 if flipped else 1)
    image = axes.imshow(sign * grid, cmap=cmap, vmin=low, vmax=limit, aspect="auto", interpolation="nearest")
    if max(layers, heads) <= LARGEST:
        for (layer, head), value in np.ndenumerate(grid):
            ink = ink_on(cmap, (sign * value - low) / (limit - low), abs(value) > DARK * limit)
            axes.text(head, layer, short(value, signed), ha="center", va="center", fontsize=7.5, color=ink)
    for layer, head in marks:
        axes.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.8))
    axes.set_xticks(range(0, heads, 1 if heads <= LARGEST else 8))
    axes.set_yticks(range(0, layers, 1 if layers <= LARGEST else 4))
    axes.tick_params(length=0)
    axes.set_xlabel("head")
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def score_maps(
    scores: Mapping[str, HeadMap | Detected],
    marks: Mapping[str, Sequence[Head]] | None = None,
    title: str = "",
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
) -> Figure:
    """One map for each kind of score, between 0 and 1; `marks` frames some heads of a kind.

    What `detect` gave will do, and frames the heads that stand out unless `marks` says otherwise. ValueError for a
    marked kind, or a head, that there is not.
    """
    if marks is None:
        marks = {kind: found.standing_out() for kind, found in scores.items() if isinstance(found, Detected)}
    check_names("marked kind", marks, scores)
    figure, axes = figure_grid(1, len(scores), 9 / max(len(scores), 2), 3.3, size)
    for panel, (kind, values) in zip(axes[0], scores.items()):
        image = draw_head_map(panel, scores_in(values), 1.0, False, marks.get(kind, ()), cmap=cmap)
        panel.set_title(kind, loc="left")
    axes[0, 0].set_ylabel("layer")
    figure.colorbar(image, ax=axes[0].tolist(), shrink=0.8, pad=0.01, label="score")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def effect_map(
    effects: HeadMap | Effects | Summed,
    title: str = "",
    marks: Sequence[Head] = (),
    label: str = "nats per token",
    *,
    cmap: ColourMap = DIVERGING,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """What taking each head away does, on a scale centred on zero: red is worse where `label` counts losses.

    What `patch_heads` or `attribute` gave will do. ValueError for a mark on a head that there is not.
    """
    values = effects_in(effects)
    figure, axes = new_figure(5.6, 3.9, size, ax)
    limit = max(float(values.abs().max()), 1e-9)
    image = draw_head_map(axes, values, limit, True, marks, flipped=True, cmap=cmap)
    axes.set_ylabel("layer")
    axes.set_title(title, loc="left")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02, label=label)
    bar.ax.invert_yaxis()
    bar.ax.yaxis.set_major_formatter(lambda tick, _: f"{-tick:+.1f}" if tick else "0")
    return figure


def null_strips(
    scores: Mapping[str, HeadMap | Detected],
    nulls: Mapping[str, Float[Tensor, "draw layer head"]] | None = None,
    most_named: int = 6,
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """Each kind's scores on a line, over the histogram of its null; those above the highest null are filled, and the
    highest named as layer.head.

    What `detect` gave will do, and has its null with it. ValueError for a kind that has none.
    """
    if nulls is None:
        nulls = {kind: found.null for kind, found in scores.items() if isinstance(found, Detected)}
    check_names("kind", scores, nulls)
    figure, axes = figure_grid(len(scores), 1, 9.0, 1.35, size, sharex=True)
    for panel, (kind, found) in zip(axes[:, 0], scores.items()):
        values = scores_in(found)
        null, bar = numbers(nulls[kind]).ravel(), float(nulls[kind].max())
        counts, edges = np.histogram(null, bins=np.linspace(0, 1, 101))
        panel.bar(edges[:-1], counts / counts.max(), np.diff(edges), align="edge", color="0.72", linewidth=0)
        panel.axvline(bar, color=MUTED, linestyle=(0, (3, 2)), linewidth=1)
        panel.annotate("highest of the null", (bar, 1.02), (4, 0), textcoords="offset points", fontsize=8, color=INK,
                       va="top")  # fmt: skip
        flat = numbers(values).ravel()
        above = flat > bar
        style = {"s": 34, "edgecolors": CATEGORICAL[0], "linewidths": 1.1, "zorder": 3}
        panel.scatter(flat[~above], np.full((~above).sum(), 0.32), facecolors="none", alpha=0.45, **style)
        panel.scatter(flat[above], np.full(above.sum(), 0.32), facecolors=CATEGORICAL[0], **style)
        order = [index for index in np.argsort(-flat, kind="stable")[:most_named] if above[index]]
        _names_in_a_row(panel, [(flat[index], "{}.{}".format(*divmod(index, values.shape[1]))) for index in order])
        panel.set_title(
            f"{kind}: {above.sum()} of {counted(len(flat), 'head')} above the null", loc="left", fontsize=10
        )
        panel.set_xlim(-0.01, 1.0)
        panel.set_ylim(0, 1.08)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
    axes[-1, 0].set_xlabel("score")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _start(group: Sequence[tuple[float, str]], gap: float) -> float:
    """Where the first name of a group stands, if its names stand `gap` apart around the middle of their points."""
    return float(np.mean([value for value, _ in group])) - gap * (len(group) - 1) / 2


def _names_in_a_row(axes: Axes, named: Sequence[tuple[float, str]], gap: float = 0.032) -> None:
    """Names above their points, moved aside where they would touch, each with a thin line to its point."""
    groups: list[list[tuple[float, str]]] = []
    for name in sorted(named):
        groups.append([name])
        # A group that reaches into the one before joins it, so that a crowd stays centred on its points.
        while len(groups) > 1 and _start(groups[-1], gap) - _start(groups[-2], gap) < gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    lead = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.9}
    for group in groups:
        for index, (value, text) in enumerate(group):
            x = _start(group, gap) + gap * index
            axes.annotate(text, (value, 0.32), (x, 0.86), textcoords="data", ha="center", va="center", fontsize=8.5,
                          color=INK, arrowprops=lead)  # fmt: skip


def ablation_scatter(
    elsewhere: HeadMap,
    repeated: HeadMap,
    groups: Mapping[str, Sequence[Head]],
    named: Mapping[Head, tuple[float | int, float | int]],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """What taking each head away costs: on text that repeats itself (up) and on other text (right).

    `groups` get a colour and a marker, all other heads are grey; `named` are named as layer.head, each so many points
    away from its mark. ValueError for a head that there is not, and where the two are not of the same heads.
    """
    x, y = numbers(elsewhere), numbers(repeated)
    check_shapes(elsewhere=elsewhere, repeated=repeated)
    for heads in (*groups.values(), named):
        check_marks(heads, layer=x.shape[0], head=x.shape[1])
    figure, axes = new_figure(7.5, 4.4, size, ax)
    grouped = {head for heads in groups.values() for head in heads}
    rest = [head for head in np.ndindex(x.shape) if head not in grouped]
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    axes.scatter([x[h] for h in rest], [y[h] for h in rest], s=26, facecolors="none", edgecolors="0.6", label="others")
    for index, (name, heads) in enumerate(groups.items()):
        axes.scatter([x[h] for h in heads], [y[h] for h in heads], s=48, label=name, zorder=3, edgecolors="white",
                     linewidths=0.6, **series(index).points)  # fmt: skip
    for head, (right, up) in named.items():
        axes.annotate("{}.{}".format(*head), (x[head], y[head]), (right, up), textcoords="offset points", fontsize=9,
                      color=INK, ha="center", va="center")  # fmt: skip
    axes.set_xlabel("added loss on ordinary text (nats per token)")
    axes.set_ylabel("added loss on the second\nof two equal halves")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.legend(frameon=False)
    axes.set_title(title, loc="left")
    return figure


def path_bars(
    stripes: Mapping[str, Mapping[str, float]],
    title: str = "",
    label: str = "score",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """For each reader, its score by the path that is left or cut: one group of bars each, one hatch a path.

    ValueError where readers have not the same paths.
    """
    paths = list(next(iter(stripes.values())))
    for by_path in stripes.values():
        check_names("path", by_path, paths)
        check_names("path", paths, by_path)
    figure, axes = new_figure(8.0, 3.3, size, ax)
    width = 0.8 / len(paths)
    for index, path in enumerate(paths):
        heights = [by_path[path] for by_path in stripes.values()]
        centres = np.arange(len(stripes)) + (index - (len(paths) - 1) / 2) * width
        axes.bar(centres, heights, width, label=path, **series(index).bars)
        for centre, height in zip(centres, heights):
            axes.text(centre, height, short(height, False), ha="center", va="bottom", fontsize=8.5, color=INK)
    axes.set_xticks(range(len(stripes)), list(stripes))
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1)
    axes.set_ylabel(label)
    legend_outside(axes, ax, ncols=len(paths))
    axes.set_title(title, loc="left")
    return figure
