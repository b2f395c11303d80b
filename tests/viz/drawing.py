"""What the tests of figures share: drawing them, and reading their lines."""

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def drawn(figure: Figure) -> Figure:
    """The figure drawn for real: layout and text are only worked out then."""
    FigureCanvasAgg(figure).draw()
    return figure


def lines(axes: Axes) -> dict[str, Line2D]:
    """The lines of a plot that have a name."""
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}
