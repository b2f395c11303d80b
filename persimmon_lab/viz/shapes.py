"""Shapes to look at: the way of a tensor through a model, each stop drawn to scale with its axes named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from persimmon_lab.viz.agreement import check_names
from persimmon_lab.viz.layouts import COLOURS, PLAIN, draw_block, draw_fused, parts
from persimmon_lab.viz.style import INK, MUTED, RULES

WIDTH = 9.0  # inches, as are all lengths here: a notebook's column
STREAM_X, BRANCH_X, TEXT_X = 0.7, 3.3, 5.3  # middle of the residual stream, of the branch; where the text begins
WIDEST, NARROWEST, TALLEST = 3.7, 0.04, 0.36  # a drawn tensor, by its last axis and its axis before
PITCH, TOP, BOTTOM = 0.76, 0.62, 0.1  # from row to row, and above and below them
GAP, TILE_GAP, MANY = 0.2, 0.03, 16  # between tensors side by side, and between the heads of one; heads drawn at most

STREAM = "0.72"


@dataclass(frozen=True)
class Stop:
    """A tensor on its way. `axes` are einops names, of which one in parentheses is several in one: "(head channel)".

    `sources` are the names of the stops that it is made from and `how` says how; `kind` colours a query, key or value;
    `on_stream` places it on the residual stream.
    """

    name: str
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    sources: tuple[str, ...] = ()
    how: str = ""
    kind: str = ""
    on_stream: bool = False

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.sizes):
            raise ValueError(f"{self.name} has the axes {self.axes} but the sizes {self.sizes}; name every axis once")


def axis_lengths(stops: Sequence[Stop]) -> dict[str, int]:
    """How long each named axis is, those inside parentheses too, as far as the stops tell.

    What no stop has for an axis of its own is worked out by division. Raises ValueError where two stops disagree.
    """
    lengths: dict[str, int] = {}
    known = [(stop, parts(axis), size) for stop in stops for axis, size in zip(stop.axes, stop.sizes)]
    for stop, names, size in sorted(known, key=lambda entry: len(entry[1])):
        missing = [name for name in names if name not in lengths]
        if len(missing) > 1:
            continue
        rest = prod(lengths.get(name, 1) for name in names)
        if missing:
            lengths[missing[0]] = size // rest
        if prod(lengths[name] for name in names) != size:
            product = " × ".join(f"{name} {lengths[name]}" for name in names)
            raise ValueError(f"{stop.name} has {size} where the other stops make it {product}")
    return lengths


def in_full_words(stop: Stop, lengths: Mapping[str, int]) -> str:
    """The shape to read: "batch 1 · position 28 · head 8 × three 3 × channel 32"."""
    named = (
        " × ".join(f"{name} {lengths[name]}" if name in lengths else name for name in parts(axis))
        if len(parts(axis)) > 1
        else f"{axis} {size}"
        for axis, size in zip(stop.axes, stop.sizes)
    )
    return " · ".join(named)


@dataclass(frozen=True)
class _Place:
    """Where a stop is drawn: its row, its middle and its size, in so many tiles."""

    row: int
    x: float
    y: float
    tile: float  # the width of one
    height: float
    tiles: int

    @property
    def width(self) -> float:
        return self.tiles * self.tile + (self.tiles - 1) * TILE_GAP

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2


def shape_flow(rows: Sequence[Sequence[Stop]], title: str = "") -> Figure:
    """The stops from top to bottom, those of one row side by side, with arrows from what each is made from.

    Widths are to scale along the last axis and heights along the one before; heads stand next to each other. The
    stripes of a fused axis show whose channels lie where. Of many heads the first few are drawn, and the text says how
    many there are. ValueError for a stop that is made from none of them.
    """
    stops = [stop for row in rows for stop in row]
    for stop in stops:
        check_names("source", stop.sources, [other.name for other in stops])
    lengths = axis_lengths(stops)
    height = TOP + PITCH * len(rows) + BOTTOM
    with rc_context(RULES):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    places = _places(rows)
    stream = [places[stop.name] for stop in stops if stop.on_stream]
    if stream:
        ends = [stream[0].y, stream[-1].y + PITCH / 2]
        axes.plot([STREAM_X, STREAM_X], ends, color=STREAM, linewidth=6, solid_capstyle="butt", zorder=0)
        axes.text(STREAM_X, stream[0].top - 0.06, "residual stream", fontsize=8.5, ha="center", va="bottom", color=INK)
    for stop in stops:
        for source in stop.sources:
            _draw_arrow(axes, places[source], places[stop.name], from_stream=places[source] in stream,
                        to_stream=stop.on_stream)  # fmt: skip
    for row in rows:
        for stop in row:
            _draw_stop(axes, stop, places[stop.name], lengths)
        _draw_text(axes, row, places[row[0].name].y, lengths)
    axes.text(0.15, 0.22, title, fontsize=11.5, va="center", color=INK)
    return figure


def _places(rows: Sequence[Sequence[Stop]]) -> dict[str, _Place]:
    stops = [stop for row in rows for stop in row]
    across = min(_scale(row) for row in rows)
    down = TALLEST / max(stop.sizes[-2] for stop in stops)
    places = {}
    for index, row in enumerate(rows):
        y, side_by_side = TOP + PITCH * (index + 0.5), []
        for stop in row:
            width, height = max(stop.sizes[-1] * across, NARROWEST), max(stop.sizes[-2] * down, NARROWEST)
            side_by_side.append(_Place(index, STREAM_X, y, width, height, _tiles(stop)))
        left = BRANCH_X - (sum(place.width for place in side_by_side) + GAP * (len(row) - 1)) / 2
        for stop, place in zip(row, side_by_side):
            places[stop.name] = place if stop.on_stream else replace(place, x=left + place.width / 2)
            left += place.width + GAP
    return places


def _tiles(stop: Stop) -> int:
    return min(MANY, stop.sizes[-3]) if len(stop.sizes) > 3 else 1


def _scale(row: Sequence[Stop]) -> float:
    """Inches for one step along the last axis that let a row fill the branch."""
    gaps = GAP * (len(row) - 1) + TILE_GAP * sum(_tiles(stop) - 1 for stop in row)
    return (WIDEST - gaps) / sum(_tiles(stop) * stop.sizes[-1] for stop in row)


def _draw_arrow(axes: Axes, start: _Place, end: _Place, from_stream: bool, to_stream: bool) -> None:
    if from_stream and to_stream:
        return  # the stream itself
    begin, stop, style = (start.x, start.bottom), (end.x, end.top), "arc3"
    if to_stream:  # down and across: what is added; it arrives above the middle, what is read leaves below
        stop, style = (end.left + end.width, end.y - end.height / 4), "angle,angleA=90,angleB=0,rad=4"
    elif from_stream:  # across and down
        begin, style = (start.left + start.width, start.y + start.height / 4), "angle,angleA=0,angleB=90,rad=4"
    elif end.row - start.row > 1:  # past what lies between
        stop, style = (end.left + end.width, end.y), "angle,angleA=90,angleB=0,rad=4"
    axes.add_patch(FancyArrowPatch(begin, stop, arrowstyle="-|>", mutation_scale=9, linewidth=1.1, color=MUTED,
                                   shrinkA=0, shrinkB=1, connectionstyle=style, zorder=1))  # fmt: skip


def _draw_stop(axes: Axes, stop: Stop, place: _Place, lengths: Mapping[str, int]) -> None:
    names = parts(stop.axes[-1])
    for tile in range(place.tiles):
        left = place.left + tile * (place.tile + TILE_GAP)
        if len(names) > 1:
            draw_fused(axes, left, place.top, place.tile, place.height, {name: lengths[name] for name in names})
            continue
        draw_block(axes, left, place.top, place.tile, place.height, stop.kind, STREAM if stop.on_stream else PLAIN)
        axes.add_patch(Rectangle((left, place.top), place.tile, place.height, fill=False, edgecolor=INK, linewidth=0.8,
                                 zorder=4))  # fmt: skip
    if stop.kind:
        # At the outer end, because the arrows come in from the middle.
        side, x = ("right", place.left + place.width) if place.x > BRANCH_X else ("left", place.left)
        axes.text(x, place.top - 0.03, stop.kind, fontsize=8.5, color=COLOURS[stop.kind], ha=side, va="bottom")
    if stop.on_stream and len(stop.sources) > 1:
        axes.text(place.x, place.y, "+", fontsize=15, color=INK, ha="center", va="center_baseline", zorder=5)


def _draw_text(axes: Axes, row: Sequence[Stop], y: float, lengths: Mapping[str, int]) -> None:
    first, *others = (stop.name for stop in row)
    names = ", ".join([first, *(name.rpartition(".")[2] for name in others)])
    shapes = ", ".join(dict.fromkeys(in_full_words(stop, lengths) for stop in row))
    style: dict[str, Any] = {"fontsize": 8.5, "va": "center", "parse_math": False}
    axes.text(TEXT_X, y - 0.19, names, family="monospace", weight="bold", color=INK, **style)
    axes.text(TEXT_X, y, shapes, color=INK, **style)
    axes.text(TEXT_X, y + 0.19, row[0].how, color=MUTED, fontstyle="italic", **style)
