"""Pictures as a model gets them: cut into patches, and with what it does at each patch drawn on the picture."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from persimmon_lab.viz.agreement import check_labels
from persimmon_lab.viz.signs import readable
from persimmon_lab.viz.style import CATEGORICAL, FAINT, INK, Size, figure_grid, numbers

GREY = "Greys"  # pictures are printed: ink is dark, whatever colour the screen would have
CELL = 1.25  # inches
WEIGHTS = "YlOrBr"
SIDE_BY_SIDE = 8  # pictures side by side


def _grey(picture: Float[Tensor, "channel height width"]) -> np.ndarray:
    """(height, width), from 0 to 1 between the picture's own darkest and brightest."""
    plane = numbers(picture).mean(axis=0)
    low, high = plane.min(), plane.max()
    return np.zeros_like(plane) if high == low else (plane - low) / (high - low)


def _framed(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT)


def picture_rows(
    pictures: Sequence[Float[Tensor, "channel height width"]],
    labels: Sequence[str],
    title: str = "",
    columns: int = SIDE_BY_SIDE,
    *,
    size: Size | None = None,
) -> Figure:
    """Pictures side by side, `columns` in a row, each with its label above; colours become grey.

    ValueError where there is not one label for each picture, or no picture.
    """
    check_labels("label", labels, picture=len(pictures))
    _require(pictures)
    rows = -(-len(pictures) // columns)
    figure, grid = figure_grid(rows, min(columns, len(pictures)), CELL, CELL + 0.3, size)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, picture, label in zip(grid.flat, pictures, labels):
        axes.imshow(_grey(picture), cmap=GREY, vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(readable(label), fontsize=8.5, parse_math=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def patches_in_a_row(
    picture: Float[Tensor, "channel height width"], patch_size: int, title: str = "", *, size: Size | None = None
) -> Figure:
    """A picture with the lines along which it is cut, and its patches in the order in which they are read.

    A bar after each row of patches stands for the token that ends it. ValueError where patches do not fill it.
    """
    plane = _grey(picture)
    height, width = plane.shape
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"patches of {patch_size} do not fill {height} x {width}; cut and draw with the same size")
    rows, columns = height // patch_size, width // patch_size
    places = rows * (columns + 1)
    figure, grid = figure_grid(
        1, places + 1, 0.55, 1.9, size or (min(9.0, 2.0 + 0.6 * places), 2.0),
        gridspec_kw={"width_ratios": [3.2, *([1.0] * columns + [0.25]) * rows]},
    )  # fmt: skip
    whole, *cells = grid[0]
    whole.imshow(plane, cmap=GREY, vmin=0, vmax=1, interpolation="nearest")
    for line in range(patch_size, height, patch_size):
        whole.axhline(line - 0.5, color=CATEGORICAL[1], linewidth=1.5)
    for line in range(patch_size, width, patch_size):
        whole.axvline(line - 0.5, color=CATEGORICAL[1], linewidth=1.5)
    for position, axes in enumerate(cells):
        row, column = divmod(position, columns + 1)
        axes.set_title(str(position), fontsize=8)
        if column == columns:
            axes.set_facecolor(CATEGORICAL[0])
            axes.set_box_aspect(6)
        else:
            top, left = row * patch_size, column * patch_size
            patch = plane[top : top + patch_size, left : left + patch_size]
            axes.imshow(patch, cmap=GREY, vmin=0, vmax=1, interpolation="nearest")
    for axes in (whole, *cells):
        _framed(axes)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def weights_on_picture(
    picture: Float[Tensor, "channel height width"],
    weights: Float[Tensor, "panel row column"],
    labels: Sequence[str],
    title: str = "",
    columns: int = SIDE_BY_SIDE,
    *,
    size: Size | None = None,
) -> Figure:
    """A number from 0 to 1 for each patch, such as the attention that it gets, as colour over the picture: a panel for
    each of several, such as heads, with the number in the patch.

    ValueError where labels and panels differ, where the patches do not fill the picture, or a weight is not in 0 … 1.
    """
    values = numbers(weights)
    check_labels("label", labels, panel=len(values))
    plane = _grey(picture)
    height, width = plane.shape
    panels, down, across = values.shape
    if not panels or height % down or width % across:
        raise ValueError(f"{down} x {across} patches do not fill a picture of {height} x {width}")
    if values.min() < 0 or values.max() > 1 + 1e-6:
        raise ValueError(f"weights are {values.min():.3g} to {values.max():.3g}; a share is from 0 to 1")
    rows = -(-panels // columns)
    figure, grid = figure_grid(rows, min(columns, panels), CELL, CELL + 0.3, size)
    for axes in grid.flat:
        axes.set_axis_off()
    tall, wide = height // down, width // across
    for axes, panel, label in zip(grid.flat, values, labels):
        axes.imshow(plane, cmap=GREY, vmin=0, vmax=1, interpolation="nearest")
        for (row, column), value in np.ndenumerate(panel):
            colour = colormaps[WEIGHTS](value)
            corner = (column * wide - 0.5, row * tall - 0.5)
            axes.add_patch(Rectangle(corner, wide, tall, color=colour, alpha=0.62, linewidth=0))
            axes.text(corner[0] + wide / 2, corner[1] + tall / 2, f"{value:.2f}", ha="center", va="center",
                      fontsize=7.5, color=INK, bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.8,
                      "linewidth": 0})  # fmt: skip
        axes.set_title(readable(label), fontsize=8.5, parse_math=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _require(pictures: Sequence[object]) -> None:
    if not pictures:
        raise ValueError("there are no pictures to draw; give at least one")
