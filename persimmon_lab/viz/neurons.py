"""Neurons that stay silent: activation functions, who is awake, how strong, how near float16's edge."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_labels, check_names
from persimmon_lab.viz.signs import readable
from persimmon_lab.viz.style import (
    CATEGORICAL,
    FAINT,
    INK,
    MUTED,
    Size,
    figure_grid,
    legend_outside,
    new_figure,
    numbers,
    series,
)

BLUE, ORANGE = CATEGORICAL[:2]


def activation_functions(
    x: Float[Tensor, "x"],
    curves: Mapping[str, tuple[Float[Tensor, "x"], Float[Tensor, "x"]]],
    *,
    size: Size | None = None,
) -> Figure:
    """Functions on the left, their derivatives on the right; a jump in a curve is not drawn as a line."""
    for name, (function, derivative) in curves.items():
        check_curves("x", x, {name: function, f"the derivative of {name}": derivative})
    figure, axes = figure_grid(1, 2, 4.5, 3.4, size)
    for column, (panel, title) in enumerate(zip(axes[0], ("The function", "Its derivative"))):
        panel.axhline(0, color=MUTED, linewidth=0.8)
        panel.axvline(0, color=MUTED, linewidth=0.8)
        for index, (name, pair) in enumerate(curves.items()):
            values = numbers(pair[column])
            jumps = np.flatnonzero(np.abs(np.diff(values)) > 0.5)
            panel.plot(np.insert(numbers(x), jumps + 1, np.nan), np.insert(values, jumps + 1, np.nan), label=name,
                       zorder=3 + index, linewidth=2, **series(index).line)  # fmt: skip
        panel.set_xlabel("pre-activation x")
        panel.set_title(title, loc="left")
        panel.grid(color=FAINT, linewidth=0.6)
        panel.set_xlim(float(x.min()), float(x.max()))
    axes[0, 0].legend(frameon=False, loc="upper left")
    return figure


def first_awake(awake: np.ndarray) -> np.ndarray:
    """The order of the neurons of a (token, mlp) array: by the first token at which each is awake, silent ones last."""
    never = ~awake.any(axis=0)
    return np.lexsort((-awake.sum(axis=0), np.where(never, len(awake), awake.argmax(axis=0))))


def raster(
    activations: Float[Tensor, "token mlp"],
    tokens: Sequence[str],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """A row for each token, a mark in it for every neuron that is awake there, a column for each neuron.

    The columns stand in the order in which the neurons first woke: a token's newcomers lie to the right of all others.
    ValueError where there are not as many tokens as rows.
    """
    check_labels("token", tokens, row_of_activations=len(activations))
    awake = numbers(activations) != 0
    order = first_awake(awake)[: awake.any(axis=0).sum()]
    figure, axes = new_figure(9.0, 4.4, size, ax)
    token, neuron = np.nonzero(awake[:, order])
    newcomers = awake[:, order].argmax(axis=0)[neuron] == token
    for new, colour, label in ((False, BLUE, "woke before"), (True, ORANGE, "wakes for the first time")):
        chosen = newcomers == new
        axes.vlines(neuron[chosen], token[chosen] - (0.46 if new else 0.3), token[chosen] + (0.46 if new else 0.3),
                    color=colour, linewidth=0.7, label=f"{label} ({chosen.sum():,})")  # fmt: skip
    axes.set_ylim(len(tokens) - 0.4, -0.6)
    axes.set_yticks(
        range(len(tokens)), [readable(token) for token in tokens], fontsize=8, family="monospace", parse_math=False
    )
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(-1, len(order))
    axes.set_xlabel(
        f"the {len(order):,} of {awake.shape[1]:,} neurons that wake at all, by the token that woke them first"
    )
    axes.set_title(title, loc="left")
    legend_outside(axes, ax, "outside lower right", ncols=2)
    return figure


def sparsity_by_layer(
    silent: Mapping[str, Float[Tensor, "layer"]],
    mass: Float[Tensor, "layer share"],
    shares: Sequence[float],
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """Left, the share of zeros after squared ReLU in each text; right, what the strongest `shares` of neurons carry.

    ValueError where a text has not a number for each layer, or `mass` no column for a share.
    """
    check_curves("layer", mass, silent)
    check_labels("share", shares, column_of_mass=mass.shape[1])
    figure, axes = figure_grid(1, 2, 4.5, 3.5, size)
    left, right = axes[0]
    layers = np.arange(len(mass))
    for index, (name, share) in enumerate(silent.items()):
        look = series(index)
        left.plot(layers, numbers(share), marker=look.marker, markersize=6, label=name, linewidth=2, **look.line)
    left.set_title("Share of neurons that are silent", loc="left")
    left.legend(frameon=False, loc="lower center", ncols=2)
    parts = np.diff(numbers(mass), axis=1, prepend=0)
    for index, (strongest, part) in enumerate(zip(shares, parts.T)):
        named = f"strongest {strongest:.0%}" if index == 0 else f"next, to {strongest:.0%}"
        bars = right.bar(layers, part, 0.8, bottom=numbers(mass)[:, index] - part, label=named, **series(index).bars)
        if index == 0:
            right.bar_label(bars, [f"{value:.0%}" for value in part], label_type="center", color="white", fontsize=8)
    right.set_title("Activation that the strongest carry", loc="left")
    right.legend(frameon=True, framealpha=0.9, edgecolor="none", loc="lower center", ncols=len(shares), fontsize=8)
    for panel in (left, right):
        panel.set_ylim(0, 1.02)
        panel.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        panel.set_xticks(layers)
        panel.set_xlabel("layer")
        panel.grid(axis="y", color=FAINT, linewidth=0.6)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def against_the_ceiling(
    before: Float[Tensor, "layer number"],
    highest_possible: Float[Tensor, "layer"],
    ceiling: float,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Each layer's positive pre-activations as a histogram on a logarithmic axis that reaches past the ceiling.

    With it, the share that is not positive, the largest seen, and the largest that any input could make. ValueError
    where that is not known of each layer.
    """
    check_labels("highest possible number", highest_possible, layer=len(before))
    figure, axes = new_figure(9.0, 0.8 + 0.5 * len(before), size, ax)
    edges, names = np.geomspace(2.0**-7, ceiling, 91), []
    for layer, values in enumerate(numbers(before)):
        counts, _ = np.histogram(values[values > 0], bins=edges)
        axes.stairs(
            layer - 0.85 * counts / max(counts.max(), 1), edges, baseline=layer, fill=True, color=BLUE, alpha=0.75
        )
        axes.axhline(layer, color=FAINT, linewidth=0.8, zorder=0)
        top, possible = values.max(), float(highest_possible[layer])
        axes.plot(top, layer, marker="|", markersize=13, markeredgewidth=2.2, color=INK, linestyle="none",
                  label="largest seen" if layer == 0 else None)  # fmt: skip
        axes.plot(possible, layer, marker="D", markersize=6, color=ORANGE, markeredgecolor="white", linestyle="none",
                  label="largest that any input could make" if layer == 0 else None)  # fmt: skip
        names.append(f"layer {layer}: {(values <= 0).mean():.0%} silent")
    axes.axvspan(ceiling, 2 * ceiling, facecolor="0.92", edgecolor="0.6", hatch="////", linewidth=0)
    axes.axvline(ceiling, color=INK, linewidth=1.2)
    axes.text(ceiling * 0.94, -0.85, f"float16's square is inf from {ceiling:g} on", ha="right", va="top", fontsize=9)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
    axes.set_xticks([2.0**power for power in range(-6, 9, 2)])
    axes.set_xlim(2.0**-7, 2 * ceiling)
    axes.set_ylim(len(before) - 0.6, -1.0)
    axes.set_yticks(range(len(before)), names)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("pre-activation, where positive (logarithmic)")
    axes.set_title(title, loc="left")
    legend_outside(axes, ax, "outside lower right", ncols=2, fontsize=9)
    return figure


def rows_needed(
    batches: Sequence[int],
    needed: Mapping[str, Float[Tensor, "batch"]],
    guessed: Mapping[str, Float[Tensor, "batch"]] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Share of a layer's neurons awake at one token or more of a batch; dashed: if each were awake equally often.

    ValueError where there is not a share for each batch, or not a guess for each that is needed.
    """
    check_curves("batch", batches, needed)
    if guessed is not None:
        check_curves("batch", batches, guessed)
        check_names("line", needed, guessed)
    figure, axes = new_figure(9.0, 3.6, size, ax)
    for index, (name, share) in enumerate(needed.items()):
        look = series(index)
        axes.plot(batches, numbers(share), markersize=6, linewidth=2, label=name, **look.points)
        if guessed is not None:
            axes.plot(batches, numbers(guessed[name]), color=look.colour, linewidth=1.4, linestyle=(0, (4, 2)))
    if guessed is not None:
        axes.plot([], [], color=MUTED, linewidth=1.4, linestyle=(0, (4, 2)), label="if all were awake equally often")
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("tokens in the batch")
    axes.set_ylabel("neurons needed")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, loc="lower right")
    return figure
