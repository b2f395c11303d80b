"""Neurons in figures: what is drawn is what was given, and what could be mistaken for something else is told apart."""

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

from persimmon_lab.viz import neurons as figures
from persimmon_lab.viz.html.contexts import contexts_html
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn, lines
from tests.viz.html.test_tokens import NASTY, Page
from tests.viz.overlaps import overlapping

BLUE, ORANGE = (colour.lower() for colour in CATEGORICAL[:2])


def test_functions_and_derivatives_stand_in_two_panels_and_a_jump_is_a_gap():
    x = torch.linspace(-1, 1, 41)
    step = (x > 0).float()
    figure = drawn(figures.activation_functions(x, {"relu": (x.relu(), step), "square": (x.square(), 2 * x)}))
    left, right = figure.axes
    assert lines(left)["square"].get_ydata() == pytest.approx(x.double().square().numpy(), abs=1e-6)
    assert lines(right)["square"].get_ydata() == pytest.approx(2 * x.double().numpy())
    drawn_step = lines(right)["relu"]
    (gap,) = np.flatnonzero(np.isnan(drawn_step.get_ydata()))
    assert drawn_step.get_ydata()[gap - 1] == 0 and drawn_step.get_ydata()[gap + 1] == 1
    assert drawn_step.get_xdata()[gap - 1] == pytest.approx(0, abs=1e-6)
    assert not np.isnan(lines(left)["relu"].get_ydata()).any()
    assert lines(left)["relu"].get_linestyle() != lines(left)["square"].get_linestyle()
    assert not overlapping(figure)


ACTIVATIONS = torch.tensor([[0.0, 2.0, 0.0, 0.0, 0.1], [3.0, 1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 5.0, 0.0]])


def marks(axes, colour):
    """(column, row) of every mark of one colour."""
    (found,) = [c for c in axes.collections if isinstance(c, LineCollection) and to_hex(c.get_color()[0]) == colour]
    return {(segment[0][0], segment[:, 1].mean()) for segment in found.get_segments()}


def test_the_raster_marks_exactly_who_is_awake_in_the_order_of_waking():
    figure = drawn(figures.raster(ACTIVATIONS, ["a", "$\\nosuch$", "<c>"], "A title"))
    (axes,) = figure.axes
    # Neuron 1 wakes first and most often, 4 at the same token, then 0, then 3; neuron 2 never does.
    assert marks(axes, ORANGE) == {(0, 0), (1, 0), (2, 1), (3, 2)}
    assert marks(axes, BLUE) == {(0, 1), (0, 2)}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "$\\nosuch$", "<c>"]
    assert axes.yaxis_inverted()
    assert axes.get_xlabel().startswith("the 4 of 5 neurons that wake at all")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "woke before (2)",
        "wakes for the first time (4)",
    ]


def test_the_order_of_waking_puts_the_silent_last():
    assert list(figures.first_awake(ACTIVATIONS.numpy() != 0)) == [1, 4, 0, 3, 2]


def test_sparsity_is_drawn_by_text_and_the_strongest_are_stacked():
    silent = {"chat": torch.tensor([0.6, 0.9]), "code": torch.tensor([0.5, 0.8])}
    mass = torch.tensor([[0.3, 0.7, 0.8], [0.8, 0.9, 1.0]])
    figure = drawn(figures.sparsity_by_layer(silent, mass, (0.01, 0.05, 0.1), "A title"))
    left, right = figure.axes
    found = lines(left)
    assert {name: list(line.get_ydata()) for name, line in found.items()} == {
        name: pytest.approx(share.tolist()) for name, share in silent.items()
    }
    assert found["chat"].get_marker() != found["code"].get_marker()
    for bars, top in zip(right.containers, mass.T, strict=True):
        assert [bar.get_y() + bar.get_height() for bar in bars] == pytest.approx(top.tolist())
    assert [bars.get_label() for bars in right.containers] == ["strongest 1%", "next, to 5%", "next, to 10%"]
    assert len({bars[0].get_hatch() for bars in right.containers}) == 3
    assert [text.get_text() for text in right.texts] == ["30%", "80%"]
    assert left.get_ylim() == right.get_ylim() == (0, 1.02)


def test_histograms_stand_before_the_ceiling_with_what_was_and_what_could_be():
    before = torch.tensor([[-3.0, -1.0, 0.0, 2.0, 2.0], [0.5, 0.5, 0.01, 0.5, 100.0]])
    figure = drawn(figures.against_the_ceiling(before, torch.tensor([4.0, 180.0]), 256.0, "A title"))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer 0: 60% silent", "layer 1: 0% silent"]
    points = {tuple(map(float, line.get_xydata()[0])) for line in axes.get_lines() if len(line.get_xydata()) == 1}
    assert points == {(2, 0), (4, 0), (100, 1), (180, 1)}
    for layer, values in enumerate(before):
        drawn_counts = layer - axes.patches[layer].get_data().values
        positive = values[values > 0].double().numpy()
        counts, _ = np.histogram(positive, axes.patches[layer].get_data().edges)
        assert counts.sum() == len(positive)
        assert drawn_counts == pytest.approx(0.85 * counts / counts.max())
    (texts,) = axes.texts
    assert "inf from 256 on" in texts.get_text()
    assert axes.get_xlim()[1] > 256 and axes.get_xscale() == "log"


def test_a_layer_in_which_nothing_is_awake_still_has_its_row():
    figure = drawn(figures.against_the_ceiling(torch.tensor([[-1.0, -2.0]]), torch.tensor([4.0]), 256.0))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["layer 0: 100% silent"]


def test_rows_needed_beside_what_one_would_guess():
    batches = (1, 2, 4)
    needed = {"layer 1": torch.tensor([0.1, 0.15, 0.2]), "layer 7": torch.tensor([0.5, 0.7, 0.9])}
    guessed = {name: share + 0.05 for name, share in needed.items()}
    (axes,) = drawn(figures.rows_needed(batches, needed, guessed)).axes
    found = lines(axes)
    dashed = [line for line in axes.get_lines() if line.get_linestyle() == "--" and len(line.get_xdata())]
    for name, line in zip(needed, dashed, strict=True):
        assert list(found[name].get_xdata()) == [1, 2, 4]
        assert list(found[name].get_ydata()) == pytest.approx(needed[name].tolist())
        assert list(line.get_ydata()) == pytest.approx(guessed[name].tolist())
        assert line.get_color() == found[name].get_color()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]
    alone = drawn(figures.rows_needed(batches, needed)).axes[0]
    assert list(lines(alone)) == ["layer 1", "layer 7"]


CONTEXTS = [(4.0, NASTY, "before\n", "a\tb", NASTY), (1.0, "chat", " said", ":", "")]


def test_contexts_are_a_table_in_which_nothing_is_html():
    page = Page(contexts_html(CONTEXTS, NASTY))
    assert set(page.tags) == {"div", "table", "tr", "td", "b", "span"}
    assert page.tags.count("tr") == 2
    assert page.text.count(NASTY) == 3
    assert page.marks == ["↵", "⇥"]
    for shown in ("4.00", "1.00", "before", "chat", " said"):
        assert shown in page.text
    bars = [style for style in page.attributes["style"] if "height: 9px" in style]
    assert ["width: 60px" in bars[0], "width: 15px" in bars[1]] == [True, True]


def test_contexts_stay_on_one_line_and_there_may_be_none():
    assert "\n" not in contexts_html(CONTEXTS)
    assert "<tr" not in contexts_html([], "nothing wakes it")
    assert Page(contexts_html([(0.0, "chat", "", "x", "")])).text.count("0.00") == 1
