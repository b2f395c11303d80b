"""Attention scores before and after the norm: how large, how far from the bound, and what a gain does to a softmax."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_labels
from persimmon_lab.viz.signs import counted, readable
from persimmon_lab.viz.style import (
    CATEGORICAL,
    FAINT,
    INK,
    LINE_STYLES,
    MUTED,
    RULES,
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

BLUE, ORANGE, GREEN = CATEGORICAL[:3]
BINS = 48
STRAIGHT = 10.0  # the explorer's axis of scores is linear below about this, logarithmic beyond
LABELS: dict[str, Any] = {"fontsize": 8, "family": "monospace", "parse_math": False}  # a dollar sign is no formula


def draw_bound(axes: Axes, bound: float) -> None:
    for side in (-bound, bound):
        axes.axvline(side, color=INK, linestyle=LINE_STYLES[1], linewidth=1.3, zorder=4)


def score_histograms(
    before: Float[Tensor, "layer score"],
    after: Float[Tensor, "layer score"],
    bounds: Float[Tensor, "layer"],
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """Each layer's scores without the norm (outline) and with it (filled), and the bound on both sides (dashed).

    Counts are logarithmic, so that a single large score is seen. A panel names the largest magnitude of each kind.
    ValueError where the three are not of the same layers.
    """
    check_curves("layer", before, {"after": after, "bounds": bounds})
    columns = min(4, len(before))
    rows = -(-len(before) // columns)
    figure, axes = figure_grid(rows, columns, 9 / columns, 2.1, size, sharex=True, sharey=True)
    widest = 1.05 * max(float(values.abs().max()) for values in (before, after, bounds))
    edges = np.linspace(-widest, widest, 2 * BINS + 1)
    for layer, panel in enumerate(axes.flat):
        if layer >= len(before):
            panel.set_axis_off()
            continue
        raw, normed = numbers(before[layer]), numbers(after[layer])
        panel.hist(normed, edges, color=BLUE, label="with the norm")
        panel.hist(raw, edges, histtype="step", color=ORANGE, linewidth=1.3, label="without")
        draw_bound(panel, float(bounds[layer]))
        panel.set_yscale("log")
        panel.set_title(f"layer {layer}: {np.abs(raw).max():.0f} → {np.abs(normed).max():.0f}", loc="left", fontsize=10)
        panel.set_ylim(bottom=0.7)
    for panel in axes[-1]:
        panel.set_xlabel("score")
    for panel in axes[:, 0]:
        panel.set_ylabel("how many")
    axes[0, 0].plot([], [], color=INK, linestyle=LINE_STYLES[1], label="bound from the norm's weights")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def bound_by_layer(
    bounds: Float[Tensor, "layer"],
    reachable: Float[Tensor, "layer"],
    seen: Float[Tensor, "layer"],
    plain: float,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The bound of each layer, the largest score that some head vectors reach, and the largest that a text gave.

    `plain` is the bound for weight 1 and bias 0, drawn across. The number on a bar is the share of the bound seen.
    ValueError where the three are not of the same layers.
    """
    check_curves("layer", bounds, {"reachable": reachable, "seen": seen})
    figure, axes = new_figure(9.0, 3.4, size, ax)
    layers = np.arange(len(bounds))
    axes.bar(layers, numbers(seen), 0.56, color=BLUE, label="seen in a text", zorder=2)
    axes.hlines(numbers(bounds), layers - 0.38, layers + 0.38, color=INK, linewidth=2.4, label="bound", zorder=3)
    axes.scatter(layers, numbers(reachable), marker="D", s=34, facecolor="white", edgecolor=ORANGE, linewidth=1.8,
                 label="reached by a search", zorder=4)  # fmt: skip
    axes.axhline(plain, color=MUTED, linestyle=LINE_STYLES[2], linewidth=1.6, zorder=1,
                 label=f"bound of weight 1, bias 0: {plain:.2f}")  # fmt: skip
    for layer, (bound, largest) in enumerate(zip(bounds.tolist(), seen.tolist())):
        axes.text(layer, 0.4, f"{largest / bound:.0%}", ha="center", va="bottom", color="white", fontsize=9, zorder=5)
    axes.set_xticks(layers)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("layer")
    axes.set_ylabel("score")
    axes.set_title(title, loc="left")
    legend_outside(axes, ax, ncols=4)
    return figure


def draw_entropies(axes: Axes, gains: Sequence[float], curves: Mapping[str, Float[Tensor, "gain"]]) -> None:
    """One line per named curve over a logarithmic gain, told apart by colour and dashes."""
    check_curves("gain", gains, curves)
    for index, (name, entropies) in enumerate(curves.items()):
        axes.plot(gains, numbers(entropies), linewidth=2, label=name, **series(index).line)
    axes.set_xscale("log", base=2)
    axes.set_xlim(gains[0], gains[-1])
    shown = [gain for gain in gains if np.log2(gain) % 1 == 0]
    axes.set_xticks(shown, [f"{gain:g}" if gain >= 1 else f"1/{1 / gain:g}" for gain in shown])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("gain on queries and keys")
    axes.set_ylabel("entropy (bits)")
    axes.grid(color=FAINT, linewidth=0.6)


