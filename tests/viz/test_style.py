"""What every figure shares: series that are told apart, and arguments that mean the same everywhere."""

import inspect

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from persimmon_lab.viz import style
from tests.viz.drawing import drawn
from tests.viz.examples import EXAMPLES
from tests.viz.test_agreement import FIGURES

PARAMETERS = {name: inspect.signature(figure).parameters for name, figure in FIGURES.items()}
# An explorer is drawn again on every move of a slider, at fixed places; the flow of shapes is to scale.
FIXED = {name for name in FIGURES if name.endswith(".explorer") or name.startswith("html.")} | {"shapes.shape_flow"}


def having(argument):
    return [name for name, parameters in PARAMETERS.items() if argument in parameters]


def test_series_are_told_apart_without_their_colours():
    looks = [style.series(index) for index in range(36)]
    assert [look.colour for look in looks[:6]] == list(style.CATEGORICAL)
    assert looks[0].dash == "solid" and looks[0].hatch == ""
    for part in ("dash", "marker", "hatch"):
        assert len({getattr(look, part) for look in looks[:6]}) == 6
    assert len({(look.colour, look.dash) for look in looks}) == 36
    assert len({(look.colour, look.marker) for look in looks}) == 36
    assert len({(look.colour, look.hatch) for look in looks}) == 36


def test_more_series_than_colours_are_drawn():
    curves = {f"run {index}": torch.arange(3.0) + index for index in range(9)}
    axes = drawn(FIGURES["collisions.by_position"](curves, 8, "KL", cliff=9)).axes[0]
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 9


@pytest.mark.parametrize(
    "values",
    [torch.tensor([1, 2]), torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([1, 2], dtype=torch.bfloat16),
     [1, 2], (1.0, 2.0), np.array([1, 2], dtype=np.float32), range(1, 3)],
)  # fmt: skip
def test_numbers_are_float64(values):
    array = style.numbers(values)
    assert array.dtype == np.float64 and array.tolist() == [1, 2]


def test_every_figure_has_a_size():
    assert set(having("size")) == FIGURES.keys() - FIXED
    assert len(having("ax")) > 30 and len(having("cmap")) > 12


@pytest.mark.parametrize("name", having("size"))
def test_a_size_is_that_of_the_figure(name):
    figure = FIGURES[name](**EXAMPLES[name].arguments, size=(5.5, 4.5))
    assert tuple(figure.get_size_inches()) == (5.5, 4.5)


@pytest.mark.parametrize("name", having("ax"))
def test_axes_that_are_given_are_drawn_into(name):
    mine = Figure(layout="constrained")
    theirs, untouched = mine.subplots(1, 2)
    assert FIGURES[name](**EXAMPLES[name].arguments, ax=theirs) is mine
    assert theirs.has_data() or theirs.texts or theirs.patches
    assert not untouched.has_data() and not untouched.texts
    assert not mine.legends and not mine.texts  # the rest of the figure is not ours
    with pytest.raises(ValueError, match="size is that of a new figure"):
        FIGURES[name](**EXAMPLES[name].arguments, ax=theirs, size=(3, 3))


def test_axes_in_a_part_of_a_figure_are_drawn_into():
    whole = Figure()
    left, _ = whole.subfigures(1, 2)
    assert (
        FIGURES["attention.attention_head"](**EXAMPLES["attention.attention_head"].arguments, ax=left.subplots())
        is whole
    )


@pytest.mark.parametrize("name", having("cmap"))
def test_a_colour_map_is_the_one_asked_for(name):
    figure = FIGURES[name](**EXAMPLES[name].arguments, cmap="magma")
    images = [
        image for axes in figure.axes for image in [*axes.get_images(), *axes.collections] if hasattr(image, "cmap")
    ]
    assert {image.get_cmap().name for image in images if image.get_array() is not None} == {"magma"}


def test_text_is_readable_on_the_maps_of_others():
    assert style.ink_on("magma", 0.0, dark=False) == "white"
    assert style.ink_on("magma", 1.0, dark=True) == style.INK
    assert style.ink_on(style.SEQUENTIAL, 0.0, dark=True) == "white"
