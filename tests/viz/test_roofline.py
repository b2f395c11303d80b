"""The roofline draws the roof, the ridge and the points that it is given, and every label can be read."""

import math

import numpy as np
import pytest
from matplotlib.transforms import Bbox

from persimmon_lab.viz.roofline import as_rate, crosses, plot_roofline
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn, lines
from tests.viz.overlaps import overlapping

BANDWIDTH, PEAK = 40e9, 400e9  # the ridge stands at 10
POINTS = {
    "decode, plain": (0.5, 8e9),
    "decode, packed": (0.5, 16e9),
    "decode, batch 8": (3.8, 70e9),
    "decode, batch 32": (14.0, 160e9),
    "prefill 128": (60.0, 200e9),
    "prefill 512, plain": (200.0, 150e9),
    "prefill 512, packed": (200.0, 360e9),
}


@pytest.mark.parametrize(
    ("value", "text"),
    [(46.8e9, "47 GB/s"), (4.3e12, "4.3 TB/s"), (999e9, "1 TB/s"), (412e9, "410 GB/s"), (0.4, "0.4 B/s")],
)
def test_rates_are_written_with_two_digits(value, text):
    assert as_rate(value, "B/s") == text


def test_the_roof_rises_with_the_bandwidth_and_ends_at_the_peak():
    (axes,) = drawn(plot_roofline(POINTS, BANDWIDTH, PEAK, title="A title")).axes
    roof, ridge = axes.get_lines()[:2]
    x, y = (np.asarray(values) for values in roof.get_data())
    assert y == pytest.approx(np.minimum(BANDWIDTH * x, PEAK))
    assert list(x[:2]) == pytest.approx([axes.get_xlim()[0], 10])
    assert x[2] == axes.get_xlim()[1]
    assert list(ridge.get_xdata()) == [10, 10]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_title(loc="left") == "A title"
    assert {"arithmetic: 400 GFLOP/s", "memory: 40 GB/s"} <= {text.get_text() for text in axes.texts}


def test_each_point_stands_where_it_was_measured_and_says_its_share_of_the_roof():
    (axes,) = drawn(plot_roofline(POINTS, BANDWIDTH, PEAK)).axes
    found = lines(axes)
    assert {name: (line.get_xdata()[0], line.get_ydata()[0]) for name, line in found.items()} == POINTS
    texts = {text.get_text(): text.xy for text in axes.texts}
    assert texts["decode, plain\n40% of the roof"] == POINTS["decode, plain"]  # 8 of 40 x 0.5
    assert texts["decode, batch 32\n40% of the roof"] == POINTS["decode, batch 32"]  # 160 of 400
    assert texts["prefill 512, packed\n90% of the roof"] == POINTS["prefill 512, packed"]


def test_points_differ_without_colour_and_keep_to_the_palette():
    points = {f"point {index}": (1.5**index, 1e9 * 2**index) for index in range(9)}
    found = lines(drawn(plot_roofline(points, BANDWIDTH, PEAK)).axes[0])
    assert len({line.get_marker() for line in found.values()}) == len(points)
    assert {line.get_color() for line in found.values()} <= set(CATEGORICAL)


@pytest.mark.parametrize(
    "points",
    [
        POINTS,
        {},
        {"8B": (1.0, 3.6e9)},
        {"far above": (1.0, 9e12), "beyond": (5000.0, 1e9)},
        {f"decode, contender {i} of nine": (0.5 + i % 2 / 2, 8e9 * 1.1**i) for i in range(9)},
        {"at the ridge": (10.0, 400e9), "$\\alpha$ too": (10.0, 390e9)},
    ],
)
def test_no_label_stands_on_another_or_outside_the_figure(points):
    figure = drawn(plot_roofline(points, BANDWIDTH, PEAK, title="Some title"))
    assert overlapping(figure) == []
    (axes,) = figure.axes
    markers = [axes.transData.transform(point) for point in points.values()]
    for text in axes.texts:
        box = text.get_window_extent()
        assert not any(box.contains(*marker) for marker in markers)
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0


def test_points_that_leave_no_room_are_named_in_a_key():
    points = {f"contender {i} at batch 1": (0.5, 8e9 * 1.01**i) for i in range(12)}
    figure = drawn(plot_roofline(points, BANDWIDTH, PEAK))
    (key,) = figure.legends
    texts = [text.get_text() for text in key.get_texts()]
    assert texts[0] == "contender 0 at batch 1: 40% of the roof"
    assert len(texts) == 12
    (axes,) = figure.axes
    assert not [text for text in axes.texts if "contender" in text.get_text()]
    # Roof, ridge, and a gap and a marker for each point: no line that led to a label.
    assert len(axes.get_lines()) == 2 + 2 * 12


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_what_a_logarithmic_axis_cannot_show_is_refused(bad):
    for points in ({"a": (1.0, bad)}, {"a": (bad, 1.0)}):
        with pytest.raises(ValueError, match="logarithmic"):
            plot_roofline(points, 1.0, 1.0)
    for machine in ((bad, 1.0), (1.0, bad)):
        with pytest.raises(ValueError, match="logarithmic"):
            plot_roofline({}, *machine)


@pytest.mark.parametrize(
    ("start", "end", "meets"),
    [
        ((-1.0, 0.5), (2.0, 0.5), True),
        ((-1.0, 2.0), (2.0, 2.0), False),
        ((0.5, -1.0), (0.5, 3.0), True),
        ((0.0, 1.5), (1.5, 0.0), True),
        ((0.0, 2.5), (2.5, 0.0), False),
        ((2.0, 0.5), (3.0, 0.5), False),
    ],
)
def test_a_line_crosses_a_box_only_where_it_passes_through(start, end, meets):
    assert crosses(Bbox.from_bounds(0, 0, 1, 1), start, end) is meets
