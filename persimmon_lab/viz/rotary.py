"""Rotary embedding to look at: clocks, wavelengths, scores by offset, context scaling, a score in its two parts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_labels, check_shapes
from persimmon_lab.viz.signs import readable
from persimmon_lab.viz.style import (
    CATEGORICAL,
    DIVERGING,
    FAINT,
    INK,
    MUTED,
    RULES,
    SIGNED,
    ColourMap,
    Size,
    figure_grid,
    legend_outside,
    new_figure,
    numbers,
    series,
    title_outside,
)

RADIUS = 0.44  # of a clock, where neighbours stand 1 apart
BLUE, ORANGE = CATEGORICAL[:2]


def as_count(value: float) -> str:
    """6.28 -> "6.3", 83376.1 -> "83,000": two digits, as a wavelength is read off a figure."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.1f}" if rounded < 10 else f"{rounded:,.0f}"


def draw_clocks(
    axes: Axes,
    phases: Float[Tensor, "row column"],
    exact: Float[Tensor, "row column"] | None = None,
    row_height: float = 1.0,
) -> None:
    """A table of clocks, the first row on top: phase 0 points right and angles run anticlockwise.

    Columns stand 1 apart, rows `row_height`. `exact` adds each hand as it should stand, dashed.
    """
    if exact is not None:
        check_shapes(phases=phases, exact=exact)
    rows, columns = phases.shape
    y, x = (grid.ravel() for grid in np.mgrid[:rows, :columns].astype(float))
    y *= row_height

    def hands(angles: Tensor, start: float, end: float, **style: Any) -> LineCollection:
        radians = numbers(angles).ravel()
        # y points down, so that the first row is on top.
        ends = [np.stack([x + r * np.cos(radians), y - r * np.sin(radians)], axis=-1) for r in (start, end)]
        return LineCollection(list(np.stack(ends, axis=1)), **style)

    widths = (np.full(rows * columns, 2 * RADIUS), np.full(rows * columns, 2 * RADIUS), np.zeros(rows * columns))
    axes.add_collection(EllipseCollection(*widths, units="xy", offsets=np.stack([x, y], axis=-1), facecolor="0.97",
                                          edgecolor="0.6", linewidth=0.8, offset_transform=axes.transData))  # fmt: skip
    for quarter in range(4):
        ticks = torch.full_like(phases, quarter * math.pi / 2)
        axes.add_collection(hands(ticks, 0.86 * RADIUS, RADIUS, color="0.6", linewidth=0.8))
    if exact is not None:
        axes.add_collection(hands(exact, 0.0, RADIUS, color=ORANGE, linewidth=1.6, linestyle=(0, (3, 1.5))))
    axes.add_collection(hands(phases, 0.0, 0.9 * RADIUS, color=BLUE, linewidth=2.4, capstyle="round"))
    axes.scatter(x, y, s=14, color=INK, zorder=3)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim((rows - 1) * row_height + 0.5, -0.5)
    axes.set_aspect("equal")
    axes.set_axis_off()


