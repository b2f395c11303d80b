"""Training as it goes: losses against what nothing can beat, the residual stream, gradients, scores that run away."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_labels, check_marks, check_names
from persimmon_lab.viz.style import (
    CATEGORICAL,
    FAINT,
    INK,
    MUTED,
    SEQUENTIAL,
    ColourMap,
    Size,
    figure_grid,
    ink_on,
    new_figure,
    numbers,
    series,
)

TEXT_ON_DARK = 0.62  # of the colour scale: above it, white is easier to read than ink


def plain(value: float) -> str:
    """Two digits: 0.0034, 0.25, 6.2, 48, 1,500."""
    if value == 0:
        return "0"
    digits = 1 - int(np.floor(np.log10(abs(value))))
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def loss_curves(
    losses: Mapping[str, Sequence[float]],
    floors: Mapping[str, float] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Nats by step, a line for each name; `floors` are dotted lines with their name."""
    floors = floors or {}
    figure, axes = new_figure(9.0, 3.6, size, ax)
    for index, (name, curve) in enumerate(losses.items()):
        axes.plot(curve, linewidth=2, label=name, **series(index).line)
    steps = max(map(len, losses.values()))
    for name, floor in floors.items():
        axes.axhline(floor, color=MUTED, linestyle=":", linewidth=1.2, zorder=0)
        # Beside the axes: within them it would stand on a curve that keeps to its floor.
        said = f" {name}\n {floor:.2f}"
        axes.text(1, floor, said, transform=axes.get_yaxis_transform(), va="center", fontsize=9, color=MUTED)
    top = max([value for curve in losses.values() for value in curve] + [*floors.values()])
    axes.set_ylim(-0.04 * top, 1.18 * top)
    axes.set_xlim(0, steps - 1)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per symbol)")
    axes.set_title(title, loc="left")
    axes.legend(loc="center left", frameon=False)
    return figure


