"""What all figures share: colours that colour-blind readers and grey printers can tell apart, and one quiet layout.

A function of `viz` returns its Figure and leaves showing it to the caller: in a notebook, make it the last expression
of a cell. Figures are made here rather than by pyplot, which would keep them all and show them twice.
"""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, in the order of its darkness where it matters: white text stays readable on the first four.
CATEGORICAL = ("#0072B2", "#D55E00", "#009E73", "#8F4E8B", "#E69F00", "#56B4E9")
# One line style per colour, so that curves differ without colour as well.
LINE_STYLES = ("solid", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1)))
SEQUENTIAL = "Blues"  # from nothing (white) to much (dark)
DIVERGING = "RdBu"  # centre it on zero: vmin = -vmax
SIGNED = "cividis"  # for a signed quantity that must survive grey printing: lightness grows with the value

INK, MUTED, FAINT = "0.15", "0.45", "0.85"
RULES = {
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


def figure_grid(
    rows: int, columns: int, cell_width: float, cell_height: float, **subplots: object
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) array of axes, each cell so many inches; `subplots` as in Figure.subplots."""
    with rc_context(RULES):
        figure = Figure(figsize=(columns * cell_width, rows * cell_height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False, **subplots)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, sized in inches; a notebook's column is about 9 wide."""
    figure, axes = figure_grid(1, 1, width, height)
    return figure, axes[0, 0]
