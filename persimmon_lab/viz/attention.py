"""Where attention looks: one head large, every head small, or arcs over the text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_labels, check_marks
from persimmon_lab.viz.results import ManyPatterns, one_pattern, patterns_in
from persimmon_lab.viz.signs import readable
from persimmon_lab.viz.style import (
    CATEGORICAL,
    INK,
    MUTED,
    SEQUENTIAL,
    ColourMap,
    Size,
    figure_grid,
    new_figure,
    numbers,
)

WIDEST = 9.0  # inches; a notebook's column
PER_TOKEN = 0.24  # inches that a token's name takes
ARC = np.linspace(0, np.pi, 48)
# Token names may hold a dollar sign, which is no formula.
NAMES: dict[str, Any] = {"fontsize": 8.5, "family": "monospace", "parse_math": False}


def names_apart(tokens: Sequence[str], inches: float) -> range:
    """Which tokens to name so that names do not touch: every one, or every second, fifth, tenth, …"""
    room = max(1, inches / (0.55 * PER_TOKEN))
    steps = (step * scale for scale in (1, 10, 100, 1000) for step in (1, 2, 5))
    return range(0, len(tokens), next(step for step in steps if len(tokens) / step <= room))


def attention_head(
    pattern: Float[Tensor, "*leading query key"],
    tokens: Sequence[str],
    title: str = "",
    highlight: int | None = None,
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """One head's pattern: row = the token that looks, column = where it looks, dark = strongly.

    `highlight` outlines one row. A long text keeps to the page: its cells become small and only some tokens are named.
    ValueError where tokens and pattern differ in length, or `highlight` is no row.
    """
    pattern = one_pattern(pattern)
    check_labels("token", tokens, query=pattern.shape[0], key=pattern.shape[1])
    check_marks([] if highlight is None else [highlight], query=len(pattern))
    side = min(0.9 + PER_TOKEN * len(tokens), WIDEST - 0.9)
    figure, axes = new_figure(side + 0.9, side, size, ax)
    image = axes.imshow(numbers(pattern), cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    named = names_apart(tokens, side - 0.9)
    words = [readable(token) for token in tokens]
    names = [words[index] if len(named) == len(tokens) else f"{index} {words[index]}" for index in named]
    axes.set_xticks(named, names, rotation=90, **NAMES)
    axes.set_yticks(named, names, **NAMES)
    axes.tick_params(length=0 if len(named) == len(tokens) else 2)
    axes.set_xlabel("looked at (key)")
    axes.set_ylabel("looking (query)")
    axes.set_title(title, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if highlight is not None:
        axes.axhspan(highlight - 0.5, highlight + 0.5, fill=False, edgecolor="black", linewidth=1.4)
    figure.colorbar(image, ax=axes, label="attention", shrink=0.7, pad=0.02)
    return figure


def attention_grid(
    patterns: ManyPatterns,
    title: str = "",
    marks: Mapping[tuple[int, int], str] | None = None,
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
) -> Figure:
    """Every head as a thumbnail, layers downwards, heads across; `marks` frames and names some of them.

    `patterns` are (layer, head, query, key), a model's `attentions`, or a trace that has captured "pattern". More than
    nine heads, as the 8B model has, get smaller cells, so that the figure keeps to the page. ValueError for a mark on
    a head that there is not.
    """
    patterns = patterns_in(patterns)
    layers, heads = patterns.shape[:2]
    check_marks(marks or (), layer=layers, head=heads)
    side = min(0.95, WIDEST / heads)
    figure, axes = figure_grid(layers, heads, side, side, size)
    for layer in range(layers):
        for head in range(heads):
            cell = axes[layer][head]
            # A square root lifts faint patterns enough to be seen at this size.
            cell.imshow(np.sqrt(numbers(patterns[layer, head])), cmap=cmap, vmin=0, vmax=1)
            cell.set_xticks([])
            cell.set_yticks([])
            mark = (marks or {}).get((layer, head))
            for spine in cell.spines.values():
                spine.set_visible(True)
                spine.set_edgecolor("black" if mark else "0.85")
                spine.set_linewidth(1.8 if mark else 0.6)
            if mark:
                # The future is empty, so there is room for a name.
                cell.text(0.97, 0.94, mark, transform=cell.transAxes, ha="right", va="top", fontsize=7)
            if head == 0:
                cell.set_ylabel(f"layer {layer}", fontsize=8.5)
            if layer == layers - 1:
                cell.set_xlabel(f"head {head}", fontsize=8.5)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def draw_arcs(
    axes: Axes,
    pattern: Float[Tensor, "query key"],
    tokens: Sequence[str],
    inches: float,
    query: int | None = None,
    key: int | None = None,
    threshold: float = 0.05,
) -> None:
    """Tokens in a row, `inches` wide, and a link for each attention of at least `threshold`.

    With `query` only the links from that token, with `key` only those to that one. An arc ends in a dot at the token
    looked at; a ring is a token that looks at itself. Thick and dark is much.
    """
    check_labels("token", tokens, query=pattern.shape[0], key=pattern.shape[1])
    check_marks([token for token in (query, key) if token is not None], token=len(tokens))
    weights = numbers(pattern)
    shown = np.tril(weights >= max(threshold, 1e-9))
    for axis, token in enumerate((query, key)):
        if token is not None:
            shown &= np.expand_dims(np.arange(len(tokens)) == token, 1 - axis)
    # The strong ones last, so that they stand on top.
    links = sorted((weights[link], *link) for link in zip(*np.nonzero(shown)))
    arcs = np.array([link for link in links if link[1] != link[2]]).T if links else np.empty((3, 0))
    strength, start, end = arcs if arcs.size else np.empty((3, 0))
    heights = ((start - end) / max(len(tokens) - 1, 1)) ** 0.6
    x = np.outer((start + end) / 2, np.ones_like(ARC)) + np.outer((start - end) / 2, np.cos(ARC))
    colours = [to_rgba(CATEGORICAL[0], 0.15 + 0.75 * weight) for weight in strength]
    axes.add_collection(LineCollection(list(np.stack([x, np.outer(heights, np.sin(ARC))], axis=-1)), colors=colours,
                                       linewidths=0.6 + 3.4 * strength, capstyle="round"))  # fmt: skip
    axes.scatter(end, np.zeros_like(end), s=6 + 40 * strength, color=colours, zorder=3)
    own = np.array([(weight, q) for weight, q, k in links if q == k] or np.empty((0, 2)))
    axes.scatter(own[:, 1], np.full(len(own), 0.035), s=10 + 50 * own[:, 0], facecolors="none",
                 edgecolors=[to_rgba(CATEGORICAL[0], 0.25 + 0.75 * weight) for weight in own[:, 0]],
                 linewidths=(0.6 + 1.6 * own[:, 0]).tolist(), zorder=3)  # fmt: skip
    named = names_apart(tokens, inches)
    axes.set_xticks(named, [readable(tokens[index]) for index in named], rotation=90, **NAMES)
    one = query if query is not None else key
    if one is not None:
        axes.axvline(one, ymax=0.04, color=INK, linewidth=2)
        far_ends = {k if query is not None else q: weight for weight, q, k in links}
        for index, name in zip(named, axes.get_xticklabels()):
            name.set_fontweight("bold" if index == one else "normal")
            name.set_color(INK if index in far_ends or index == one else MUTED)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
        for index, weight in list(far_ends.items())[-6:]:
            axes.annotate(f"{100 * weight:.0f}%", (index, 0), (0, 9), textcoords="offset points", ha="center",
                          fontsize=8.5, color=INK, bbox=box)  # fmt: skip
    axes.set_xlim(-0.7, len(tokens) - 0.3)
    axes.set_ylim(-0.02, 1.04 * max(heights.max(initial=0), 0.2))
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def attention_arcs(
    pattern: Float[Tensor, "*leading query key"],
    tokens: Sequence[str],
    title: str = "",
    query: int | None = None,
    threshold: float = 0.05,
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """One head's links as arcs over the text, from the token that looks back to what it looks at.

    Shows attention of at least `threshold`; thick and dark is much, a dot marks the token looked at, a ring one that
    looks at itself. With `query`, the links of that token alone, the strongest with their percentages. ValueError where
    tokens and pattern differ in length, or `query` is none of them.
    """
    pattern = one_pattern(pattern)
    width = min(max(4.0, 0.5 + 0.32 * len(tokens)), WIDEST) if size is None else float(size[0])
    figure, axes = new_figure(width, 3.2, size, ax)
    draw_arcs(axes, pattern, tokens, width - 0.4, query, threshold=threshold)
    axes.set_title(title, loc="left")
    return figure
