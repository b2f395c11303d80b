"""The figures of notebook 08 draw the numbers they are given."""

import math

import numpy as np
import pytest
import torch

from persimmon_lab.viz import cache as figures
from tests.viz.drawing import drawn, lines
from tests.viz.overlaps import overlapping


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12 B"), (589824, "590 kB"), (1e6, "1 MB"), (9.66e9, "9.66 GB"), (2e12, "2 TB")]
)
def test_bytes_in_powers_of_a_thousand(value, text):
    assert figures.as_bytes(value) == text


def test_the_labels_between_powers_of_ten():
    assert [figures.two_or_five(value) for value in (0.2, 0.3, 0.5, 2.0, 4.0, 50)] == ["0.2", "", "0.5", "2", "", "50"]


def test_the_grid_writes_how_often_each_score_is_computed():
    often = torch.tensor([[3, 0], [2, 2]])
    figure = drawn(figures.work_grid({"again": often, "once": (often > 0).long()}, prompt=1))
    again, once = figure.axes
    assert again.get_title(loc="left") == "again: 7 scores"
    assert once.get_title(loc="left") == "once: 3 scores"
    cells = {text.get_position(): text.get_text() for text in again.texts[:-1]}
    assert cells == {(0, 0): "3", (0, 1): "2", (1, 1): "2"}
    assert list(again.get_lines()[0].get_ydata()) == [0.5, 0.5]
    assert again.get_images()[0].get_clim() == once.get_images()[0].get_clim()


def test_bytes_written_by_each_cache():
    written = {"one": torch.tensor([0.0, 4e3, 9e3]), "two": torch.tensor([1e3, 2e3, 3e3])}
    (axes,) = drawn(figures.bytes_written(torch.tensor([1, 2, 3]), written, "A title")).axes
    found = lines(axes)
    assert found["one"].get_ydata().tolist() == [None, 4e3, 9e3]  # a logarithmic axis has no place for 0
    assert found["two"].get_ydata().tolist() == [1e3, 2e3, 3e3]
    assert found["one"].get_linestyle() != found["two"].get_linestyle()
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_growth_is_named_at_its_end_beside_the_weights():
    held = {"1 row": torch.tensor([0.0, 1e9]), "8 rows": torch.tensor([0.0, 8e9])}
    figure = drawn(figures.cache_growth(torch.tensor([0, 100]), held, 3e9, "A title"))
    (axes,) = figure.axes
    assert {name: list(line.get_ydata()) for name, line in lines(axes).items()} == {
        "1 row": [0, 1e9],
        "8 rows": [0, 8e9],
    }
    assert [text.get_text().strip() for text in axes.texts] == ["the weights: 3 GB", "1 row: 1 GB", "8 rows: 8 GB"]
    assert axes.get_ylim()[1] > 8e9
    assert not overlapping(figure)


def test_drift_is_shown_in_turns_whatever_its_direction():
    angles = torch.tensor([[0.0, -math.pi], [0.0, 2 * math.pi], [0.0, math.pi]])
    errors = {"dynamic": (torch.tensor([1, 3]), torch.tensor([1e-5, 2.0]))}
    figure = drawn(figures.drift(angles, errors, trained_length=2))
    left, right = figure.axes[:2]
    assert np.asarray(left.get_images()[0].get_array()) == pytest.approx(np.array([[0, 0, 0], [0.5, 1, 0.5]]))
    assert list(lines(right)["dynamic"].get_ydata()) == pytest.approx([1e-5, 2.0])
    assert list(lines(right)["dynamic"].get_xdata()) == [1, 3]
    assert right.get_yscale() == "log"


def test_loss_by_position_with_the_trained_length():
    losses = {"none": torch.tensor([1.0, 2.0]), "linear": torch.tensor([3.0, 4.0])}
    figure = drawn(figures.loss_by_position(torch.tensor([0, 96]), losses, 50, "A title"))
    (axes,) = figure.axes
    assert list(lines(axes)["linear"].get_ydata()) == [3, 4]
    assert [list(line.get_xdata()) for line in axes.get_lines() if line.get_label().startswith("_")] == [[50, 50]]
    assert axes.get_yscale() == "log"
    assert not overlapping(figure)
