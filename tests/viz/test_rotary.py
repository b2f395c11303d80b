"""The figures of notebook 03 draw the numbers they are given."""

import math

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox

from persimmon_lab.viz import rotary as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn, lines

PHASES = torch.tensor([[0.0, 1.0, 2.0], [0.5, 3.5, -1.0]])
WAVELENGTHS = torch.tensor([6.28, 99.0, 44297.3])


def hands(axes, colour):
    """Start and end points of the hands of one colour, in the order in which they were given."""
    found = [
        c for c in axes.collections if isinstance(c, LineCollection) and to_hex(c.get_color()[0]) == colour.lower()
    ]
    return [np.array(segment) for collection in found for segment in collection.get_segments()]


@pytest.mark.parametrize(
    ("value", "text"),
    [(6.28, "6.3"), (9.96, "10"), (22.3, "22"), (993.5, "990"), (44297.3, "44,000")],
)
def test_two_digits(value, text):
    assert figures.as_count(value) == text


def test_clocks_point_where_the_phase_is():
    figure = drawn(figures.clocks(PHASES, [0, 7], WAVELENGTHS))
    (axes,) = figure.axes
    for (start, end), (row, column), phase in zip(hands(axes, CATEGORICAL[0]), np.ndindex(2, 3), PHASES.flatten()):
        assert tuple(start) == (column, row)
        x, y = end - start
        # The y axis points down.
        assert math.atan2(-y, x) == pytest.approx(math.remainder(float(phase), 2 * math.pi), abs=1e-6)
    assert axes.yaxis_inverted()
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["position 0", "position 7", "pair 0\n6.3", "pair 1\n99", "pair 2\n44,000"]


def test_the_wavelengths_that_fit_the_trained_length_are_counted():
    figure = drawn(figures.frequency_by_position(torch.rand(50, 3), WAVELENGTHS, trained_length=99))
    left, right = figure.axes[:2]
    assert left.get_title(loc="left") == "2 of 3 pairs complete a turn"
    filled = [to_hex(colour) for colour in left.collections[-1].get_facecolor()]
    assert filled == [CATEGORICAL[0].lower()] * 2 + ["#ffffff"]
    assert list(left.collections[-1].get_offsets()[:, 0]) == pytest.approx(WAVELENGTHS.tolist())


def test_the_map_shows_the_cosine_centred_on_zero():
    phases = torch.linspace(0, 9, 60).reshape(20, 3)
    figure = drawn(figures.frequency_by_position(phases, WAVELENGTHS, trained_length=99))
    (image,) = figure.axes[1].get_images()
    assert np.asarray(image.get_array()) == pytest.approx(phases.double().cos().T.numpy())
    assert image.get_clim() == (-1, 1)


def test_scores_by_offset_differ_in_colour_and_in_dashes():
    offsets = torch.arange(5)
    curves = {"one": torch.arange(5.0), "two": -torch.arange(5.0)}
    (axes,) = drawn(figures.score_by_offset(offsets, curves, "A title")).axes
    found = lines(axes)
    assert {name: list(line.get_ydata()) for name, line in found.items()} == {
        "one": [0, 1, 2, 3, 4],
        "two": [0, -1, -2, -3, -4],
    }
    assert found["one"].get_color() != found["two"].get_color()
    assert found["one"].get_linestyle() != found["two"].get_linestyle()
    assert axes.get_title(loc="left") == "A title"


def test_scaling_is_drawn_relative_to_training():
    trained = torch.tensor([1.0, 0.1, 0.01])
    figure = figures.scaling_compared({"none": trained, "linear": trained / 4}, trained_length=100, length=400)
    left, right = drawn(figure).axes
    assert list(lines(left)["none"].get_ydata()) == [1, 1, 1]
    assert list(lines(left)["linear"].get_ydata()) == [0.25, 0.25, 0.25]
    assert list(lines(right)["none"].get_ydata()) == pytest.approx([0, 4.0])
    # Scaled by 4, four times the length ends at the angle at which training ended.
    assert list(lines(right)["linear"].get_ydata()) == pytest.approx([0, 1.0])
    (band,) = right.patches
    assert band.get_y() + band.get_height() == pytest.approx(1.0)


