"""A cache to look at: the work it saves, the bytes it copies, the memory it fills, and keys that grow old in it."""

from collections.abc import Mapping

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_marks
from persimmon_lab.viz.signs import counted
from persimmon_lab.viz.style import (
    CATEGORICAL,
    FAINT,
    INK,
    LINE_STYLES,
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


def as_bytes(value: int | float, _: object = None) -> str:
    """1.5e9 -> "1.5 GB": powers of a thousand, three digits at most."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} B"


def two_or_five(value: int | float, _: object = None) -> str:
    """0.2, 0.5, 2, 5, …: what is worth a label between powers of ten; nothing for the others."""
    return f"{value:g}" if f"{value:e}"[0] in ("2", "5") else ""


def work_grid(
    times: Mapping[str, Int[Tensor, "query key"]],
    prompt: int,
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
) -> Figure:
    """How often each score is computed while a text is written, one panel for each way of writing it.

    0 stays white. A line parts the prompt's rows from those of the new tokens. ValueError for a prompt that is longer
    than the text.
    """
    for table in times.values():
        check_marks([prompt], query=len(table) + 1)
    side = 0.26 * len(next(iter(times.values()))) + 0.8
    figure, axes = figure_grid(1, len(times), side, side + 0.5, size)
    highest = max(int(table.max()) for table in times.values())
    for panel, (name, table) in zip(axes[0], times.items()):
        values = numbers(table)
        panel.imshow(np.ma.masked_equal(values, 0), cmap=cmap, vmin=0, vmax=1.3 * highest)
        for row, column in zip(*np.nonzero(values)):
            count = values[row, column]
            ink = ink_on(cmap, count / (1.3 * highest), count > 0.6 * highest > 1)
            panel.text(column, row, int(values[row, column]), ha="center", va="center", fontsize=8, color=ink)
        panel.axhline(prompt - 0.5, color=CATEGORICAL[1], linewidth=1.5, linestyle=LINE_STYLES[1])
        panel.text(len(values) - 0.6, prompt - 0.7, "prompt", ha="right", va="bottom", fontsize=9, color=CATEGORICAL[1])
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_xlabel("key")
        panel.set_ylabel("query")
        panel.set_title(f"{name}: {counted(int(values.sum()), 'score')}", loc="left")
    return figure


def bytes_written(
    positions: Int[Tensor, "step"],
    written: Mapping[str, Float[Tensor, "step"]],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Bytes written so far by each kind of cache, against the positions it holds; both axes logarithmic."""
    check_curves("position", positions, written)
    figure, axes = new_figure(7.5, 3.6, size, ax)
    x = numbers(positions)
    for index, (name, total) in enumerate(written.items()):
        some = np.ma.masked_less_equal(numbers(total), 0)  # nothing written yet has no logarithm
        axes.plot(x, some, label=name, linewidth=2, **series(index).line)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(as_bytes))
    axes.set_xlim(x.min(), x.max())
    axes.set_xlabel("positions held")
    axes.set_ylabel("bytes written so far")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_title(title, loc="left")
    axes.legend(frameon=False)
    return figure


def cache_growth(
    positions: Int[Tensor, "length"],
    held: Mapping[str, Float[Tensor, "length"]],
    weights: int | float,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Bytes of the cache by the length of the text, one line for each batch, beside the weights' own bytes."""
    check_curves("position", positions, held)
    figure, axes = new_figure(7.5, 3.8, size, ax)
    x = numbers(positions)
    axes.axhline(weights, color=INK, linewidth=1.4)
    # Right of where the steep lines cross it.
    axes.text(
        x.min() + 0.62 * np.ptp(x), weights, f"the weights: {as_bytes(weights)}", va="bottom", fontsize=9, color=INK
    )
    for index, (name, line) in enumerate(held.items()):
        y = numbers(line)
        axes.plot(x, y, linewidth=2, label=name, **series(index).line)
        axes.text(x.max(), y[-1], f"  {name}: {as_bytes(y[-1])}", va="center", fontsize=9, color=INK)
    axes.set_xlim(x.min(), x.max())
    axes.set_ylim(0, 1.06 * max(weights, *(float(line.max()) for line in held.values())))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(as_bytes))
    axes.set_xlabel("positions in each row")
    axes.set_ylabel("bytes held")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_title(title, loc="left")
    return figure


def drift(
    angles: Float[Tensor, "position pair"],
    scores: Mapping[str, tuple[Int[Tensor, "length"], Float[Tensor, "length"]]],
    trained_length: int,
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
) -> Figure:
    """Left: how far each cached key's pairs stand from where the present base would turn them, in turns of a circle.
    Right: what that does to the logits, by the length of the text; a value of 0 cannot be drawn."""
    for name, (lengths, error) in scores.items():
        check_curves("length", lengths, {name: error})
    figure, axes = figure_grid(1, 2, 4.5, 3.5, size)
    left, right = axes[0]
    turns = numbers(rearrange(angles, "position pair -> pair position")) / (2 * np.pi)
    limit = np.abs(turns).max()
    # Keys lag behind or run ahead all in one direction, so the size alone is shown.
    image = left.imshow(np.abs(turns), aspect="auto", cmap=cmap, vmin=0, vmax=limit, interpolation="none")
    left.axvline(trained_length, color=CATEGORICAL[1], linewidth=1.2, linestyle=LINE_STYLES[1])
    left.text(trained_length, -0.6, " trained length", fontsize=9, va="bottom", color=CATEGORICAL[1])
    left.set_xlabel("position of the key")
    left.set_ylabel("pair (fast to slow)")
    left.set_yticks(range(len(turns)) if len(turns) <= 16 else range(0, len(turns), 4))
    figure.colorbar(image, ax=left, pad=0.02, label="turns away")
    for index, (name, (lengths, error)) in enumerate(scores.items()):
        look = series(index)
        right.plot(numbers(lengths), numbers(error), marker=look.marker, markersize=5, linewidth=2, label=name,
                   **look.line)  # fmt: skip
    right.set_yscale("log")
    right.axvline(trained_length, color=CATEGORICAL[1], linewidth=1.2, linestyle=LINE_STYLES[1])
    right.set_xlabel("length of the text")
    right.set_ylabel("largest logit error")
    right.grid(color=FAINT, linewidth=0.6)
    right.legend(frameon=False)
    return figure


def loss_by_position(
    starts: Int[Tensor, "bin"],
    losses: Mapping[str, Float[Tensor, "bin"]],
    trained_length: int,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Loss of a text in bins of positions, on a logarithmic axis; the line marks the length of training."""
    check_curves("bin", starts, losses)
    figure, axes = new_figure(8.0, 3.6, size, ax)
    x = numbers(starts)
    for index, (name, values) in enumerate(losses.items()):
        look = series(index)
        axes.plot(x, numbers(values), linewidth=2, marker=look.marker, markersize=5, label=name, **look.line)
    axes.axvline(trained_length, color=MUTED, linewidth=1.2)
    axes.text(trained_length, 1.01, "trained length", transform=axes.get_xaxis_transform(), fontsize=9, ha="center",
              va="bottom", color=INK)  # fmt: skip
    # What copies and what does not lie a factor of twenty apart.
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(FuncFormatter(two_or_five))
    axes.set_xlabel("position")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_title(title, loc="left", pad=18)
    legend_outside(axes, ax, ncols=2)
    return figure
