"""The figures of notebook 12 draw the numbers they are given, and name the heads that were asked for."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from persimmon_lab.viz import heads as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

SCORES = torch.tensor([[0.0, 0.114, 0.999], [0.874, 0.5, 0.03]])
EFFECTS = torch.tensor([[0.0, -0.004, 1.637], [-0.25, 0.05, 0.3]])


def frames(axes):
    return [(each.get_y() + 0.5, each.get_x() + 0.5) for each in axes.patches if isinstance(each, Rectangle)]


def images(axes):
    (image,) = axes.get_images()
    return np.asarray(image.get_array())


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [(0.874, False, ".87"), (0.0, False, ".00"), (0.996, False, "1.0"), (1.0, False, "1.0"), (1.637, True, "+1.64"),
     (-0.25, True, "−.25"), (0.05, True, "+.05"), (-0.004, True, "0"), (-1.5, True, "-1.50")],
)  # fmt: skip
def test_numbers_fit_their_cells(value, signed, text):
    assert figures.short(value, signed) == text


def test_score_maps_show_each_kind_and_frame_its_heads():
    marks = {"one": [(1, 0), (0, 2)]}
    figure = drawn(figures.score_maps({"one": SCORES, "other": SCORES / 2}, marks, "persimmon-mini"))
    first, second = figure.axes[:2]
    assert images(first) == pytest.approx(SCORES.double().numpy())
    assert images(second) == pytest.approx(SCORES.double().numpy() / 2)
    assert {axes.get_images()[0].get_clim() for axes in (first, second)} == {(0, 1)}
    assert [text.get_text() for text in first.texts] == [".00", ".11", "1.0", ".87", ".50", ".03"]
    assert [text.get_position() for text in first.texts][2] == (2, 0)
    assert frames(first) == [(1, 0), (0, 2)]
    assert frames(second) == []
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["one", "other"]
    assert not overlapping(figure)


def test_a_large_model_has_no_room_for_numbers():
    figure = drawn(figures.score_maps({"one": torch.rand(36, 64), "other": torch.rand(36, 64)}))
    assert not figure.axes[0].texts
    assert not overlapping(figure)
    assert not drawn(figures.effect_map(torch.rand(36, 64))).axes[0].texts


def test_text_on_dark_is_white():
    figure = drawn(figures.score_maps({"one": SCORES}))
    colours = [to_hex(text.get_color()) for text in figure.axes[0].texts]
    assert [colour == "#ffffff" for colour in colours] == [False, False, True, True, False, False]


def test_effects_are_centred_on_zero_and_red_where_the_loss_rises():
    figure = drawn(figures.effect_map(EFFECTS, "A title", [(0, 2)]))
    axes, bar = figure.axes
    (image,) = axes.get_images()
    low, high = image.get_clim()
    assert low == -high == pytest.approx(-1.637)
    red, _, blue, _ = image.to_rgba(image.get_array())[0, 2]
    assert red > 2 * blue
    red, _, blue, _ = image.to_rgba(image.get_array())[1, 0]
    assert blue > red
    assert [text.get_text() for text in axes.texts] == ["0", "0", "+1.64", "−.25", "+.05", "+.30"]
    assert frames(axes) == [(0, 2)]
    # The bar says the effects' own sign: red at the end that is labelled with a plus.
    ends = {tick: label.get_text() for tick, label in zip(bar.get_yticks(), bar.get_yticklabels())}
    assert ends[-1.0] == "+1.0" and ends[1.0] == "-1.0"
    assert not overlapping(figure)


def test_effects_of_nothing():
    drawn(figures.effect_map(torch.zeros(2, 3)))


NULL = torch.linspace(0, 0.1, 40).reshape(5, 2, 4)


def strips(values, most_named=6):
    return drawn(figures.null_strips({"induction": values}, {"induction": NULL}, most_named))


def test_strips_fill_and_name_what_lies_above_the_null():
    figure = strips(torch.tensor([[0.0, 0.09, 0.3, 0.11], [0.05, 0.9, 0.1, 0.02]]))
    (axes,) = figure.axes
    below, above = axes.collections
    assert sorted(above.get_offsets()[:, 0]) == pytest.approx([0.11, 0.3, 0.9])
    assert len(below.get_offsets()) == 5
    assert not len(below.get_facecolors())
    assert to_hex(above.get_facecolors()[0]) == CATEGORICAL[0].lower()
    names = {text.get_text(): text.xy[0] for text in axes.texts[1:]}
    assert names == pytest.approx({"1.1": 0.9, "0.2": 0.3, "0.3": 0.11})
    assert axes.get_title(loc="left") == "induction: 3 of 8 heads above the null"
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == pytest.approx([0.1, 0.1])


def test_strips_name_only_the_highest():
    figure = strips(torch.tensor([[0.2, 0.9, 0.3, 0.8], [0.5, 0.7, 0.6, 0.4]]), most_named=3)
    assert [text.get_text() for text in figure.axes[0].texts[1:]] == ["1.1", "0.3", "0.1"]


def test_the_histogram_is_that_of_the_null():
    axes = strips(torch.rand(2, 4)).axes[0]
    heights = {round(bar.get_x(), 2): bar.get_height() for bar in axes.patches}
    counts = np.histogram(NULL.numpy().ravel(), bins=np.linspace(0, 1, 101))[0]
    assert [heights[each] for each in (0.0, 0.05, 0.09, 0.5)] == pytest.approx(
        [counts[each] / counts.max() for each in (0, 5, 9, 50)]
    )


@pytest.mark.parametrize(
    "values", [[0.88, 0.881, 0.882, 0.885, 0.89, 0.9], [0.3, 0.31, 0.5, 0.9, 0.91, 0.97], [0.96, 0.97, 0.98, 0.99]]
)
def test_names_of_a_crowd_stand_apart(values):
    scores = torch.zeros(2, 4)
    scores[0] = torch.tensor(values[:4])
    scores[1, : len(values) - 4] = torch.tensor(values[4:])
    figure = strips(scores)
    names = figure.axes[0].texts[1:]
    assert len(names) == len(values)
    boxes = [Text.get_window_extent(name) for name in names]  # an annotation's own includes its line
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert max(box.x1 for box in boxes) < figure.bbox.x1


def test_the_scatter_puts_every_head_once_and_names_some():
    groups = {"previous token": [(0, 2)], "induction": [(1, 0), (1, 2)]}
    figure = drawn(figures.ablation_scatter(SCORES, EFFECTS, groups, {(0, 2): (12, 0), (1, 0): (0, 10)}, "A title"))
    (axes,) = figure.axes
    rest, previous, induction = axes.collections
    assert np.asarray(previous.get_offsets()) == pytest.approx(np.array([[0.999, 1.637]]))
    assert np.asarray(induction.get_offsets()) == pytest.approx(np.array([[0.874, -0.25], [0.03, 0.3]]))
    assert len(rest.get_offsets()) == 3
    assert {text.get_text(): text.xy for text in axes.texts} == {
        "0.2": pytest.approx((0.999, 1.637)),
        "1.0": pytest.approx((0.874, -0.25)),
    }
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["others", "previous token", "induction"]
    # Told apart without colour.
    assert len(previous.get_paths()[0].vertices) != len(induction.get_paths()[0].vertices)
    assert not overlapping(figure)


def test_bars_by_path():
    stripes = {"6.3": {"clean": 0.88, "through the key": 0.53}, "6.4": {"clean": 0.9, "through the key": 0.56}}
    figure = drawn(figures.path_bars(stripes, "A title"))
    (axes,) = figure.axes
    clean, key = axes.containers
    assert [bar.get_height() for bar in clean] == [0.88, 0.9]
    assert [bar.get_height() for bar in key] == [0.53, 0.56]
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in key] == [0, 1]
    assert clean[0].get_hatch() != key[0].get_hatch()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["6.3", "6.4"]
    assert [text.get_text() for text in axes.texts] == [".88", ".90", ".53", ".56"]
    assert not overlapping(figure)