def clocks(
    phases: Float[Tensor, "position pair"],
    positions: Sequence[int],
    wavelengths: Float[Tensor, "pair"],
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Every pair as a clock, one row per position: the first pair races, the last hardly moves.

    ValueError where there are not as many positions as rows, or wavelengths as pairs.
    """
    rows, columns = phases.shape
    check_labels("position", positions, row_of_phases=rows)
    check_labels("wavelength", wavelengths, pair=columns)
    side = min(0.9, 8 / columns)
    figure, axes = new_figure(1 + columns * side, 0.8 + rows * side, size, ax)
    draw_clocks(axes, phases)
    for row, position in enumerate(positions):
        axes.text(-0.6, row, f"position {position:,}", ha="right", va="center")
    for pair, wavelength in enumerate(wavelengths.tolist()):
        axes.text(pair, -0.55, f"pair {pair}\n{as_count(wavelength)}", ha="center", va="bottom", fontsize=9)
    title_outside(axes, ax, "Each pair is a clock; below its name, the positions it takes for one turn")
    return figure


def frequency_by_position(
    phases: Float[Tensor, "position pair"],
    wavelengths: Float[Tensor, "pair"],
    trained_length: int,
    *,
    cmap: ColourMap = SIGNED,
    size: Size | None = None,
) -> Figure:
    """Wavelength of every pair against the trained length, and the cosine of every pair at every position.

    ValueError where there are not as many wavelengths as pairs.
    """
    check_labels("wavelength", wavelengths, pair=phases.shape[1])
    figure, axes = figure_grid(1, 2, 4.5, 3.4, size)
    left, right = axes[0]
    lengths = numbers(wavelengths)
    pairs, shortest = np.arange(len(lengths)), lengths.min() / 2
    turns = lengths <= trained_length
    left.axvspan(shortest, trained_length, color=FAINT, alpha=0.6, linewidth=0)
    left.hlines(pairs, shortest, lengths, color="0.7", linewidth=1)
    left.scatter(lengths, pairs, s=46, c=np.where(turns, BLUE, "white"), edgecolors=BLUE, linewidths=1.5, zorder=3)
    left.set_xscale("log")
    left.set_xlim(shortest, max(lengths.max(), trained_length) * 3)
    left.set_ylim(len(lengths) - 0.5, -0.5)
    left.set_yticks(pairs if len(pairs) <= 16 else pairs[::4])
    left.text(trained_length * 1.15, 0, f"trained length\n{trained_length:,}", va="center", fontsize=9, color=INK)
    left.set_xlabel("positions for one turn")
    left.set_ylabel("pair")
    left.set_title(f"{turns.sum()} of {len(lengths)} pairs complete a turn", loc="left")

    image = right.imshow(np.cos(numbers(phases)).T, aspect="auto", cmap=cmap, vmin=-1, vmax=1, interpolation="none")
    right.set_yticks(left.get_yticks())
    right.set_ylim(len(lengths) - 0.5, -0.5)
    right.set_xlabel("position")
    right.set_title("Cosine of each pair's angle", loc="left")
    figure.colorbar(image, ax=right, ticks=[-1, 0, 1], pad=0.02)
    return figure


def draw_scores(axes: Axes, offsets: Tensor, curves: Mapping[str, Float[Tensor, "offset"]]) -> None:
    """One line per named curve, told apart by colour and by dashes."""
    check_curves("offset", offsets, curves)
    for index, (name, scores) in enumerate(curves.items()):
        axes.plot(numbers(offsets), numbers(scores), linewidth=2.2 if index else 1.8, label=name, zorder=2 + index,
                  **series(index).line)  # fmt: skip
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
    axes.set_xlim(float(offsets.min()), float(offsets.max()))
    axes.set_xlabel("offset (position of the query - position of the key)")
    axes.set_ylabel("score q·k")
    axes.grid(color=FAINT, linewidth=0.6)


def score_by_offset(
    offsets: Int[Tensor, "offset"],
    curves: Mapping[str, Float[Tensor, "offset"]],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Scores of a query with a key that stands `offset` positions before it."""
    figure, axes = new_figure(9.0, 3.5, size, ax)
    draw_scores(axes, offsets, curves)
    legend_outside(axes, ax, ncols=len(curves))
    axes.set_title(title, loc="left")
    return figure


def scaling_compared(
    frequencies: Mapping[str, Float[Tensor, "pair"]], trained_length: int, length: int, *, size: Size | None = None
) -> Figure:
    """What each way of reading `length` positions does to the pairs; the first named is the one in training.

    Left: the speed of every pair relative to training. Right: the slowest pair's angle by position, over the band of
    angles that training saw. ValueError where they are not of the same pairs.
    """
    trained = next(iter(frequencies.values()))
    check_curves("pair", trained, frequencies)
    figure, axes = figure_grid(1, 2, 4.5, 3.4, size)
    left, right = axes[0]
    pairs, positions = np.arange(len(trained)), np.array([0, length])
    for index, (name, frequency) in enumerate(frequencies.items()):
        look = series(index)
        style = look.line | {"label": name, "linewidth": 2}
        left.plot(pairs, numbers(frequency / trained), marker=look.marker, markersize=6, **style)
        right.plot(positions, positions * float(frequency[-1]), **style)
    left.set_ylim(0, 1.08)
    left.set_xticks(pairs if len(pairs) <= 16 else pairs[::4])
    left.set_xlabel("pair (fast to slow)")
    left.set_ylabel("speed, relative to training")
    left.set_title("How fast each pair turns", loc="left")
    left.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.92))

    seen = trained_length * float(trained[-1])
    right.axhspan(0, seen, color=FAINT, alpha=0.7, linewidth=0)
    right.plot(trained_length, seen, marker="o", markersize=7, color=INK, zorder=3)
    right.annotate("end of training", (trained_length, seen), (8, -14), textcoords="offset points", fontsize=9)
    right.text(length, seen, "angles seen in training", fontsize=9, color=INK, ha="right", va="bottom")
    right.set_xlim(0, length)
    right.set_ylim(bottom=0)
    right.set_xlabel("position")
    right.set_ylabel("angle (radians)")
    right.set_title("How far the slowest pair gets", loc="left")
    return figure


