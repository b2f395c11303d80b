"""The lattice of a text: every piece that matches as an arc over its characters, the chosen ones above."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persimmon_lab.viz.agreement import check_labels, check_marks
from persimmon_lab.viz.signs import SIGNS, counted, readable
from persimmon_lab.viz.style import CATEGORICAL, INK, MUTED, Size, new_figure, title_outside

MOST_CHARACTERS = 16  # more do not fit the width of a notebook with a readable number on each arc
BLUE = CATEGORICAL[0]
RISE = 0.62  # how much higher an arc gets for each character that it spans
LIKELY = 0.01  # an arc that this share of all cuts uses is drawn darker
VISIBLE = {character: SIGNS[character] for character in "\n\t▁"}


def lattice(
    text: str,
    arcs: Sequence[tuple[int, int, float]],
    best: Collection[int],
    shares: Sequence[float] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Characters in a row, nodes between them, and the pieces as arcs with their log-probabilities.

    `arcs` are (start, end, log-probability); those whose index is in `best` stand above, thick, with their sum; all
    others hang below. `shares`, one an arc, is how much of the probability of all cuts goes through it: arcs below
    with a share of 1 % or more are dark, the rest faint. Without it all are dark.

    ValueError for an arc outside the text, a text of more characters than a page is wide, a best one that is no arc,
    or not one share for each.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{len(text)} characters are too many to read; draw a part of at most {MOST_CHARACTERS}")
    for start, end, _ in arcs:
        if not 0 <= start < end <= len(text):
            raise ValueError(f"an arc from {start} to {end} has no place in a text of {len(text)} characters")
    check_marks(best, arc=len(arcs))
    shares = [1.0] * len(arcs) if shares is None else shares
    check_labels("share", shares, arc=len(arcs))
    above = [arcs[index] for index in sorted(best)]
    below = [(arc, share) for index, (arc, share) in enumerate(zip(arcs, shares)) if index not in best]
    top = height(max((end - start for start, end, _ in above), default=0))
    bottom = height(max((end - start for (start, end, _), _ in below), default=0))

    figure, axes = new_figure(min(9.0, 1.0 + 0.75 * len(text)), 0.9 + 0.52 * (top + bottom), size, ax)
    axes.set_axis_off()
    axes.set_xlim(-0.4, len(text) + 0.4)
    axes.set_ylim(-bottom - 0.5, top + 0.5)
    for (start, end, score), share in sorted(below, key=lambda pair: pair[1]):
        dark = share >= LIKELY
        draw_arc(axes, start, end, -1, color=INK if dark else "0.72", linewidth=1.3 if dark else 0.8)
        label(axes, start, end, -1, score, color=INK if dark else MUTED, fontsize=8.5 if len(text) <= 12 else 7.5)
    for start, end, score in above:
        draw_arc(axes, start, end, +1, color=BLUE, linewidth=3.2)
        label(axes, start, end, +1, score, color=BLUE, fontsize=10 if len(text) <= 12 else 8, fontweight="bold")
    for start, character in enumerate(text):
        sign = VISIBLE.get(character, character if character == " " else readable(character))
        axes.text(start + 0.5, 0, sign, ha="center", va="center", fontsize=17 if len(sign) == 1 else 9,
                  family="monospace", color=MUTED if sign != character else INK, zorder=4,
                  parse_math=False)  # fmt: skip
    axes.scatter(range(len(text) + 1), np.zeros(len(text) + 1), s=42, color="white", edgecolors=INK, zorder=5)
    if above:
        scores = [score for _, _, score in above]
        terms = " + ".join(map(minus, scores)) if len(scores) <= 9 else f"the sum of {counted(len(scores), 'piece')}"
        title += f"\nabove, the best cut: {terms} = {minus(math.fsum(scores))}"
    title_outside(axes, ax, title.strip(), x=0.02, fontsize=11, parse_math=False)
    return figure


def height(span: int) -> float:
    """Of the arc over so many characters: the longer, the higher, so that no two labels share a place."""
    return 0.0 if span == 0 else 0.85 + RISE * (span - 1)


def draw_arc(axes: Axes, start: int, end: int, side: int, **style: Any) -> None:
    """Half an ellipse from node to node, above (side 1) or below (side -1) the characters."""
    turn = np.linspace(0, math.pi, 60)
    middle, radius = (start + end) / 2, (end - start) / 2
    axes.plot(middle - radius * np.cos(turn), side * height(end - start) * np.sin(turn), **style)


def label(axes: Axes, start: int, end: int, side: int, score: float, **style: Any) -> None:
    """The log-probability at the top of its arc, on white, so that no line runs through it."""
    axes.text((start + end) / 2, side * height(end - start), minus(score), ha="center",
              va="center", zorder=3, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}, **style)  # fmt: skip


def minus(score: float) -> str:
    """Two decimals, with a minus sign as wide as a digit."""
    return f"{score:.2f}".replace("-", "\u2212")
