"""The figures of notebook 13 draw the numbers that they are given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from persimmon_lab.viz.patching import attribution_bars, head_effects, patch_heatmap
from persimmon_lab.viz.style import CATEGORICAL, INK
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

EFFECT = torch.tensor([[0.0, 1.0, 0.05], [-0.5, 0.47, 0.4]])


def test_a_heatmap_has_a_cell_for_each_patch_on_a_scale_around_zero():
    figure = drawn(patch_heatmap({"stream": EFFECT, "MLP": EFFECT / 2}, list("abc"), list("axc"), title="mini"))
    stream, mlp = figure.axes[:2]
    (image,) = stream.get_images()
    assert np.asarray(image.get_array()) == pytest.approx(EFFECT.double().numpy())
    assert image.get_clim() == (-1, 1)
    assert [text.get_text() for text in stream.texts] == ["+1.00", "−.50", "+.47", "+.40"]
    assert [text.get_color() for text in stream.texts] == ["white", INK, INK, INK]
    assert [text.get_position() for text in stream.texts] == [(1, 0), (0, 1), (1, 1), (2, 1)]
    assert [label.get_text() for label in mlp.get_xticklabels()] == ["a", "b\n(x)", "c"]
    (frame,) = stream.patches
    assert (frame.get_x(), frame.get_width(), frame.get_height()) == (0.5, 1, 2)
    assert not overlapping(figure)


def test_an_effect_beyond_one_widens_the_scale():
    figure = drawn(patch_heatmap({"stream": EFFECT * 2}, list("abc"), list("abc"), rows=["first", "second"]))
    assert figure.axes[0].get_images()[0].get_clim() == (-2, 2)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["first", "second"]
    assert not figure.axes[0].patches


def test_small_effects_do_not_look_large():
    figure = drawn(patch_heatmap({"stream": EFFECT / 10}, list("abc"), list("abc")))
    assert figure.axes[0].get_images()[0].get_clim() == (-1, 1)


def test_bars_go_on_where_the_one_before_ended():
    figure = drawn(attribution_bars({"embedding": 1.0, "attention": -2.5, "MLP": 3.0}, "lead"))
    bars = figure.axes[0].patches
    assert [bar.get_x() for bar in bars] == pytest.approx([0, 1.0, -1.5, 0])
    assert [bar.get_width() for bar in bars] == pytest.approx([1.0, -2.5, 3.0, 1.5])
    assert [to_hex(bar.get_facecolor()) for bar in bars[:3]] == [to_hex(CATEGORICAL[index]) for index in (0, 1, 0)]
    assert [bar.get_hatch() or "" for bar in bars] == ["", "////", "", ""]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "together"
    assert not overlapping(figure)


def test_each_map_of_heads_has_its_own_scale():
    figure = drawn(head_effects({"share": EFFECT, "effect": EFFECT / 10}, "heads"))
    scales = [axes.get_images()[0].get_clim() for axes in figure.axes[:2]]
    assert scales == [pytest.approx((-1, 1)), pytest.approx((-0.1, 0.1))]
    assert len(figure.axes[0].texts) == 6
    assert not overlapping(figure)