def entropy_under_gain(
    gains: Sequence[float],
    curves: Mapping[str, Float[Tensor, "gain"]],
    ceiling: float,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Mean entropy of attention as queries and keys grow; `ceiling` is that of looking everywhere equally."""
    figure, axes = new_figure(9.0, 3.2, size, ax)
    draw_entropies(axes, gains, curves)
    axes.axhline(ceiling, color=MUTED, linewidth=1, zorder=1)
    axes.text(gains[-1], ceiling, "everywhere equally ", ha="right", va="bottom", fontsize=9, color=INK)
    axes.set_ylim(0, ceiling * 1.15)
    axes.set_title(title, loc="left")
    legend_outside(axes, ax, ncols=len(curves))
    return figure


def collapse(
    rows: Mapping[str, Float[Tensor, "gain key"]],
    gains: Sequence[float],
    tokens: Sequence[str],
    title: str = "",
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
) -> Figure:
    """One query's attention at every gain, a row each, in panels by name: the collapse to a single key, or none.

    A number stands where a key has more than half of the attention. ValueError where there are not as many gains as
    rows, or tokens as keys.
    """
    for patterns in rows.values():
        check_labels("gain", gains, row=patterns.shape[0])
        check_labels("token", tokens, key=patterns.shape[1])
    words = [readable(token) for token in tokens]
    height = 0.9 + 0.24 * len(gains) + 0.07 * max(map(len, words))
    figure, axes = figure_grid(1, len(rows), 9 / len(rows), height, size)
    for panel, (name, patterns) in zip(axes[0], rows.items()):
        shown = numbers(patterns)
        image = panel.imshow(shown, cmap=cmap, vmin=0, vmax=1, aspect="auto")
        for row, column in zip(*np.nonzero(shown > 0.5)):
            share = shown[row, column]
            panel.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7,
                       color=ink_on(cmap, share, dark=True))  # fmt: skip
        panel.set_xticks(range(len(words)), words, rotation=90, **LABELS)
        panel.set_yticks(range(len(gains)), [f"× {gain:g}" for gain in gains])
        panel.tick_params(length=0)
        panel.set_title(name, loc="left")
        panel.set_xlabel("key")
    axes[0, 0].set_ylabel("gain")
    figure.colorbar(image, ax=axes[0].tolist(), label="attention", pad=0.01, shrink=0.8)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def explorer(
    scores: Float[Tensor, "score"],
    bound: float,
    pattern: Float[Tensor, "query key"],
    tokens: Sequence[str],
    gains: Sequence[float],
    curves: Mapping[str, Float[Tensor, "gain"]],
    gain: float,
    normed: bool,
    widest: float,
    title: str = "",
) -> Figure:
    """One head under a gain: its scores with the bound, its entropy at every gain with a mark at this one, its pattern.

    `curves` are the entropies with and without the norm, in this order; `widest` is the largest score of any gain, so
    that the axis stays where it is while a slider moves. Scores that are not finite are counted in a title, and a
    bound that is NaN is none. Axes stand at fixed places, which draws several times faster than a layout that has to be
    found. ValueError where tokens and pattern differ in length.
    """
    check_labels("token", tokens, query=pattern.shape[0], key=pattern.shape[1])
    with rc_context(RULES):
        figure = Figure(figsize=(9, 4.9))
        above = figure.add_axes((0.075, 0.59, 0.40, 0.29))
        below = figure.add_axes((0.075, 0.115, 0.40, 0.29))
        right = figure.add_axes((0.585, 0.17, 0.405, 0.71))
    limit = np.arcsinh(widest / STRAIGHT)
    edges = (STRAIGHT * np.sinh(np.linspace(-limit, limit, 2 * BINS + 1))).tolist()
    colour = BLUE if normed else ORANGE
    finite = scores[scores.isfinite()]
    above.hist(numbers(finite), edges, color=colour, hatch="" if normed else "////", edgecolor="white", linewidth=0)
    if not len(finite):
        above.set_ylim(0, 1)
    if np.isfinite(bound):
        draw_bound(above, bound)
    above.set_xscale("asinh", linear_width=STRAIGHT)
    above.set_xlim(edges[0], edges[-1])
    powers = [10.0**power for power in range(1, 7) if 10.0**power <= widest]
    ticks = [*(-power for power in reversed(powers)), 0, *powers]
    above.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    above.minorticks_off()
    above.set_xlabel("score (dashed: the bound with the norm)")
    above.set_ylabel("how many")
    largest = f"largest {float(scores.abs().max()):,.1f}, bound {bound:.1f}"
    lost = f"{len(scores) - len(finite):,} of {counted(len(scores), 'score')} not finite"
    above.set_title(largest if len(finite) == len(scores) else lost, loc="left", fontsize=10)

    draw_entropies(below, gains, curves)
    here = numbers(list(curves.values())[int(not normed)])[list(gains).index(gain)]
    below.plot([gain], [here], marker="o", markersize=9, color=colour, markeredgecolor="white", zorder=4, clip_on=False)
    below.legend(frameon=False, fontsize=9)
    below.set_ylim(0, 1.2 * np.log2(max(2, len(tokens))))
    entropy = f"mean entropy {here:.2f} bits" if np.isfinite(here) else "mean entropy not finite"
    below.set_title(entropy, loc="left", fontsize=10)

    right.imshow(numbers(pattern), cmap=SEQUENTIAL, vmin=0, vmax=1)
    if len(tokens) <= 40:
        words = [readable(token) for token in tokens]
        right.set_xticks(range(len(words)), words, rotation=90, **LABELS | {"fontsize": 7})
        right.set_yticks(range(len(words)), words, **LABELS | {"fontsize": 7})
    right.tick_params(length=0)
    right.set_title("where it looks (row: query)", loc="left", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    return figure
