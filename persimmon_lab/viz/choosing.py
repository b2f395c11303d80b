"""Decoding rules to look at: what they keep of a distribution and along a text, and what text they lead to."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_labels
from persimmon_lab.viz.results import Scored
from persimmon_lab.viz.signs import counted, readable
from persimmon_lab.viz.style import (
    FAINT,
    INK,
    MUTED,
    Size,
    figure_grid,
    new_figure,
    numbers,
    series,
    title_outside,
)

BELOW_RANK_ONE = 0.8  # where a bar of ranks begins, so that one kept token is a bar too
NAMED = 3  # the most probable tokens, which have room for their names
PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}")
PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")


def plain(text: str) -> str:
    """A token or a rule as matplotlib should write it: a line break as a sign, a dollar as a dollar."""
    return readable(text).replace("$", r"\$")


def kept_sets(
    distributions: Mapping[str, tuple[Float[Tensor, "vocab"], Sequence[str]]],
    kept: Mapping[str, Sequence[int]],
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """What each rule keeps of several distributions, side by side: rank against probability, a bar for every rule.

    `distributions` maps a name to all its probabilities and the names of its most probable tokens, the best first;
    `kept` maps a rule to how many tokens it keeps of each. Both axes of a curve are logarithmic, so that the sure first
    token and the tail of thousands fit into one picture. A rule that keeps the most probable tokens keeps a beginning
    of the curve, and the bar is that beginning. ValueError for a rule that has not one count for each distribution.
    """
    for counts in kept.values():
        check_labels("count of a rule", counts, distribution=len(distributions))
    size = size or (9.0, 3.1 + 0.42 * len(kept))
    figure, axes = figure_grid(2, len(distributions), 4.5, 2.0, size, sharex=True, sharey="row",
                               height_ratios=[2.6, 0.42 * len(kept) + 0.2])  # fmt: skip
    for column, (name, (probabilities, names)) in enumerate(distributions.items()):
        above, below = axes[:, column]
        ranked = np.sort(numbers(probabilities))[::-1]
        ranks = np.arange(1, len(ranked) + 1)
        above.plot(ranks, ranked, color=INK, linewidth=1.4, marker="o", markevery=slice(0, 10), markersize=3.5)
        above.set(xscale="log", yscale="log", xlim=(BELOW_RANK_ONE, 1.25 * len(ranked)))
        above.set_ylim(1e-6, 60)  # above 1 there is room for names
        above.set_title(plain(name), loc="left")
        for rank, token in enumerate(names[:NAMED]):
            above.annotate(plain(token), (rank + 1, ranked[rank]), xytext=(4, 3), textcoords="offset points",
                           fontsize=8.5, rotation=35)  # fmt: skip
        above.grid(axis="y", color=FAINT, linewidth=0.6)
        for row, counts in enumerate(kept.values()):
            count, look = int(counts[column]), series(row)
            below.barh(row, count * 1.12 - BELOW_RANK_ONE, left=BELOW_RANK_ONE, height=0.62, facecolor="white",
                       edgecolor=look.colour, hatch=look.hatch, linewidth=1.4)  # fmt: skip
            text = f"{counted(count, 'token')}, {100 * ranked[:count].sum():.0f} %"
            long = count > len(ranked) ** 0.5
            below.annotate(text, (BELOW_RANK_ONE if long else count * 1.12, row), xytext=(6, 0),
                           textcoords="offset points", va="center", fontsize=9, color=INK,
                           bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2})  # fmt: skip
        below.set_yticks(range(len(kept)), [plain(rule) for rule in kept])
        below.set_ylim(len(kept) - 0.45, -0.55)
        below.tick_params(axis="y", length=0)
        below.set_xlabel("rank of the token, the most probable first")
        below.xaxis.set_major_locator(LogLocator(10))
        below.xaxis.set_major_formatter(PLAIN)
        below.xaxis.set_minor_formatter(NullFormatter())
    axes[0, 0].set_ylabel("probability")
    axes[0, 0].set_yticks([1, 1e-2, 1e-4, 1e-6], ["1", "1 in 100", "1 in 10,000", "1 in a million"])
    if title:
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12)
    return figure


def kept_along(
    tokens: Sequence[str],
    counts: Mapping[str, Int[Tensor, "position"]],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """How many tokens each rule keeps after each token of a text, on a logarithmic axis."""
    check_curves("token", tokens, counts)
    figure, axes = new_figure(9.0, 3.6, size, ax)
    positions = np.arange(len(tokens))
    for index, (rule, values) in enumerate(counts.items()):
        look = series(index)
        axes.plot(positions, numbers(values), label=rule, markersize=4.5, marker=look.marker, **look.line)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(positions, [plain(token) for token in tokens], rotation=60, ha="right", rotation_mode="anchor")
    axes.set_ylabel("tokens kept for the next place")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(counts), borderaxespad=0.2)
    if title:
        title_outside(axes, ax, plain(title), fontsize=12)
    return figure


def entropy_by_temperature(
    temperatures: Float[Tensor, "temperature"],
    entropies: Mapping[str, Float[Tensor, "temperature"]],
    most: float,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Entropy in bits against temperature; the dashed line at the top is `most`, all tokens equally likely."""
    check_curves("temperature", temperatures, entropies)
    figure, axes = new_figure(6.6, 3.5, size, ax)
    for index, (name, bits) in enumerate(entropies.items()):
        axes.plot(numbers(temperatures), numbers(bits), linewidth=2, label=name, **series(index).line)
    axes.axhline(most, color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    axes.annotate(f"all tokens alike: {most:g} bits", (float(temperatures[0]), most), xytext=(2, 4),
                  textcoords="offset points", color=MUTED, fontsize=9)  # fmt: skip
    axes.axvline(1.0, color=FAINT, linewidth=1.2, zorder=0)
    axes.set(
        xscale="log", ylim=(-0.2, 1.12 * most), xlabel="temperature (1: as the model says)", ylabel="entropy, bits"
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(frameon=False, loc="center right")
    axes.set_title(plain(title), loc="left")
    return figure


def probability_along(
    texts: Mapping[str, Float[Tensor, "position"] | Scored], title: str = "", *, size: Size | None = None
) -> Figure:
    """The probability of each token of several texts, one below the other, with the mean of their logarithms.

    What `score_tokens` gave for one text will do: its logarithms are taken back.
    """
    probabilities = {name: numbers(_probabilities_of(text)) for name, text in texts.items()}
    longest = max(map(len, probabilities.values()))
    figure, axes = figure_grid(len(texts), 1, 9.0, 1.35, size, sharex=True)
    for index, (axis, (name, values)) in enumerate(zip(axes[:, 0], probabilities.items(), strict=True)):
        axis.bar(np.arange(len(values)), values, width=0.8, color=series(index).colour)
        axis.set(ylim=(0, 1.05), yticks=(0, 0.5, 1), xlim=(-0.8, longest - 0.2))
        axis.yaxis.set_major_formatter(PERCENT)
        axis.set_title(f"{plain(name)}: {np.log(values).mean():.2f} nats a token", loc="left", fontsize=10)
    axes[-1, 0].set_xlabel("token")
    if title:
        figure.suptitle(plain(title), x=0.01, ha="left", fontsize=12)
    return figure


def _probabilities_of(text: Float[Tensor, "position"] | Scored) -> Float[Tensor, "position"]:
    if isinstance(text, Tensor):
        return text
    if len(text.tokens) != 1:
        raise ValueError(f"there are scores of {len(text.tokens)} texts; give each its name: scores.tokens[0].exp()")
    return text.tokens[0].exp()


def likelihood_and_variety(
    points: Mapping[str, tuple[float, float]],
    real: tuple[float, float],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Each decoder by the mean log-probability of a token and the share of 4-grams that are new; `real` is a text that
    people wrote, where the lines cross."""
    figure, axes = new_figure(7.4, 4.4, size, ax)
    for index, (name, (likelihood, variety)) in enumerate(points.items()):
        axes.scatter(likelihood, variety, s=58, label=plain(name), zorder=3, **series(index).points)
    axes.axvline(real[0], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.axhline(real[1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("written by people", (real[0], 0.02), xytext=(4, 0), textcoords="offset points", color=MUTED,
                  fontsize=9, rotation=90, va="bottom")  # fmt: skip
    axes.set(ylim=(0, 1.08), xlabel="mean log-probability of a token, nats (right: likelier)")
    axes.set_ylabel("4-grams that had not been said before")
    axes.yaxis.set_major_formatter(PERCENT)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title(plain(title), loc="left")
    return figure
