"""The forest plot puts each score where it is, and tells those that stand above the floors from those that do not."""

from types import SimpleNamespace

import pytest

from persimmon_lab import viz
from persimmon_lab.evaluation.report import Score
from tests.viz.drawing import drawn

LOW = Score("sums", "generated", 4, 20, 0.08, 0.42, 0.1, 0.2, 1.0)
HIGH = Score("copying", "generated", 18, 20, 0.7, 0.97, 0.05, 0.15, 0.95)


def points(axes):
    """(share, height, filled) of every score that is drawn."""
    found = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() != "white") for line in found]


def segments(axes):
    """The ends of every line that was drawn by its ends, flat or upright."""
    return [tuple(map(tuple, path)) for lines in axes.collections for path in lines.get_segments()]


def test_a_score_stands_at_its_share_and_is_filled_where_it_beats_both_floors():
    axes = drawn(viz.forest_plot({"mini": [LOW, HIGH]}, ["sums", "copying"])).axes[0]
    assert points(axes) == [(0.2, 0, False), (0.9, 1, True)]
    between = SimpleNamespace(**vars(LOW) | {"low": 0.15, "high": 0.5})  # its end above chance, below the 5-gram
    between.share, between.five_gram = 0.3, 0.2
    assert [filled for *_, filled in points(viz.forest_plot({"": [between]}, ["sums"]).axes[0])] == [False]


def test_intervals_floors_and_ceilings_are_where_they_are():
    drawn_lines = segments(viz.forest_plot({"mini": [LOW, HIGH]}, ["sums", "copying"]).axes[0])
    assert ((0.08, 0), (0.42, 0)) in drawn_lines and ((0.7, 1), (0.97, 1)) in drawn_lines
    upright = [start[0] for start, end in drawn_lines if start[0] == end[0]]
    assert upright == [0.1, 0.2, 1.0, 0.05, 0.15, 0.95]


def test_the_band_reaches_from_the_higher_floor_to_the_ceiling():
    bands = viz.forest_plot({"mini": [LOW, HIGH]}, ["sums", "copying"]).axes[0].patches
    assert [(band.get_x(), band.get_x() + band.get_width()) for band in bands] == [
        (0.2, pytest.approx(1.0)),
        (0.15, pytest.approx(0.95)),
    ]


def test_several_series_share_a_row_without_covering_each_other():
    axes = viz.forest_plot({"one": [LOW], "other": [HIGH], "third": [LOW]}, ["sums"]).axes[0]
    heights = [height for _, height, _ in points(axes)]
    assert heights == sorted(set(heights)) and max(map(abs, heights)) < 0.5
    named = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert named == ["one", "other", "third", "chance", "5-gram", "oracle"]
    assert [text.get_text() for text in axes.texts] == ["20%", "90%", "20%"]


def test_nothing_to_draw_and_too_few_scores_are_refused(unchecked_annotations):
    with pytest.raises(ValueError, match="no scores to draw"):
        viz.forest_plot({}, ["sums"])
    with pytest.raises(ValueError, match="no scores to draw"):
        viz.forest_plot({"mini": []}, [])
    with pytest.raises(ValueError, match="'mini' has 1 number for 2 rows"):
        viz.forest_plot({"mini": [LOW]}, ["sums", "copying"])
