"""The figures of notebook 07 draw the numbers they are given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from persimmon_lab.viz import training as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn, lines
from tests.viz.overlaps import overlapping

CURVES = {"new": [3.5, 3.4, 3.6], "copied": [3.5, 1.2, 0.1]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00342, "0.0034"), (0.25, "0.25"), (6.195, "6.2"), (48.4, "48"), (1495.0, "1,500"), (0.0, "0"), (1.0, "1.0")],
)
def test_two_digits(value, text):
    assert figures.plain(value) == text


def test_losses_and_their_floor():
    (axes,) = drawn(figures.loss_curves(CURVES, {"log 32": 3.4657}, "A title")).axes
    found = lines(axes)
    assert {name: list(line.get_ydata()) for name, line in found.items()} == CURVES
    assert found["new"].get_linestyle() != found["copied"].get_linestyle()
    assert found["new"].get_color() != found["copied"].get_color()
    (floor,) = (line for line in axes.get_lines() if line.get_label().startswith("_"))
    assert list(floor.get_ydata()) == [3.4657, 3.4657]
    assert [text.get_text().split() for text in axes.texts] == [["log", "32", "3.47"]]
    low, high = axes.get_ylim()
    assert low < 0 and high > 3.6
    assert axes.get_title(loc="left") == "A title"


def test_nothing_overlaps():
    floors = {"log 32": 3.4657}
    assert not overlapping(drawn(figures.loss_curves(CURVES, floors, "A title")))
    assert not overlapping(drawn(figures.stability(CURVES, scores(), 3.4657, "A title")))
    assert not overlapping(drawn(figures.residual_norms(norms(), "A title")))
    assert not overlapping(drawn(figures.gradient_flow({"embedding": [1.0] * 160, "head": [0.1] * 160}, "A title")))
    assert not overlapping(drawn(figures.stripes({"one": [("period 3", torch.eye(9), 3)] * 3}, "A title")))


def norms():
    return {
        "large": {"before": torch.tensor([0.3, 1.5, 2.3]), "trained": torch.tensor([6.2, 48.4, 211.2])},
        "small": {"before": torch.tensor([0.2, 0.3]), "trained": torch.tensor([0.8, 670.0])},
    }


def test_the_stream_by_layer_on_one_scale():
    figure = drawn(figures.residual_norms(norms(), "A title"))
    large, small = figure.axes
    assert list(lines(large)["trained"].get_ydata()) == pytest.approx([6.2, 48.4, 211.2], rel=1e-6)
    assert list(lines(small)["before"].get_ydata()) == pytest.approx([0.2, 0.3], rel=1e-6)
    assert large.get_yscale() == "log" and large.get_ylim() == small.get_ylim()
    assert [label.get_text() for label in large.get_xticklabels()] == ["embed", "0", "1"]
    assert [text.get_text() for text in large.texts] == ["0.30", "2.3", "6.2", "210"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["large", "small"]
    first, second = large.get_lines()
    assert first.get_marker() != second.get_marker()


def test_gradients_are_medians_drawn_upwards_on_a_logarithmic_scale():
    flow = {"embedding": [1.0, 2.0, 9.0, 0.1, 0.1], "head": [0.5, 0.5, 0.5, 0.02, 0.04]}
    figure = drawn(figures.gradient_flow(flow, "A title", every=3))
    axes = figure.axes[0]
    (mesh,) = axes.collections[:1]
    assert np.asarray(mesh.get_array()).reshape(2, 2) == pytest.approx(np.array([[2.0, 0.1], [0.5, 0.03]]))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["embedding", "head"]
    assert not axes.yaxis_inverted()
    assert mesh.norm.vmin == pytest.approx(0.03) and mesh.norm.vmax == pytest.approx(2.0)
    # 0.1 stands halfway between 0.01 and 1 on a logarithmic scale.
    assert mesh.norm(0.03 * (2 / 0.03) ** 0.5) == pytest.approx(0.5)
    shown = {(text.get_position()[1], text.get_text()) for text in axes.texts}
    assert shown == {(0, "2.0"), (0, "0.10"), (1, "0.50"), (1, "0.030")}
    # The last cell is as wide as the steps that are left.
    assert np.unique(mesh.get_coordinates()[..., 0]).tolist() == [0, 3, 5]


def test_a_part_without_gradient_is_drawn_too():
    assert drawn(figures.gradient_flow({"embedding": [0.0, 0.0], "head": [1.0, 1.0]}, every=1))


def test_stripes_lie_between_their_lines():
    pattern = torch.zeros(9, 9)
    places = torch.arange(9)
    for back in (2, 5, 8):
        pattern[places[back:], places[back:] - back] = 1.0
    figure = drawn(figures.stripes({"one": [("period 3", pattern, 3)], "two": [("period 4", pattern, 4)]}, "A title"))
    for axes, backs in zip(figure.axes, ((2, 5, 8), (3, 7)), strict=True):
        (image,) = axes.get_images()
        assert np.asarray(image.get_array()) == pytest.approx(pattern.numpy())
        middles = [
            np.mean([line.get_ydata() - line.get_xdata() for line in pair])
            for pair in zip(axes.get_lines()[::2], axes.get_lines()[1::2])
        ]
        assert middles == pytest.approx(backs)
        assert axes.yaxis_inverted()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["period 3", "period 4"]
    assert [axes.get_ylabel().split("\n")[0] for axes in figure.axes] == ["one", "two"]


def scores():
    return {"new": ([0, 1, 2], [0.1, 5.0, 1358.0]), "copied": ([0, 1, 2], [3.0, 4.0, 17.0])}


def test_runs_and_their_scores():
    figure = drawn(figures.stability(CURVES, scores(), 3.4657, "A title"))
    left, right = figure.axes
    assert list(lines(left)["copied"].get_ydata()) == pytest.approx([3.5, 2.35, 1.6])
    assert list(lines(right)["new"].get_ydata()) == [0.1, 5.0, 1358.0]
    assert right.get_yscale() == "log"
    assert [text.get_text() for text in right.texts] == ["1,400", "17"]
    assert left.texts[0].get_text() == "chance 3.47"
    for name in CURVES:
        assert lines(left)[name].get_color() == lines(right)[name].get_color()
    assert to_hex(lines(left)["new"].get_color()) == CATEGORICAL[0].lower()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(CURVES)


def test_a_smoothed_curve_looks_back_alone():
    curve = [8.0, 0.0, 4.0, 4.0, 4.0, 4.0, 10.0]
    assert figures.smoothed(curve, window=3) == pytest.approx([8, 4, 4, 8 / 3, 4, 4, 6])
    assert figures.smoothed(curve, window=1) == pytest.approx(curve)