def test_the_two_parts_of_a_score_and_their_sum():
    generator = torch.Generator().manual_seed(0)
    rotated, passed = torch.randn(2, 3, 3, generator=generator)
    rotated[0, 2] = 1000.0  # a key after its query: must be hidden, also from the colour scale
    figure = drawn(figures.score_split(rotated, passed, ["a", "$b", "$\\nosuch$"]))
    shown = [axes.get_images()[0] for axes in figure.axes[:3]]
    visible = torch.ones(3, 3).tril().bool().numpy()
    for image, part in zip(shown, (rotated, passed, rotated + passed), strict=True):
        assert (np.ma.getmaskarray(image.get_array()) == ~visible).all()
        assert image.get_array().data[visible] == pytest.approx(part.double().numpy()[visible])
        low, high = image.get_clim()
        assert low == -high
        assert high < 10
    assert len({image.get_clim() for image in shown}) == 1
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["a", "$b", "$\\nosuch$"]


def test_voices_stand_in_groups_that_differ_without_colour():
    heads = {"one": torch.tensor([3.0, 2.0, 1.0, 0.5]), "two": torch.tensor([0.1, 0.2, 0.3, 0.4])}
    (axes,) = drawn(figures.voices(heads, WAVELENGTHS)).axes
    for bars, (name, heard) in zip(axes.containers, heads.items(), strict=True):
        assert bars.get_label() == name
        assert [bar.get_height() for bar in bars] == pytest.approx(heard.tolist())
        assert [round(bar.get_x() + bar.get_width() / 2) for bar in bars] == [0, 1, 2, 3]
    assert axes.containers[0][0].get_hatch() != axes.containers[1][0].get_hatch()
    assert [label.get_text() for label in axes.get_xticklabels()][2:] == ["pair 2\n44,000", "all\npassed"]


@pytest.mark.parametrize("pairs", [1, 8, 24, 32])
def test_the_explorer_draws_every_clock_and_every_curve(pairs):
    phases, wavelengths, offsets = torch.arange(float(pairs)), torch.arange(1.0, pairs + 1), torch.arange(9)
    curves = {"bfloat16": torch.zeros(9), "float32": torch.ones(9)}
    figure = drawn(figures.explorer(phases, wavelengths, offsets, curves, phases + 1, "A title"))
    above, below = figure.axes
    for colour, expected in ((CATEGORICAL[0], phases), (CATEGORICAL[1], phases + 1)):
        drawn_hands = [segment[1] - segment[0] for segment in hands(above, colour)]
        directions = [math.atan2(-y, x) for x, y in drawn_hands]
        assert directions == pytest.approx([math.remainder(p, 2 * math.pi) for p in expected.tolist()], abs=1e-5)
    assert len(above.texts) == pairs
    assert list(lines(below)) == ["bfloat16", "float32"]
    assert not hands(figures.explorer(phases, wavelengths, offsets, curves).axes[0], CATEGORICAL[1])


@pytest.mark.parametrize("pairs", [8, 32])
def test_the_explorer_writes_no_label_over_a_clock_or_another_label(pairs):
    wavelengths = torch.full((pairs,), 110000.0)
    figure = drawn(figures.explorer(torch.zeros(pairs), wavelengths, torch.arange(9), {"a": torch.zeros(9)}, None, "T"))
    above, below = figure.axes
    centres = above.transData.transform(above.collections[0].get_offsets())
    radius = figures.RADIUS * (above.transData.transform((1, 0)) - above.transData.transform((0, 0)))[0]
    boxes = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in centres]
    boxes += [text.get_window_extent() for text in (*above.texts, *figure.texts)] + [below.get_tightbbox()]
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
