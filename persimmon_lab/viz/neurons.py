"""Neurons that stay silent: activation functions, who is awake, how strong, how near float16's edge."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from persimmon_lab.viz.style import CATEGORICAL, FAINT, INK, LINE_STYLES, MUTED, figure_grid, new_figure

BLUE, ORANGE = CATEGORICAL[:2]
MARKERS = ("o", "s", "D", "^", "v", "P")
HATCHES = ("", "////", "....")


def numbers(values: Tensor) -> np.ndarray:
    """As matplotlib wants them: float64 on the CPU, whatever they were."""
    return values.detach().double().cpu().numpy()


def line_style(index: int) -> dict:
    return {"color": CATEGORICAL[index], "linestyle": LINE_STYLES[index], "linewidth": 2}


def activation_functions(
    x: Float[Tensor, "x"], curves: Mapping[str, tuple[Float[Tensor, "x"], Float[Tensor, "x"]]]
) -> Figure:
    """Functions on the left, their derivatives on the right; a jump in a curve is not drawn as a line."""
    figure, axes = figure_grid(1, 2, 4.5, 3.4)
    for column, (panel, title) in enumerate(zip(axes[0], ("The function", "Its derivative"))):
        panel.axhline(0, color=MUTED, linewidth=0.8)
        panel.axvline(0, color=MUTED, linewidth=0.8)
        for index, (name, pair) in enumerate(curves.items()):
            values = numbers(pair[column])
            jumps = np.flatnonzero(np.abs(np.diff(values)) > 0.5)
            panel.plot(np.insert(numbers(x), jumps + 1, np.nan), np.insert(values, jumps + 1, np.nan), label=name,
                       zorder=3 + index, **line_style(index))  # fmt: skip
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


def raster(activations: Float[Tensor, "token mlp"], tokens: Sequence[str], title: str = "") -> Figure:
    """A row for each token, a mark in it for every neuron that is awake there, a column for each neuron.

    The columns stand in the order in which the neurons first woke: a token's newcomers lie to the right of all others.
    """
    awake = numbers(activations) != 0
    order = first_awake(awake)[: awake.any(axis=0).sum()]
    figure, axes = new_figure(9.0, 4.4)
    token, neuron = np.nonzero(awake[:, order])
    newcomers = awake[:, order].argmax(axis=0)[neuron] == token
    for new, colour, label in ((False, BLUE, "woke before"), (True, ORANGE, "wakes for the first time")):
        chosen = newcomers == new
        axes.vlines(neuron[chosen], token[chosen] - (0.46 if new else 0.3), token[chosen] + (0.46 if new else 0.3),
                    color=colour, linewidth=0.7, label=f"{label} ({chosen.sum():,})")  # fmt: skip
    axes.set_ylim(len(tokens) - 0.4, -0.6)
    axes.set_yticks(range(len(tokens)), tokens, fontsize=8, family="monospace", parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(-1, len(order))
    axes.set_xlabel(
        f"the {len(order):,} of {awake.shape[1]:,} neurons that wake at all, by the token that woke them first"
    )
    axes.set_title(title, loc="left")
    figure.legend(frameon=False, loc="outside lower right", ncols=2)
    return figure


def sparsity_by_layer(
    silent: Mapping[str, Float[Tensor, "layer"]],
    mass: Float[Tensor, "layer share"],
    shares: Sequence[float],
    title: str = "",
) -> Figure:
    """Left, the share of zeros after squared ReLU in each text; right, what the strongest `shares` of neurons carry."""
    figure, axes = figure_grid(1, 2, 4.5, 3.5)
    left, right = axes[0]
    layers = np.arange(len(mass))
    for index, (name, share) in enumerate(silent.items()):
        left.plot(layers, numbers(share), marker=MARKERS[index], markersize=6, label=name, **line_style(index))
    left.set_title("Share of neurons that are silent", loc="left")
    left.legend(frameon=False, loc="lower center", ncols=2)
    parts = np.diff(numbers(mass), axis=1, prepend=0)
    for index, (share, part) in enumerate(zip(shares, parts.T)):
        named = f"strongest {share:.0%}" if index == 0 else f"next, to {share:.0%}"
        bars = right.bar(layers, part, 0.8, bottom=numbers(mass)[:, index] - part, label=named,
                         color=CATEGORICAL[index], hatch=HATCHES[index], edgecolor="white", linewidth=0)  # fmt: skip
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
) -> Figure:
    """Each layer's positive pre-activations as a histogram on a logarithmic axis that reaches past the ceiling.

    With it, the share that is not positive, the largest seen, and the largest that any input could make.
    """
    figure, axes = new_figure(9.0, 0.8 + 0.5 * len(before))
    edges, names = np.geomspace(2.0**-7, ceiling, 91), []
    for layer, values in enumerate(before):
        values = numbers(values)
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
    figure.legend(frameon=False, loc="outside lower right", ncols=2, fontsize=9)
    return figure


def rows_needed(
    batches: Sequence[int],
    needed: Mapping[str, Float[Tensor, "batch"]],
    guessed: Mapping[str, Float[Tensor, "batch"]] | None = None,
    title: str = "",
) -> Figure:
    """Share of a layer's neurons awake at one token or more of a batch; dashed: if each were awake equally often."""
    figure, axes = new_figure(9.0, 3.6)
    for index, (name, share) in enumerate(needed.items()):
        values = numbers(share)
        axes.plot(
            batches, values, marker=MARKERS[index], markersize=6, color=CATEGORICAL[index], linewidth=2, label=name
        )
        if guessed is not None:
            axes.plot(batches, numbers(guessed[name]), color=CATEGORICAL[index], linewidth=1.4, linestyle=(0, (4, 2)))
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
