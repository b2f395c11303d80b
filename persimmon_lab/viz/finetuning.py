"""What fine-tuning did: where the weights moved, and what a classifier takes for what."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_labels
from persimmon_lab.viz.style import SEQUENTIAL, ColourMap, Size, ink_on, new_figure, numbers

DARK = 0.6  # of the colour scale, from where on a number is white


def moved_by_layer(
    moved: Mapping[str, Sequence[float]],
    title: str = "",
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """How far each part of each layer moved, as a share of its own length: `moved[part][layer]`.

    Parts are rows, layers columns; dark = far. ValueError where parts have not as many layers.
    """
    check_curves("layer", next(iter(moved.values())), moved)
    table = np.array([list(shares) for shares in moved.values()], dtype=float)
    figure, axes = new_figure(9.0, 1.4 + 0.45 * len(table), size, ax)
    _cells(axes, table, [[f"{share:.2g}%" if share else "0" for share in 100 * row] for row in table], cmap)
    axes.set_yticks(range(len(moved)), list(moved))
    axes.set_xticks(range(table.shape[1]))
    axes.set_xlabel("layer")
    axes.set_title(title, loc="left")
    return figure


def confusion_matrix(
    confusion: Integer[Tensor, "true said"],
    labels: Sequence[str],
    title: str = "",
    *,
    cmap: ColourMap = SEQUENTIAL,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Counts of texts by what they are (downwards) and what was said (across); a row is coloured by its shares.

    ValueError unless there is a label for each row and each column.
    """
    check_labels("label", labels, row=confusion.shape[0], column=confusion.shape[1])
    counts = numbers(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(2.4 + 0.75 * len(labels), 1.9 + 0.5 * len(labels), size, ax)
    _cells(axes, shares, [[f"{count:.0f}" for count in row] for row in counts], cmap, top=1.0)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel("said")
    axes.set_ylabel("is")
    axes.set_title(title, loc="left")
    return figure


def _cells(
    axes: Axes, values: np.ndarray, texts: Sequence[Sequence[str]], cmap: ColourMap, top: float | None = None
) -> None:
    """Coloured cells with their texts, the colours from 0 to `top`, or to the largest value."""
    top = float(values.max()) or 1.0 if top is None else top
    axes.imshow(values, cmap=cmap, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    for (row, column), value in np.ndenumerate(values):
        colour = ink_on(cmap, value / top, value > DARK * top)
        axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=9, color=colour)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
