"""The roofline draws the roof, the ridge and the points that it is given, and every label can be read."""

import math
import random

import numpy as np
import pytest

from persimmon_lab.viz.point_labels import Box, crosses, grown
from persimmon_lab.viz.roofline import as_rate, plot_roofline
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


def scattered(count, seed=0):
    """Points anywhere under the roof."""
    draw, points = random.Random(seed), {}
    for index in range(count):
        intensity = 10 ** draw.uniform(-0.3, 3.3)
        points[f"decode, batch {index}"] = (intensity, min(BANDWIDTH * intensity, PEAK) * draw.uniform(0.3, 0.95))
    return points


MEASURED = {  # a model of 0.1 billion weights on two cores, bandwidth 28 GB/s and peak 450 GFLOP/s
    "decode, batch 1": (1.0, 21e9),
    "decode, batch 8": (7.8, 140e9),
    "decode, batch 32": (29.0, 230e9),
    "prompt of 128": (106.0, 280e9),
    "prompt of 512": (438.0, 309e9),
    "prompt of 2048": (1962.0, 300e9),
}


@pytest.mark.parametrize("dpi", [72, 120])
@pytest.mark.parametrize(
    ("points", "bandwidth", "peak", "beside"),
    [
        (MEASURED, 28e9, 450e9, True),
        (POINTS, BANDWIDTH, PEAK, True),
        (scattered(5), BANDWIDTH, PEAK, True),
        (scattered(10), BANDWIDTH, PEAK, False),
        (scattered(20), BANDWIDTH, PEAK, False),
        ({"slow": (0.01, 1e8)}, BANDWIDTH, PEAK, True),
    ],
)
def test_neither_a_label_nor_what_leads_to_it_touches_anything_at_any_resolution(points, bandwidth, peak, beside, dpi):
    figure = plot_roofline(points, bandwidth, peak)
    figure.set_dpi(dpi)
    drawn(figure)
    assert overlapping(figure) == []
    assert beside is not bool(figure.legends)
    (axes,) = figure.axes
    boxes = {text: Box(*text.get_window_extent().extents.tolist()) for text in axes.texts}
    roof = axes.get_lines()[0]
    leads = [axes.transData.transform(line.get_xydata()).tolist() for line in axes.get_lines()[2 + 2 * len(points) :]]
    slope = [axes.transData.transform(line).tolist() for line in (roof.get_xydata()[:2], roof.get_xydata()[1:])]
    for text, box in boxes.items():
        inner = grown(box, -1.0)  # a lead ends at the edge of its label
        lines_near = [*leads, *slope] if text.get_text().endswith("of the roof") else leads
        assert not any(crosses(inner, *map(tuple, line)) for line in lines_near), text.get_text()
        assert axes.bbox.x0 <= box.left and box.right <= axes.bbox.x1
        assert axes.bbox.y0 <= box.bottom and box.top <= axes.bbox.y1


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
