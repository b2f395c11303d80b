"""The figures of notebook 11 about fine-tuning draw the numbers they are given, and no text covers another."""

import math

import pytest
import torch
from matplotlib.colors import to_hex

from persimmon_lab.viz import divergence as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn

LOSSES = {"float32": [2.0, 1.5, 1.0, 0.5], "float16": [2.0, math.nan], "later": [2.0, 3.0, math.nan]}


def overlapping(figure):
    """Pairs of texts that touch, over all axes."""
    texts = [text for axes in figure.axes for text in axes.texts + [axes.title, axes._left_title]]
    boxes = [(t.get_text(), t.get_window_extent()) for t in [*texts, *figure.texts] if t.get_text()]
    return [(a, b) for i, (a, box) in enumerate(boxes) for b, other in boxes[:i] if box.overlaps(other)]


def inside(figure):
    """Whether every text lies within the figure."""
    texts = [text for axes in figure.axes for text in axes.texts if text.get_text()]
    return all(figure.bbox.contains(*corner) for text in texts for corner in text.get_window_extent().corners())


def test_losses_stand_in_a_panel_each_over_the_reference():
    figure = drawn(figures.loss_by_step(LOSSES, "float32", {"float16": "division by zero"}, "A title"))
    panels = figure.axes[: len(LOSSES)]
    for panel, (name, curve) in zip(panels, LOSSES.items(), strict=True):
        assert panel.get_title(loc="left") == name
        behind, own = panel.get_lines()[:2]
        assert list(behind.get_ydata()) == LOSSES["float32"]
        assert list(own.get_ydata()) == [loss for loss in curve if math.isfinite(loss)]
        assert list(own.get_xdata()) == list(range(1, 1 + len(own.get_ydata())))
        assert behind.get_linestyle() != own.get_linestyle()
    assert len(figure.axes) == figures.COLUMNS and not figure.axes[3].axison
    assert not overlapping(figure)


def test_a_run_that_ends_in_nan_has_a_cross_where_it_was_last_seen_and_a_reason():
    figure = drawn(figures.loss_by_step(LOSSES, "float32", {"float16": "division by zero"}))
    healthy, divided, later = figure.axes[:3]
    assert [len(panel.get_lines()) for panel in (healthy, divided, later)] == [2, 3, 3]
    assert [tuple(panel.lines[2].get_xydata()[0]) for panel in (divided, later)] == [(1, 2), (2, 3)]
    assert to_hex(later.lines[2].get_color()) == CATEGORICAL[1].lower()
    assert [panel.texts[0].get_text() for panel in (healthy, divided, later)] == [
        "0.50 at the end",
        "nan at step 2\ndivision by zero",
        "nan at step 3",
    ]
    (grey,) = later.patches
    assert grey.get_x() == 2.5 and not healthy.patches


def test_shares_are_bars_with_their_percentage():
    shares = {"one": {"a": 0.811, "b": 0.0}, "two": {"a": 0.011, "b": math.nan}, "three": {"a": 0.0001, "b": 1.0}}
    figure = drawn(figures.lost_shares(shares, "A title"))
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [0.811, 0.011, 0.0001]
    assert [bar.get_width() for bar in right.patches] == [0, 0, 1]
    assert [text.get_text() for text in left.texts] == ["81%", "1.1%", "<0.1%"]
    assert [text.get_text() for text in right.texts] == ["0", "", "100%"]
    assert [label.get_text() for label in left.get_yticklabels()] == ["one", "two", "three"]
    assert left.yaxis_inverted()  # the first row on top
    assert not overlapping(figure)


def test_gradients_are_counted_by_powers_of_two_and_by_edges():
    values = torch.tensor([0.0, 2.0**-30, 1.5 * 2.0**-10, -(2.0**-10), 2.0**-2, 2.0**14])
    figure = drawn(figures.gradient_sizes({"as they are": values, "scaled": values * 4},
                                          {"gone": 2.0**-25, "moment gone": 2.0**-8}, {"inf": 2.0**13}))  # fmt: skip
    above, below = figure.axes
    heights = {round(bar.get_x()): bar.get_height() for bar in above.patches if bar.get_height() < 1}
    assert {power: height for power, height in heights.items() if height} == pytest.approx(
        {-30: 0.2, -10: 0.4, -2: 0.2, 14: 0.2}
    )
    assert [text.get_text() for text in above.texts] == ["gone\n20% below", "moment gone\n60% below", "inf\n20% above"]
    assert [text.get_text() for text in below.texts] == ["gone\n20% below", "moment gone\n20% below", "inf\n20% above"]
    assert above.get_title(loc="left") == "as they are (besides 17% that are 0)"
    assert [line.get_xdata()[0] for line in above.get_lines()] == [-25, -8, 13]
    assert not overlapping(figure) and inside(figure)


def test_edges_are_named_on_the_side_that_is_lost():
    floors, ceilings = {"gradient is 0": 2.0**-25, "second moment is 0": 2.0**-8}, {"second moment is inf": 2.0**13}
    (axes,) = drawn(figures.gradient_sizes({"a": torch.ones(3)}, floors, ceilings)).axes
    places = [axes.transData.transform((line.get_xdata()[0], 0))[0] for line in axes.get_lines()]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert boxes[0].x1 < places[0] < boxes[1].x0 < boxes[1].x1 < places[1] < places[2] < boxes[2].x0
    assert axes.bbox.x0 < boxes[0].x0 and boxes[2].x1 < axes.bbox.x1


def test_on_a_floor_a_gradient_survives_and_on_a_ceiling_it_does_not():
    figure = drawn(figures.gradient_sizes({"a": torch.tensor([1.0, 2.0])}, {"low": 1.0}, {"high": 2.0}))
    assert [text.get_text() for text in figure.axes[0].texts] == ["low\n0 below", "high\n50% above"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0004, "<0.1%"), (0.0113, "1.1%"), (0.57, "57%"), (0.9968, "99.7%"), (1.0, "100%")],
)
def test_shares_in_words(value, text):
    assert figures.as_share(value) == text
