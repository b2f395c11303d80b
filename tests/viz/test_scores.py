"""The figures of notebook 05 draw the numbers they are given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from persimmon_lab.viz import scores as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn, lines
from tests.viz.overlaps import overlapping

BLUE, ORANGE = (colour.lower() for colour in CATEGORICAL[:2])
GAINS = (0.25, 0.5, 1.0, 2.0)
CURVES = {"with the norm": torch.tensor([1.0, 1.0, 1.0, 1.0]), "without the norm": torch.tensor([3.0, 2.0, 0.5, 0.1])}
TOKENS = ["a", "$b", "<script>", "⏎"]


def filled(axes):
    """The bars of a histogram: (left, right, height) where there is something."""
    return [(bar.get_x(), bar.get_x() + bar.get_width(), bar.get_height()) for bar in axes.patches if bar.get_height()]


def dashed_uprights(axes):
    return sorted(line.get_xdata()[0] for line in axes.get_lines() if list(line.get_ydata()) == [0, 1])


@pytest.fixture
def histograms():
    generator = torch.Generator().manual_seed(0)
    raw = 30 * torch.randn(5, 400, generator=generator)
    normed = 3 * torch.randn(5, 400, generator=generator)
    raw[1, 0], normed[1, 0] = -200.0, 11.0
    bounds = torch.tensor([12.0, 13.0, 14.0, 15.0, 16.0])
    return raw, normed, bounds, drawn(figures.score_histograms(raw, normed, bounds, "A title"))


def test_every_layer_shows_all_its_scores_of_both_kinds(histograms):
    raw, normed, _, figure = histograms
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == 5
    for axes, before, after in zip(panels, raw, normed, strict=True):
        bars = [bar for bar in axes.patches if hasattr(bar, "get_height")]
        (outline,) = [patch for patch in axes.patches if not hasattr(patch, "get_height")]
        assert {to_hex(bar.get_facecolor()) for bar in bars} == {BLUE}
        assert to_hex(outline.get_edgecolor()) == ORANGE and not outline.get_fill()
        edges = [bar.get_x() for bar in bars] + [bars[-1].get_x() + bars[-1].get_width()]
        assert [bar.get_height() for bar in bars] == np.histogram(after.double().numpy(), edges)[0].tolist()
        assert sum(bar.get_height() for bar in bars) == 400
        steps = outline.get_xy()
        heights = np.histogram(before.double().numpy(), edges)[0]
        assert steps[1:-1:2, 1] == pytest.approx(heights)
        assert heights.sum() == 400


def test_the_bound_stands_on_both_sides_and_the_largest_are_named(histograms):
    _, _, bounds, figure = histograms
    for axes, bound in zip(figure.axes, bounds.tolist()):
        assert dashed_uprights(axes) == [-bound, bound]
    assert figure.axes[1].get_title(loc="left") == "layer 1: 200 → 11"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "with the norm", "without", "bound from the norm's weights"
    ]  # fmt: skip
    assert figure.get_suptitle() == "A title"
    assert overlapping(figure) == []


def test_scores_stand_beside_their_bound():
    bounds, reachable, seen = torch.tensor([10.0, 20.0]), torch.tensor([9.0, 19.0]), torch.tensor([5.0, 16.0])
    figure = drawn(figures.bound_by_layer(bounds, reachable, seen, plain=5.66, title="A title"))
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == [5, 16]
    bars, marks = axes.collections
    assert [segment[0][1] for segment in bars.get_segments()] == [10, 20]
    assert marks.get_offsets().tolist() == [[0, 9], [1, 19]]
    assert [text.get_text() for text in axes.texts] == ["50%", "80%"]
    assert list(lines(axes)["bound of weight 1, bias 0: 5.66"].get_ydata()) == [5.66, 5.66]
    assert axes.get_title(loc="left") == "A title"
    assert overlapping(figure) == []


def test_entropies_are_told_apart_without_colour_below_their_ceiling():
    figure = drawn(figures.entropy_under_gain(GAINS, CURVES, ceiling=4.0, title="A title"))
    (axes,) = figure.axes
    found = lines(axes)
    for name, curve in CURVES.items():
        assert list(found[name].get_xdata()) == list(GAINS)
        assert found[name].get_ydata() == pytest.approx(curve.double().numpy())
    assert len({line.get_linestyle() for line in found.values()}) == 2
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1/4", "1/2", "1", "2"]
    assert [list(line.get_ydata()) for line in axes.get_lines() if line.get_label().startswith("_")] == [[4.0, 4.0]]
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 4.0


def test_only_powers_of_two_are_named_on_the_gain():
    (axes,) = drawn(figures.entropy_under_gain((0.5, 0.7071, 1.0), {"one": torch.ones(3)}, 2.0)).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1/2", "1"]


def test_the_collapse_has_a_row_for_each_gain_and_numbers_where_one_key_has_most():
    spread = torch.full((4, 4), 0.25)
    chosen = torch.tensor([[0.4, 0.6, 0.0, 0.0], [0.25] * 4, [0.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    figure = drawn(figures.collapse({"without": chosen, "with": spread}, GAINS, TOKENS, "A title"))
    left, right = figure.axes[:2]
    for axes, expected in ((left, chosen), (right, spread)):
        (image,) = axes.get_images()
        assert np.asarray(image.get_array()) == pytest.approx(expected.double().numpy())
        assert image.get_clim() == (0, 1)
        assert [label.get_text() for label in axes.get_xticklabels()] == TOKENS
        assert [label.get_text() for label in axes.get_yticklabels()] == ["× 0.25", "× 0.5", "× 1", "× 2"]
    assert [(text.get_position(), text.get_text()) for text in left.texts] == [((1, 0), "60"), ((2, 2), "100")]
    assert not right.texts


def explorer(normed, tokens=TOKENS, gain=2.0):
    scores = torch.tensor([-400.0, -3.0, 0.0, 2.0, 2.0, 90.0])
    pattern = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1.0, 0], [0.25, 0.25, 0.25, 0.25]])
    return drawn(
        figures.explorer(scores, 12.0, pattern, tokens, GAINS, CURVES, gain, normed, 500.0, "A title")
    ), pattern


@pytest.mark.parametrize(("normed", "colour", "height"), [(True, BLUE, 1.0), (False, ORANGE, 0.1)])
def test_the_explorer_shows_scores_entropy_and_pattern(normed, colour, height):
    figure, pattern = explorer(normed)
    above, below, right = figure.axes
    bars = filled(above)
    assert sum(count for *_, count in bars) == 6
    for score in (-400.0, -3.0, 2.0, 90.0):
        assert sum(left <= score <= end for left, end, _ in bars) >= 1
    assert {to_hex(bar.get_facecolor()) for bar in above.patches} == {colour}
    assert {bar.get_hatch() for bar in above.patches} == ({""} if normed else {"////"})
    assert dashed_uprights(above) == [-12, 12]
    assert above.get_xlim() == pytest.approx((-500, 500))
    assert above.get_title(loc="left") == "largest 400.0, bound 12.0"

    (mark,) = [line for line in below.get_lines() if line.get_marker() == "o"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (2.0, pytest.approx(height))
    assert to_hex(mark.get_color()) == colour
    assert below.get_title(loc="left") == f"mean entropy {height:.2f} bits"
    assert list(lines(below)) == list(CURVES)

    (image,) = right.get_images()
    assert np.asarray(image.get_array()) == pytest.approx(pattern.numpy())
    assert [label.get_text() for label in right.get_yticklabels()] == TOKENS
    assert overlapping(figure) == []


def test_many_tokens_go_without_names():
    tokens = ["x"] * 41
    scores, pattern = torch.zeros(4), torch.eye(41)
    figure = drawn(figures.explorer(scores, 5.0, pattern, tokens, GAINS, CURVES, 1.0, True, 20.0))
    assert "x" not in [label.get_text() for label in figure.axes[2].get_xticklabels()]


def test_the_axis_of_scores_names_powers_of_ten_on_both_sides():
    figure, _ = explorer(normed=True)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["-100", "-10", "0", "10", "100"]
