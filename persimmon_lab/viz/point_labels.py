"""Labels beside the points of a plot, clear of each other, of points and of lines; thin lines lead to far ones."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from persimmon_lab.viz.style import INK, MUTED, figure_of

EDGE = 3.0  # pixels between a label and another text or the edge of the axes
REACH = 8  # how far a label may go from its point: so many steps of half its height

Place = tuple[float, float]
Line = tuple[Place, Place]


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float


class Spot(NamedTuple):
    """Where a label may stand, which way its lines are aligned, and what leads to it if it stands far off."""

    box: Box
    alignment: str
    lead: Line | None


def grown(box: Box, by: float) -> Box:
    return Box(box.left - by, box.bottom - by, box.right + by, box.top + by)


def overlap(one: Box, other: Box) -> bool:
    across = one.left < other.right and other.left < one.right
    return across and one.bottom < other.top and other.bottom < one.top


def label_points(
    axes: Axes, points: Mapping[str, Place], labels: Mapping[str, str], lines: Sequence[Line], walls: Sequence[Line],
    marker: float,
) -> bool:  # fmt: skip
    """Write each point's label beside it, clear of every text, point and line; False, and none, where one has no place.

    `lines` and `walls` are in the data's numbers. A label stands on neither; what leads to it crosses no wall.
    `marker` is the points' size, in points.

    Places are found in pixels of the figure as it is laid out now, so nothing may move afterwards. They are kept in
    points, so that a picture of any resolution has them.
    """
    figure = figure_of(axes)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    scale = figure.dpi / 72
    half = 0.5 * marker * scale + 1
    inside = grown(Box(*map(float, axes.bbox.extents)), -EDGE)
    texts = [grown(Box(*map(float, text.get_window_extent().extents)), EDGE) for text in axes.texts]
    lines = [_in_pixels(axes, line) for line in lines]
    walls = [_in_pixels(axes, wall) for wall in walls]
    centres = {name: _pixel(axes, point) for name, point in points.items()}
    marks = {name: grown(Box(*centre, *centre), half) for name, centre in centres.items()}
    written: dict[str, Annotation] = {}
    spots: dict[str, list[Spot]] = {}
    for name, centre in centres.items():
        label = axes.annotate(labels[name], points[name], (0, 0), fontsize=9, textcoords="offset points", va="bottom",
                              linespacing=1.25, parse_math=False, color=INK, zorder=5)  # fmt: skip
        written[name] = label
        size = label.get_window_extent(canvas.get_renderer())
        # Clear of its own point, and clearly away from the others, or it would seem to be theirs.
        obstacles = [*texts, *(grown(mark, half) for other, mark in marks.items() if other != name)]
        spots[name] = [
            spot
            for spot in spots_around(centre, float(size.width), float(size.height), half + 5 * scale, half + 7 * scale)
            if spot.box.left >= inside.left and spot.box.right <= inside.right
            and spot.box.bottom >= inside.bottom and spot.box.top <= inside.top
            and not any(overlap(spot.box, obstacle) for obstacle in [*obstacles, marks[name]])
            and not any(crosses(grown(spot.box, 2.0), *line) for line in [*lines, *walls])
            and not (spot.lead and any(crosses(obstacle, *spot.lead) for obstacle in obstacles))
            and not (spot.lead and any(meet(*spot.lead, *wall) for wall in walls))
        ]  # fmt: skip
    # From the top down, so that of points above each other the upper keep the upper places.
    places = arranged(spots, sorted(points, key=lambda name: -points[name][1]))
    if places is None:
        for label in written.values():
            label.remove()
        return False
    for name, spot in places.items():
        offset = [(corner - centre) / scale for corner, centre in zip(spot.box, centres[name])]
        written[name].set(position=offset, multialignment=spot.alignment)
        if spot.lead:
            across, up = zip(*axes.transData.inverted().transform(spot.lead).tolist())
            axes.plot(across, up, color=MUTED, linewidth=0.7, zorder=2)
    return True


def _pixel(axes: Axes, point: Place) -> Place:
    x, y = axes.transData.transform(point).tolist()
    return x, y


def _in_pixels(axes: Axes, line: Line) -> Line:
    start, end = line
    return _pixel(axes, start), _pixel(axes, end)


def spots_around(point: Place, width: float, height: float, gap: float, near: float) -> Iterator[Spot]:
    """The places for a label, nearest first: right of the point, left, below, above, and then the same further away."""
    step = 0.5 * height
    corners = []
    for out in range(REACH + 1):
        away = gap + out * step
        for up in (sign * rise * step for rise in range(REACH + 1) for sign in (-1, 1)):
            corners += [(away, up - step, "left"), (-away - width, up - step, "right")]
        for up in (-away - height, away):
            corners += [(-0.5 * width, up, "center"), (0.0, up, "left"), (-width, up, "right")]

    def distance(corner: tuple[float, float, str]) -> int:
        return round(math.hypot(max(corner[0], 0, -corner[0] - width), max(corner[1], 0, -corner[1] - height)))

    for across, up, alignment in sorted(dict.fromkeys(corners), key=distance):
        left, bottom = point[0] + across, point[1] + up
        box = Box(left, bottom, left + width, bottom + height)
        edge = (min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top))
        yield Spot(box, alignment, (edge, point) if math.dist(edge, point) > near else None)


def arranged(spots: Mapping[str, Sequence[Spot]], order: Sequence[str]) -> dict[str, Spot] | None:
    """One spot for each, none in the way of another. Who finds none comes first in the next round; None if that fails.

    Not the best arrangement, which takes a search, but one that can be read.
    """
    for _ in range(2 * len(order) + 1):
        taken: dict[str, Spot] = {}
        for name in order:
            free = (spot for spot in spots[name] if not any(disturb(spot, other) for other in taken.values()))
            spot = next(free, None)
            if spot is None:
                order = [name, *(other for other in order if other != name)]
                break
            taken[name] = spot
        else:
            return taken
    return None


def disturb(one: Spot, other: Spot) -> bool:
    """Whether two labels, with what leads to them, stand on or cross each other."""
    if overlap(grown(one.box, EDGE), other.box):
        return True
    pairs = ((one, other.box), (other, one.box))
    if any(spot.lead and crosses(grown(box, EDGE), *spot.lead) for spot, box in pairs):
        return True
    return bool(one.lead and other.lead and meet(*one.lead, *other.lead))


def crosses(box: Box, start: Place, end: Place) -> bool:
    """Whether the straight line from start to end passes through the box: clipped to it, something is left."""
    low, high = 0.0, 1.0
    for begin, stop, least, most in zip(start, end, box[:2], box[2:]):
        step = stop - begin
        if step == 0:
            if not least <= begin <= most:
                return False
            continue
        first, last = sorted(((least - begin) / step, (most - begin) / step))
        low, high = max(low, first), min(high, last)
    return low <= high


def meet(start: Place, end: Place, first: Place, last: Place) -> bool:
    """Whether two straight lines cross: each has the ends of the other on both its sides."""

    def side(one: Place, other: Place, point: Place) -> float:
        return (other[0] - one[0]) * (point[1] - one[1]) - (other[1] - one[1]) * (point[0] - one[0])

    apart = side(start, end, first) * side(start, end, last) < 0
    return apart and side(first, last, start) * side(first, last, end) < 0
