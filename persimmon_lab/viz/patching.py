"""What activation patching brings back, place by place, and what a logit is the sum of."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from persimmon_lab.viz.agreement import check_labels
from persimmon_lab.viz.heads import DARK, draw_head_map, short
from persimmon_lab.viz.results import Effects, HeadMap, Summed, by_name, effects_in
from persimmon_lab.viz.signs import readable
from persimmon_lab.viz.style import (
    CATEGORICAL,
    DIVERGING,
    FAINT,
    INK,
    MUTED,
    ColourMap,
    Size,
    figure_grid,
    ink_on,
    new_figure,
    numbers,
)

WORTH_A_NUMBER = 0.1  # a cell below says by its colour what it has to say
MOST_COLUMNS = 28  # at which the names of tokens still fit side by side


def patch_heatmap(
    effects: Mapping[str, Float[Tensor, "layer position"] | Effects] | Float[Tensor, "layer position"] | Effects,
    clean: Sequence[str],
    corrupted: Sequence[str],
    rows: Sequence[str] | None = None,
    title: str = "",
    *,
    cmap: ColourMap = DIVERGING,
    size: Size | None = None,
) -> Figure:
    """One panel for each kind of patch: where the clean activation brings the clean answer back (1 is all of it).

    Columns are positions, named by the clean token; where the corrupted prompt has another one, it stands below and
    the column is framed. `rows` names the layers. White is no effect, red an effect in the wrong direction.

    What `patch_stream` and its like gave will do for effects, one of them or several by name. ValueError where there
    are not as many clean and corrupted tokens as positions, or not as many rows as layers.
    """
    maps = {kind: effects_in(values) for kind, values in by_name(effects).items()}
    for values in maps.values():
        check_labels("clean token", clean, position=values.shape[1], corrupted_token=len(corrupted))
        if rows is not None:
            check_labels("row", rows, layer=len(values))
    limit = max(1.0, *(float(values.abs().max()) for values in maps.values()))
    figure, axes = figure_grid(len(maps), 1, 9.0, 2.9, size)
    changed = [index for index, pair in enumerate(zip(clean, corrupted)) if pair[0] != pair[1]]
    for panel, (kind, values) in zip(axes[:, 0], maps.items()):
        grid = numbers(values)
        image = panel.imshow(grid, cmap=cmap, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        for (layer, position), value in np.ndenumerate(grid):
            if abs(value) >= WORTH_A_NUMBER and grid.shape[1] <= MOST_COLUMNS:
                ink = ink_on(cmap, (value + limit) / (2 * limit), abs(value) > DARK * limit)
                panel.text(position, layer, short(value, True), ha="center", va="center", fontsize=7.5, color=ink)
        for position in changed:
            panel.add_patch(Rectangle((position - 0.5, -0.5), 1, len(grid), fill=False, edgecolor=INK, linewidth=1.2))
        panel.set_title(kind, loc="left", fontsize=10)
        panel.set_ylabel("layer" if rows is None else "")
        panel.set_yticks(range(len(grid)), [str(row) for row in (range(len(grid)) if rows is None else rows)])
        panel.set_xticks([])
        panel.tick_params(length=0)
        for spine in panel.spines.values():
            spine.set_visible(False)
    names = [
        f"{readable(token)}\n({readable(other)})" if token != other else readable(token)
        for token, other in zip(clean, corrupted)
    ]
    axes[-1, 0].set_xticks(range(len(names)), names, rotation=90, fontsize=8.5, family="monospace", parse_math=False)
    figure.colorbar(image, ax=axes[:, 0].tolist(), shrink=0.7, pad=0.01, label="effect of the patch")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def attribution_bars(
    parts: Mapping[str, float] | Summed,
    title: str = "",
    label: str = "logits",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A logit as the sum of what wrote it, in the order of writing: each bar starts where the one before it ended.

    Parts that add are blue and plain, parts that take away orange and hatched; the last bar is the sum. What
    `attribute` gave will do.
    """
    parts = parts.parts() if isinstance(parts, Summed) else parts
    names, values = list(parts), np.array(list(parts.values()))
    ends = np.cumsum(values)
    figure, axes = new_figure(9.0, 0.9 + 0.2 * len(names), size, ax)
    spread = max(ends.max(), 0) - min(ends.min(), 0)
    for row, (value, end) in enumerate(zip(values, ends)):
        adds = value >= 0
        axes.barh(row, value, left=end - value, height=0.72, color=CATEGORICAL[0 if adds else 1],
                  hatch="" if adds else "////", edgecolor="white", linewidth=0)  # fmt: skip
        axes.text(max(end, end - value) + 0.01 * spread, row, short(value, True), va="center", fontsize=8, color=INK)
        axes.plot([end, end], [row + 0.36, row + 0.64], color=MUTED, linewidth=0.8)
    total = float(ends[-1])
    axes.barh(len(names), total, height=0.72, color="0.35")
    axes.text(max(total, 0) + 0.01 * spread, len(names), short(total, True), va="center", fontsize=8.5, weight="bold")
    axes.axvline(0, color=MUTED, linewidth=0.8)
    axes.set_yticks(range(len(names) + 1), [*names, "together"], fontsize=8.5)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_xlabel(label)
    axes.set_title(title, loc="left")
    return figure


def head_effects(
    values: Mapping[str, HeadMap | Effects | Summed] | HeadMap | Effects | Summed,
    title: str = "",
    label: str = "logits",
    *,
    cmap: ColourMap = DIVERGING,
    size: Size | None = None,
) -> Figure:
    """A signed number for each head, one map for each kind, each on a scale of its own that is centred on zero.

    What `patch_heads` or `attribute` gave will do, one of them or several by name.
    """
    maps = {kind: effects_in(grid) for kind, grid in by_name(values).items()}
    figure, axes = figure_grid(1, len(maps), 9.0 / max(len(maps), 2), 3.3, size)
    for panel, (kind, grid) in zip(axes[0], maps.items()):
        limit = max(float(grid.abs().max()), 1e-9)
        image = draw_head_map(panel, grid, limit, signed=True, cmap=cmap)
        panel.set_title(kind, loc="left", fontsize=10)
        figure.colorbar(image, ax=panel, shrink=0.8, pad=0.02, label=label)
    axes[0, 0].set_ylabel("layer")
    figure.suptitle(title, x=0.01, ha="left")
    return figure
