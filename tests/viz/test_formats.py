"""The figures of number formats draw the numbers they are given."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from persimmon_lab.viz import formats as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

FORMATS = {"wide": (1e-40, 1e-37, 3e38), "wider": (5e-324, 2e-308, 1.7e308), "narrow": (6e-8, 6.1e-5, 65504.0)}


@pytest.mark.parametrize(
    ("value", "text"),
    [(65504, "65,504"), (448.0, "448"), (0.0625, "0.0625"), (1e-8, "1e-8"), (3.389e38, "3.4e38"), (6e-8, "6e-8")],
)
def test_numbers_are_short(value, text):
    assert figures.as_power(value) == text


def test_bars_reach_from_the_smallest_to_the_largest_within_the_panel():
    above, below = drawn(figures.ranges(FORMATS)).axes
    for panel, (low, high) in ((above, figures.WHOLE), (below, figures.CLOSE)):
        expected = [
            (row, max(start, low), min(end, high), hatch)
            for row, (subnormal, normal, largest) in enumerate(FORMATS.values())
            for start, end, hatch in ((subnormal, normal, "/////"), (normal, largest, None))
            if max(start, low) < min(end, high)
        ]
        bars = [bar for bar in panel.patches if bar.get_height() == pytest.approx(0.6)]
        seen = [(bar.get_y() + 0.3, bar.get_x(), bar.get_x() + bar.get_width(), bar.get_hatch()) for bar in bars]
        assert len(seen) == len(expected)
        for one, other in zip(seen, expected, strict=True):
            assert one[:3] == pytest.approx(other[:3])
            assert one[3] == other[3]
        assert [label.get_text() for label in panel.get_yticklabels()] == list(FORMATS)
        assert panel.yaxis_inverted()
    assert [text.get_text() for text in above.texts] == ["to 3e38", "to 1.7e308", "to 65,504"]


def test_a_mark_is_a_dot_where_it_is_held_and_a_cross_where_not():
    marks = {"65,536": 65536.0, "eps": 1e-8, "half the smallest": 3e-8, "a bit more": 3.1e-8, "the last": 65504.0}
    figure = drawn(figures.ranges({"narrow": (6e-8, 6.1e-5, 65504.0)}, marks))
    below = figure.axes[1]
    points = {float(line.get_xdata()[0]): line for line in below.get_lines() if line.get_marker() in ("o", "X")}
    assert {value: line.get_marker() for value, line in points.items()} == {
        65536.0: "X", 1e-8: "X", 3e-8: "X", 3.1e-8: "o", 65504.0: "o",
    }  # fmt: skip
    assert to_hex(points[1e-8].get_color()) == CATEGORICAL[1].lower()
    assert [text.get_text() for text in below.texts] == sorted(marks, key=marks.get)


def test_neighbouring_marks_do_not_write_over_each_other():
    marks = {"AdamW's eps": 1e-8, "smallest float16": 6e-8, "16,384 (last position)": 16384.0, "256² = 65,536": 65536.0}
    figure = drawn(figures.ranges(FORMATS, marks, "A title"))
    assert figure.axes[0].get_title(loc="left") == "A title"
    assert not overlapping(figure)


def test_steps_are_drawn_up_to_the_end_of_the_format():
    magnitudes = torch.exp2(torch.arange(-4.0, 12.0))
    steps = {"one": magnitudes / 128, "other": torch.where(magnitudes < 500, magnitudes / 8, math.nan)}
    figure = drawn(figures.spacings(magnitudes, steps, {"256": 256.0, "300": 300.0}))
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.get_lines() if line.get_label() in steps}
    for name, step in steps.items():
        assert np.array_equal(lines[name].get_ydata(), step.double().numpy(), equal_nan=True)
        assert lines[name].get_drawstyle() == "steps-post"
    assert lines["one"].get_linestyle() != lines["other"].get_linestyle()
    ends = [(*line.get_xdata(), *line.get_ydata()) for line in axes.get_lines() if line.get_marker() == "X"]
    assert ends == [(256.0, 32.0)]
    assert [text.get_text() for text in axes.texts] == ["steps of 1: all integers up to here", "256", "300"]
    assert not overlapping(figure)