def score_split(
    rotated: Float[Tensor, "query key"],
    passed: Float[Tensor, "query key"],
    tokens: Sequence[str],
    title: str = "",
    *,
    cmap: ColourMap = DIVERGING,
    size: Size | None = None,
) -> Figure:
    """One head's scores as the sum of what the rotated and the passed channels say; queries see no later key.

    A dash marks clearly negative cells, for those who read it in grey. ValueError where tokens and scores differ in
    length.
    """
    check_shapes(rotated=rotated, passed=passed)
    check_labels("token", tokens, query=rotated.shape[0], key=rotated.shape[1])
    words = [readable(token) for token in tokens]
    figure, axes = figure_grid(1, 3, 3.1, 3.75, size)
    parts = {"rotated part": rotated, "passed part": passed, "sum: the score": rotated + passed}
    hidden = np.triu(np.ones(rotated.shape, dtype=bool), k=1)
    limit = max(np.abs(numbers(part)[~hidden]).max() for part in parts.values())
    for panel, (name, part) in zip(axes[0], parts.items()):
        image = panel.imshow(np.ma.masked_array(numbers(part), hidden), cmap=cmap, vmin=-limit, vmax=limit)
        rows, columns = np.nonzero(~hidden & (numbers(part) < -limit / 5))
        panel.scatter(columns, rows, marker="_", s=14, linewidth=0.8, color="black")
        # A token may hold a dollar sign, which is no formula.
        style: dict[str, Any] = {"fontsize": 8, "family": "monospace", "parse_math": False}
        panel.set_xticks(range(len(words)), words, rotation=90, **style)
        panel.set_yticks(range(len(words)), words, **style)
        panel.tick_params(length=0, labelleft=panel is axes[0, 0])
        panel.set_title(name, loc="left")
        panel.set_xlabel("key")
    axes[0, 0].set_ylabel("query")
    figure.colorbar(image, ax=axes[0].tolist(), shrink=0.6, pad=0.01, label="score")
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def voices(
    heads: Mapping[str, Float[Tensor, "pairs_and_passed"]],
    wavelengths: Float[Tensor, "pair"],
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """How much each pair of channels, and last all passed channels together, move the scores of some heads.

    ValueError where a head has not one number more than there are wavelengths.
    """
    ticks, width = np.arange(len(wavelengths) + 1), 0.8 / len(heads)
    check_curves("group of channels", ticks, heads)
    figure, axes = new_figure(9.0, 3.2, size, ax)
    for index, (name, heard) in enumerate(heads.items()):
        left = ticks + (index - (len(heads) - 1) / 2) * width
        axes.bar(left, numbers(heard), width, label=name, **series(index).bars)
    labels = [f"pair {pair}\n{as_count(length)}" for pair, length in enumerate(wavelengths.tolist())]
    axes.set_xticks(ticks, [*labels, "all\npassed"])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("spread of the part (rms)")
    axes.set_title("Which channels move the score; below each pair, the positions it takes for one turn", loc="left")
    axes.legend(frameon=False)
    return figure


def explorer(
    phases: Float[Tensor, "pair"],
    wavelengths: Float[Tensor, "pair"],
    offsets: Int[Tensor, "offset"],
    curves: Mapping[str, Float[Tensor, "offset"]],
    exact_phases: Float[Tensor, "pair"] | None = None,
    title: str = "",
) -> Figure:
    """The clocks at one position, above the scores of the query there by offset; `exact_phases` adds dashed hands.

    Drawn again on every move of a slider: two pairs of axes at fixed places, which is several times faster than a
    layout that has to be found. ValueError where there are not as many wavelengths as pairs.
    """
    pairs = len(phases)
    check_labels("wavelength", wavelengths, pair=pairs)
    rows = next(rows for rows in range(1, pairs + 1) if pairs % rows == 0 and pairs // rows <= 16)
    columns = pairs // rows
    row_height = 1 + 0.03 * columns  # room for the wavelengths between rows
    above_height = 0.3 + rows * row_height * 8.8 / max(columns, 8)
    height = 0.4 + above_height + 3
    with rc_context(RULES):
        figure = Figure(figsize=(9, height))
        above = figure.add_axes((0.01, 3 / height, 0.98, above_height / height))
        below = figure.add_axes((0.075, 0.5 / height, 0.915, 2.4 / height))
    in_rows = "(row column) -> row column"
    exact = None if exact_phases is None else rearrange(exact_phases, in_rows, row=rows)
    draw_clocks(above, rearrange(phases, in_rows, row=rows), exact, row_height)
    for pair, wavelength in enumerate(wavelengths.tolist()):
        x, y = pair % columns, pair // columns * row_height - 0.47
        above.text(x, y, as_count(wavelength), ha="center", va="bottom", fontsize=9)
    draw_scores(below, offsets, curves)
    below.legend(frameon=False, loc="lower right")
    below.set_ylim(-0.5, 1.08)
    figure.text(0.01, 1 - 0.1 / height, title, va="top", fontsize=11)
    return figure
