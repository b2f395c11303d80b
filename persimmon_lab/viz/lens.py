"""What each state of the residual stream would say next: layers by positions, and one cell close up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from torch import Tensor

from persimmon_lab.viz.agreement import check_labels, check_marks
from persimmon_lab.viz.signs import stream_names, visible
from persimmon_lab.viz.style import CATEGORICAL, SEQUENTIAL, ColourMap, Size, ink_on, new_figure, numbers

WIDTH = 9.0  # inches; a notebook's column
COLUMNS = 16  # so many positions keep their text readable on it
LABELS = 1.7  # inches beside the cells: names of layers, colour bar
CHARACTERS_PER_INCH = 14.5  # of monospace at the size of the cells
ROW = 0.27  # inches
DARK = 0.55  # probability from which on text is white
NAMES: dict[str, Any] = {"fontsize": 7.5, "family": "monospace", "parse_math": False}  # a dollar sign is no formula


def cells_for(columns: int) -> tuple[float, int]:
    """Inches and characters of a cell when so many stand side by side."""
    inches = min((WIDTH - LABELS) / columns, 0.95)
    return inches, int(inches * CHARACTERS_PER_INCH)


def draw_lens_grid(
    axes: Axes,
    best: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "stream position"],
    read: Sequence[str],
    following: Sequence[str | None],
    characters: int,
    chosen: tuple[int, int] | None = None,
    cmap: ColourMap = SEQUENTIAL,
) -> AxesImage:
    """The cells of `lens_grid`; `chosen` (stream, position) has a ring around it. Returns the image."""
    grid = numbers(probabilities)
    check_grid(best, probabilities, read, following)
    check_marks([] if chosen is None else [chosen], state=len(grid), position=len(read))
    image = axes.imshow(grid, cmap=cmap, vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest")
    for (stream, position), probability in np.ndenumerate(grid):
        piece = best[stream][position]
        hit = piece == following[position]
        axes.text(position, stream, visible(piece, characters), ha="center", va="center",
                  color=ink_on(cmap, probability, probability > DARK), weight="bold" if hit else None,
                  **NAMES)  # fmt: skip
        if hit:
            axes.add_patch(Rectangle((position - 0.44, stream - 0.4), 0.88, 0.8, fill=False, linewidth=1.7,
                                     edgecolor=CATEGORICAL[1]))  # fmt: skip
    if chosen is not None:
        axes.add_patch(Rectangle((chosen[1] - 0.5, chosen[0] - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=2.2,
                                 zorder=4, clip_on=False))  # fmt: skip
    columns = range(len(read))
    axes.set_xticks(columns, [visible(piece, characters) for piece in read], **NAMES)
    axes.set_yticks(range(len(grid)), stream_names(len(grid)), fontsize=8.5)
    axes.set_xlabel("token read", fontsize=9)
    above = axes.secondary_xaxis("top")
    names = ["?" if piece is None else visible(piece, characters) for piece in following]
    above.set_xticks(columns, names, weight="bold", **NAMES)
    above.set_xlabel("next token in the text", fontsize=9)
    for frame in (axes, above):
        frame.tick_params(length=0)
        frame.spines[:].set_visible(False)
    return image


def check_grid(
    best: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "stream position"],
    read: Sequence[str],
    following: Sequence[str | None],
) -> None:
    """ValueError unless all are of the same states and positions."""
    rows, columns = probabilities.shape
    check_labels("row of best tokens", best, state_of_the_stream=rows)
    for row in best:
        check_labels("best token", row, position=columns)
    check_labels("read token", read, position=columns)
    check_labels("following token", following, position=columns)


def lens_grid(
    best: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "stream position"],
    read: Sequence[str],
    following: Sequence[str | None],
    title: str = "",
    first: int | None = None,
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The likeliest next token in every state of the residual stream, dark where it is likely.

    A row for each state, the embedding at the bottom and the last layer on top; a column for each position, `read`
    below it and the token that follows in the text above (None where the text ends). A cell has a frame and bold text
    where its best token is the following one. Tokens are pieces of the vocabulary: "▁" and line breaks become signs.

    At most 16 positions keep their text readable: of more, those from `first` on are shown, or the last 16.
    ValueError where the sizes do not fit together or `first` leaves nothing to show.
    """
    check_grid(best, probabilities, read, following)
    rows, columns = probabilities.shape
    start = max(0, columns - COLUMNS) if first is None else first
    if not 0 <= start < columns:
        raise ValueError(f"first is {first}; there are positions 0 … {columns - 1}")
    shown = slice(start, start + COLUMNS)
    inches, characters = cells_for(len(read[shown]))
    figure, axes = new_figure(max(LABELS + inches * len(read[shown]), 4.0), 1.5 + ROW * rows, size, ax)
    cells = [row[shown] for row in best], probabilities[:, shown], read[shown], following[shown]
    image = draw_lens_grid(axes, *cells, characters, cmap=cmap)
    if len(read[shown]) < columns:
        axes.set_xlabel(f"token read: positions {start} … {start + len(read[shown]) - 1} of {columns}")
    axes.set_title(title, loc="left", parse_math=False)
    figure.colorbar(image, ax=axes, label="probability of the best token", shrink=0.9, pad=0.015, aspect=24)
    return figure