def residual_norms(
    models: Mapping[str, Mapping[str, Float[Tensor, "state"]]], title: str = "", *, size: Size | None = None
) -> Figure:
    """Length of the residual stream at the embedding and after each layer, on a logarithmic axis.

    A panel for each model; in it a line for each of its conditions, with its first and last value beside it.
    ValueError where conditions of one model have not as many states.
    """
    for lines in models.values():
        check_curves("state", next(iter(lines.values())), lines)
    figure, panels = figure_grid(1, len(models), 9 / len(models), 3.5, size, sharey=True)
    for panel, (model, lines) in zip(panels[0], models.items()):
        for index, (name, norms) in enumerate(lines.items()):
            values, look = numbers(norms), series(index)
            panel.plot(values, linewidth=2, markersize=5, label=name, marker=look.marker, **look.line)
            for state, align in ((0, "right"), (len(values) - 1, "left")):
                space = -5 if align == "right" else 5
                panel.annotate(
                    plain(values[state]), (state, values[state]), xytext=(space, 3), textcoords="offset points",
                    ha=align, fontsize=8.5, color=INK,
                )  # fmt: skip
        panel.set_yscale("log")
        panel.set_xlim(-0.14 * len(values), 1.1 * len(values))
        panel.set_xticks(range(len(values)), ["embed", *map(str, range(len(values) - 1))])
        panel.set_xlabel("after layer")
        panel.set_title(model, loc="left", fontsize=10)
        panel.grid(axis="y", color=FAINT)
        panel.legend(frameon=False, fontsize=9)
        as_numbers(panel)
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(low, high * 3)  # room for the legends
    panels[0, 0].set_ylabel("length of the residual stream")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def gradient_flow(
    norms: Mapping[str, Sequence[float]],
    title: str = "",
    every: int = 10,
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The gradient of each part by step: dark = long, logarithmic; a cell is the median of `every` steps.

    `norms` goes from the input to the output, drawn upwards, as gradients come down. The first, the darkest and the
    last cell of a row show their numbers. ValueError where parts have not as many steps.
    """
    check_curves("step", next(iter(norms.values())), norms)
    table = np.array([list(lengths) for lengths in norms.values()])
    windows = range(0, table.shape[1], every)
    cells = np.stack([np.median(table[:, start : start + every], axis=1) for start in windows], axis=1)
    figure, axes = new_figure(9.0, 1.5 + 0.36 * len(cells), size, ax)
    scale = LogNorm(max(cells.min(), cells.max() * 1e-6), cells.max())
    edges = [*windows, table.shape[1]]
    mesh = axes.pcolormesh(edges, np.arange(len(cells) + 1) - 0.5, cells, cmap=cmap, norm=scale)
    for row, values in enumerate(cells):
        for column in {0, int(values.argmax()), len(values) - 1}:
            share = float(scale(values[column]))
            colour = ink_on(cmap, share, share > TEXT_ON_DARK)
            middle = (edges[column] + edges[column + 1]) / 2
            axes.text(middle, row, plain(values[column]), ha="center", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(cells)), list(norms))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("step")
    axes.set_title(title, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, label="length of the gradient", pad=0.02)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    as_numbers(bar.ax)
    return figure


def stripes(
    patterns: Mapping[str, Sequence[tuple[str, Float[Tensor, "query key"], int]]],
    title: str = "",
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
) -> Figure:
    """Attention patterns in rows, one row for each name: (what is read, the pattern, its period).

    Who wants to say what comes next in a row that repeats looks one less than a period back, or a period more, and so
    on. Dashed lines run on both sides of these places, so that one sees whether the pattern follows them. ValueError
    for a period that is no length within the pattern.
    """
    for row in patterns.values():
        for _, pattern, period in row:
            check_marks([period - 1], query=len(pattern))
    columns = max(map(len, patterns.values()))
    figure, panels = figure_grid(len(patterns), columns, 9 / max(columns, 3), 2.9, size)
    for row_of_panels, (name, row) in zip(panels, patterns.items()):
        for panel, (what, pattern, period) in zip(row_of_panels, row):
            length = len(pattern)
            panel.imshow(numbers(pattern), cmap=cmap, vmin=0, vmax=1)
            for back in range(period - 1, length, period):
                queries = np.array([back - 0.5, length - 0.5])
                for side in (-0.9, 0.9):
                    panel.plot(queries - back + side, queries, color=CATEGORICAL[1], linewidth=1, linestyle=(0, (5, 2)))
            panel.set_xlim(-0.5, length - 0.5)
            panel.set_ylim(length - 0.5, -0.5)
            panel.set_title(what, loc="left", fontsize=10)
            panel.set_xlabel("looked at")
        row_of_panels[0].set_ylabel(f"{name}\nlooking")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def stability(
    losses: Mapping[str, Sequence[float]],
    scores: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    chance: float,
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """Runs side by side: on the left nats per copied symbol by step, on the right the largest score of attention.

    `scores` gives steps and values, drawn on a logarithmic axis. ValueError for a run with losses and no scores, or
    where its steps are not as many as its values.
    """
    check_names("run", losses, scores)
    for steps, values in scores.values():
        check_labels("step", steps, score=len(values))
    figure, panels = figure_grid(1, 2, 4.5, 3.6, size)
    left, right = panels[0]
    for index, (name, curve) in enumerate(losses.items()):
        look = series(index)
        style = look.line | {"linewidth": 2, "label": name}
        left.plot(smoothed(curve), **style)
        steps, values = scores[name]
        right.plot(steps, values, marker=look.marker, markersize=4, **style)
        right.annotate(
            plain(values[-1]), (steps[-1], values[-1]), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=8.5, color=INK,
        )  # fmt: skip
    left.axhline(chance, color=MUTED, linestyle=":", linewidth=1.2, zorder=0)
    left.text(0, 1.02 * chance, f"chance {chance:.2f}", va="bottom", fontsize=9, color=MUTED)
    left.set_ylim(-0.04 * chance, 1.2 * max(chance, *(value for curve in losses.values() for value in curve)))
    left.set_ylabel("loss (nats per copied symbol)")
    right.set_yscale("log")
    right.set_ylabel("largest score")
    right.set_xlim(0, 1.13 * max(steps[-1] for steps, _ in scores.values()))
    right.grid(axis="y", color=FAINT)
    as_numbers(right)
    for panel in (left, right):
        panel.set_xlabel("step")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def smoothed(curve: Sequence[float], window: int = 5) -> np.ndarray:
    """The mean of each value and up to `window` - 1 before it."""
    sums = np.concatenate(([0.0], np.cumsum(np.asarray(curve, dtype=float))))
    ends = np.arange(1, len(sums))
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def as_numbers(axes: Axes) -> None:
    """Write the ticks of a logarithmic axis as 0.1, 1, 10, 1,000."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
