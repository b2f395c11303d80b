"""A beam search as the tree it is: what was kept at each step, what was dropped, and at what log-probability."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from persimmon_lab.viz.agreement import check_marks
from persimmon_lab.viz.signs import readable
from persimmon_lab.viz.style import CATEGORICAL, INK, MUTED, Dash, Size, new_figure

BLUE, ORANGE = CATEGORICAL[:2]
HALF_A_BOX = 0.2  # where lines begin and end; columns stand 1 apart
LONGEST = 11  # characters of a token that have room in its box


@dataclass(frozen=True)
class Candidate:
    """One continuation that a step looked at. `parent` counts the kept candidates of the step before, from 0 (the
    prompt, at the first step); `score` is the log-probability of all its tokens so far; `kept` says that it went on."""

    parent: int
    token: str
    score: float
    kept: bool


def shown(token: str) -> str:
    text = readable(token)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def beam_tree(
    steps: Sequence[Sequence[Candidate]], title: str = "", *, size: Size | None = None, ax: Axes | None = None
) -> Figure:
    """Columns are steps, rows the candidates of a step in the order given (the best first).

    Kept ones have a solid frame and a solid line from their parent, dropped ones a dashed one; the path that ends best
    is drawn thick. The number under a token is the log-probability of the whole path, in nats. ValueError for a
    candidate whose parent was not kept.
    """
    kept_before = 1  # the prompt
    for candidates in steps:
        check_marks([candidate.parent for candidate in candidates], kept_candidate=kept_before)
        kept_before = sum(candidate.kept for candidate in candidates)
    rows = max(map(len, steps))
    figure, axes = new_figure(9.0, 0.8 + 0.62 * rows, size, ax)
    best = winning_path(steps)
    kept_rows = [0.5 * (rows - 1)]  # of the column before; the prompt stands in the middle
    for column, candidates in enumerate(steps, start=1):
        for row, candidate in enumerate(candidates):
            kept, won = candidate.kept, best[column - 1] == row
            colour = (ORANGE if won else BLUE) if kept else MUTED
            style: Dash = "solid" if kept else (0, (3, 2))
            width = (2.6 if won else 1.3) if kept else 0.9
            axes.plot([column - 1 + HALF_A_BOX, column - HALF_A_BOX], [kept_rows[candidate.parent], row], color=colour,
                      linewidth=width, linestyle=style,
                      gid="won" if won else "kept" if kept else "dropped")  # fmt: skip
            axes.text(column, row, f"{shown(candidate.token)}\n{candidate.score:.2f}", ha="center", va="center",
                      fontsize=8.5, color=INK if kept else MUTED, parse_math=False, linespacing=1.15,
                      bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": colour,
                            "linewidth": width * 0.8, "linestyle": style})  # fmt: skip
        kept_rows = [row for row, candidate in enumerate(candidates) if candidate.kept]
    axes.text(0, 0.5 * (rows - 1), "the\nprompt", ha="center", va="center", fontsize=9, color=INK)
    axes.set(xlim=(-0.4, len(steps) + 0.45), ylim=(rows - 0.4, -0.6))
    axes.set_axis_off()
    axes.set_title(title, loc="left")
    return figure


def winning_path(steps: Sequence[Sequence[Candidate]]) -> list[int]:
    """The row of each step on the way to the kept candidate that ends with the highest score."""
    ending = [(candidate.score, -row) for row, candidate in enumerate(steps[-1]) if candidate.kept]
    row = -max(ending)[1]
    path = [row]
    for before, after in zip(steps[-2::-1], steps[:0:-1]):
        row = [index for index, candidate in enumerate(before) if candidate.kept][after[row].parent]
        path.append(row)
    return path[::-1]
