"""Text that stands on other text."""

from matplotlib.figure import Figure
from matplotlib.text import Text


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts of a drawn figure, tick labels and legends included, whose boxes overlap."""
    shown = [each for each in figure.findobj(Text) if each.get_visible() and each.get_text().strip()]
    # A tick outside the limits has a label that is not drawn.
    hidden = {
        id(label)
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks() + axis.get_minor_ticks()
        for label in (tick.label1, tick.label2)
        if not sorted(axis.get_view_interval())[0] <= tick.get_loc() <= sorted(axis.get_view_interval())[1]
    }
    boxes = [(each.get_text(), each.get_window_extent()) for each in shown if id(each) not in hidden]
    return [(one, other) for i, (one, box) in enumerate(boxes) for other, second in boxes[:i] if box.overlaps(second)]
