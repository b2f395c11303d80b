"""What all figures share: colours that colour-blind readers and grey printers can tell apart, and one quiet layout.

A function of `viz` returns its Figure and leaves showing it to the caller: in a notebook, make it the last expression
of a cell. Figures are made here rather than by pyplot, which would keep them all and show them twice.

Three arguments mean the same wherever a figure takes them: `size` is (width, height) in inches, in place of its own;
`ax` draws into axes that are there already, and their figure is returned; `cmap` is another colour map.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from torch import Tensor

Size = tuple[int | float, int | float]
ColourMap = str | Colormap
Dash = str | tuple[int, tuple[float, ...]]

# Okabe and Ito's palette, in the order of its darkness where it matters: white text stays readable on the first four.
CATEGORICAL = ("#0072B2", "#D55E00", "#009E73", "#8F4E8B", "#E69F00", "#56B4E9")
# One line style per colour, so that curves differ without colour as well.
LINE_STYLES: tuple[Dash, ...] = (
    "solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1)),
)  # fmt: skip
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "p", "h")
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++++")
SEQUENTIAL = "Blues"  # from nothing (white) to much (dark)
DIVERGING = "RdBu"  # centre it on zero: vmin = -vmax
SIGNED = "cividis"  # for a signed quantity that must survive grey printing: lightness grows with the value

INK, MUTED, FAINT = "0.15", "0.45", "0.85"
RULES: dict[Any, Any] = {  # matplotlib's stubs list some 300 keys
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "figure.facecolor": "white",
    "figure.dpi": 100,
}


class Series(NamedTuple):
    """How one of several things in a figure is drawn, so that it is told by more than its colour."""

    colour: str
    dash: Dash
    marker: str
    hatch: str

    @property
    def line(self) -> dict[str, Any]:
        return {"color": self.colour, "linestyle": self.dash}

    @property
    def points(self) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker}

    @property
    def bars(self) -> dict[str, Any]:
        """Filled; white lines of the hatch, and no frame."""
        return {"color": self.colour, "hatch": self.hatch, "edgecolor": "white", "linewidth": 0}


def series(index: int) -> Series:
    """The look of the series at `index`, from 0. After the sixth, colours come back with other dashes, markers and
    hatches."""
    turn = index + index // len(CATEGORICAL)
    return Series(
        CATEGORICAL[index % len(CATEGORICAL)],
        LINE_STYLES[turn % len(LINE_STYLES)],
        MARKERS[index % len(MARKERS)],
        HATCHES[turn % len(HATCHES)],
    )


def numbers(values: Tensor | Iterable[Any]) -> np.ndarray:
    """As matplotlib wants them: float64 on the CPU, whatever they were; a list or a column of a table will do."""
    if isinstance(values, Tensor):
        values = values.detach().double().cpu().numpy()
    return np.asarray(values, dtype=np.float64)


def figure_grid(
    rows: int, columns: int, cell_width: float, cell_height: float, size: Size | None = None, **subplots: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) array of axes, each cell so many inches; `subplots` as in Figure.subplots.

    `size` is that of the whole figure, in place of its cells'.
    """
    with rc_context(RULES):
        figure = Figure(figsize=size or (columns * cell_width, rows * cell_height), layout="constrained")
        axes: np.ndarray = figure.subplots(rows, columns, squeeze=False, **subplots)
        return figure, axes


def new_figure(width: float, height: float, size: Size | None = None, ax: Axes | None = None) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, sized in inches; a notebook's column is about 9 wide. `size` overrules both.

    With `ax` nothing is made: it is that one, in its own figure. ValueError where its size is asked for as well.
    """
    if ax is None:
        figure, axes = figure_grid(1, 1, width, height, size)
        return figure, axes[0, 0]
    if size is not None:
        raise ValueError("size is that of a new figure; with ax=, give the size to the figure that those axes are in")
    return figure_of(ax), ax


def figure_of(axes: Axes) -> Figure:
    """The figure at the root: axes may stand in a part of one."""
    owner = axes.figure
    return owner if isinstance(owner, Figure) else owner.figure


def legend_outside(axes: Axes, ax: Axes | None, loc: str = "outside lower center", **style: Any) -> None:
    """The key outside the axes of a figure of ours; within them where they were given as `ax`: the rest is not ours."""
    if ax is None:
        style["loc"] = loc
    owner = figure_of(axes) if ax is None else axes
    owner.legend(**style | {"frameon": False})


def title_outside(axes: Axes, ax: Axes | None, title: str, **style: Any) -> None:
    """The title of a whole figure of ours; of the axes alone where they were given as `ax`."""
    if ax is None:
        figure_of(axes).suptitle(title, ha="left", **{"x": 0.01} | style)
    else:
        axes.set_title(title, loc="left", **{name: value for name, value in style.items() if name != "x"})


def ink_on(cmap: ColourMap, share: float, dark: bool | np.bool_) -> str:
    """The colour of text on a cell, white or ink: as `dark` says on our own maps, by the cell's luminance on others.

    `share` is where the cell's value stands between the ends of the map, from 0 to 1.
    """
    if cmap not in (SEQUENTIAL, DIVERGING, SIGNED):
        red, green, blue, _ = colormaps[cmap](share) if isinstance(cmap, str) else cmap(share)
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
    return "white" if dark else INK
