"""Where fine-tuning ends, and why: losses that stop at nan, what each recipe loses, gradients between two edges."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_names
from persimmon_lab.viz.results import Ran
from persimmon_lab.viz.style import CATEGORICAL, FAINT, INK, MUTED, Size, figure_grid, numbers

BLUE, ORANGE = CATEGORICAL[:2]
COLUMNS = 4  # of small panels in a notebook's width


def loss_by_step(
    losses: Mapping[str, Sequence[float] | Ran],
    reference: str,
    endings: Mapping[str, str] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """A panel for each run, the reference's curve behind every one of them.

    A run that stops being finite ends in a cross, and what follows is grey; `endings` says why, in a few words. What
    `fine_tune` gave will do for a run, and then says itself why it ended. ValueError for a reference, or the ending of
    a run, that `losses` has not.
    """
    curves = {name: run.losses if isinstance(run, Ran) else run for name, run in losses.items()}
    failures = {name: run.failure for name, run in losses.items() if isinstance(run, Ran) and run.failure}
    endings = {name: failure.mechanism for name, failure in failures.items()} if endings is None else endings
    check_names("reference", [reference], curves)
    check_names("ending", endings, curves)
    rows = math.ceil(len(curves) / COLUMNS)
    figure, panels = figure_grid(rows, COLUMNS, 2.25, 2.05, size, sharex=True, sharey=True)
    steps = max(map(len, curves.values()))
    top = max((loss for curve in curves.values() for loss in curve if math.isfinite(loss)), default=1.0)
    for panel in panels.flat[len(curves) :]:
        panel.set_axis_off()
    behind = curves[reference]
    for panel, (name, curve) in zip(panels.flat, curves.items()):
        panel.plot(range(1, len(behind) + 1), behind, color="0.6", linewidth=1.2, linestyle="--")
        finite = [loss for loss in curve if math.isfinite(loss)]
        panel.plot(range(1, len(finite) + 1), finite, color=BLUE, linewidth=2, marker="o", markersize=4)
        if len(finite) < len(curve):
            panel.axvspan(len(finite) + 0.5, steps + 0.4, color=FAINT, alpha=0.7, linewidth=0)
            last = finite[-1] if finite else math.nan  # a run may begin with nan
            panel.plot(len(finite), last, marker="X", markersize=11, color=ORANGE, markeredgecolor="white")
            why = f"nan at step {len(finite) + 1}"
        else:
            why = f"{finite[-1]:.2f} at the end"
        if ending := endings.get(name):
            why += f"\n{ending}"
        panel.text(0.97, 0.97, why, transform=panel.transAxes, ha="right", va="top", fontsize=8.5, color=INK)
        panel.set_title(name, loc="left", fontsize=10)
        panel.set_xlim(0.6, steps + 0.4)
        panel.set_ylim(0, top * 1.35)
    for panel in panels[-1]:
        panel.set_xlabel("step")
    for panel in panels[:, 0]:
        panel.set_ylabel("loss (nats)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def lost_shares(shares: Mapping[str, Mapping[str, float]], title: str = "", *, size: Size | None = None) -> Figure:
    """What is lost, a panel each, by recipe, a row each, as bars with their percentage: `shares[recipe][what]`.

    ValueError where recipes do not lose the same kinds.
    """
    names, kinds = list(shares), list(next(iter(shares.values())))
    for lost in shares.values():
        check_names("kind", lost, kinds)
        check_names("kind", kinds, lost)
    figure, panels = figure_grid(1, len(kinds), 9 / len(kinds), 0.7 + 0.3 * len(names), size, sharey=True)
    for panel, kind in zip(panels[0], kinds):
        values = [shares[name][kind] for name in names]
        drawn = [0 if math.isnan(value) else value for value in values]
        panel.barh(range(len(names)), drawn, height=0.55, color=BLUE)
        for row, value in enumerate(values):
            text = "" if math.isnan(value) else as_share(value)
            panel.text(drawn[row] + 0.02, row, text, va="center", fontsize=9, color=INK)
        panel.set_title(kind, loc="left", fontsize=10)
        panel.set_xlim(0, 1.18)
        panel.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
        panel.set_yticks(range(len(names)), names)
        panel.tick_params(axis="y", length=0)
    panels[0, 0].set_ylim(len(names) - 0.4, -0.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def gradient_sizes(
    gradients: Mapping[str, Float[Tensor, "count"]],
    floors: Mapping[str, float],
    ceilings: Mapping[str, float],
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """How large gradients are, a histogram for each name, with the sizes below and above which a format loses them.

    White is what lies within all floors and ceilings. The axis counts powers of two; zeros have no place on it, so
    the panel's title counts them, and the shares are of the others.
    """
    figure, panels = figure_grid(len(gradients), 1, 9.0, 1.75, size, sharex=True)
    powers = {name: np.log2(numbers(values[values != 0].abs())) for name, values in gradients.items()}
    edges = [math.log2(edge) for edge in (*floors.values(), *ceilings.values())]
    ends = [*edges, *(np.quantile(power, q) for power in powers.values() for q in (0.0005, 1))]
    bins = np.arange(math.floor(min(ends)) - 6, math.ceil(max(ends)) + 10)
    for panel, (name, power) in zip(panels[:, 0], powers.items()):
        counts, _ = np.histogram(power.clip(bins[0], bins[-1]), bins)
        heights = counts / counts.sum()
        panel.bar(bins[:-1], heights, width=1, align="edge", color=BLUE, edgecolor="white", linewidth=0.4)
        panel.set_ylim(0, heights.max() * 1.6)
        for edge in (*floors, *ceilings):
            is_floor = edge in floors
            exponent = math.log2(floors[edge] if is_floor else ceilings[edge])
            lost = float(((power < exponent) if is_floor else (power >= exponent)).mean())
            panel.axvspan(bins[0] if is_floor else exponent, exponent if is_floor else bins[-1], color="0.9", zorder=0)
            panel.axvline(exponent, color=MUTED, linestyle=(0, (4, 2)), linewidth=1)
            panel.text(
                exponent + (-0.3 if is_floor else 0.3),
                heights.max() * 1.55,
                f"{edge}\n{as_share(lost)} {'below' if is_floor else 'above'}",
                ha="right" if is_floor else "left",
                va="top",
                fontsize=8.5,
                color=INK,
            )
        zeros = float((gradients[name] == 0).double().mean())
        panel.set_title(f"{name} (besides {as_share(zeros)} that are 0)", loc="left", fontsize=10)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
    panels[-1, 0].set_xlabel("size of a gradient, as a power of two")
    panels[-1, 0].set_xlim(bins[0], bins[-1])
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def as_share(value: float) -> str:
    """0.57 -> "57%", 0.011 -> "1.1%", 0.0001 -> "<0.1%", 0 -> "0"."""
    if value == 0:
        return "0"
    if value < 0.001:
        return "<0.1%"
    return f"{value:.1%}" if value < 0.1 or 0.99 < value < 1 else f"{value:.0%}"
