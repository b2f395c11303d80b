"""The figures of notebook 04 draw the numbers they are given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from persimmon_lab.viz import collisions as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn, lines


def differ_without_colour(found):
    return len({(str(line.get_linestyle()), line.get_marker()) for line in found}) == len(found)


def test_the_staircase_counts_by_format_and_marks_what_moved():
    rounded = torch.tensor([0.0, 1.0, 2.0, 2.0, 4.0, 6.0, 6.0])
    counts = {"narrow": torch.tensor([1, 2, 3, 3, 4, 5, 5]), "wide": torch.arange(1, 8)}
    left, *zooms = drawn(figures.staircase(counts, rounded, ((0, 3), (3, 6)), "A title")).axes
    found = lines(left)
    for name, count in counts.items():
        assert list(found[name].get_xdata()) == list(range(1, 8))
        assert list(found[name].get_ydata()) == count.tolist()
    assert differ_without_colour(found.values())
    for axes, kept, moved in zip(zooms, ([0, 1, 2], [4, 6]), ({3: 2}, {3: 2, 5: 6})):
        filled, hollow = axes.collections
        assert [tuple(point) for point in filled.get_offsets()] == [(position, position) for position in kept]
        assert [tuple(point) for point in hollow.get_offsets()] == list(moved.items())
        assert to_hex(hollow.get_facecolor()[0]) == "#ffffff"
    assert [axes.get_title(loc="left") for axes in zooms] == ["From 0 to 3: the value", "From 3 to 6: the value"]


def test_the_envelope_is_the_largest_of_each_stretch():
    size = np.random.default_rng(0).random(5000)
    ends, largest = figures.envelope(size)
    assert ends[-1] == 4999 and (np.diff(ends) > 0).all()
    assert (ends[1:] / ends[:-1])[ends[:-1] > 100].max() < 2 ** (1 / 5)
    starts = [0, *(ends[:-1] + 1)]
    assert largest.tolist() == [size[start : end + 1].max() for start, end in zip(starts, ends)]


def test_phase_errors_are_sizes_of_the_pairs_that_are_named():
    errors = {name: factor * torch.randn(600, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
              for name, factor in (("one", 1.0), ("two", 1e-3))}  # fmt: skip
    errors["two"][:100, 3] = 0
    first, second = drawn(figures.phase_errors(errors, {0: "pair 0", 3: "pair 3"})).axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["one", "two"]
    for axes, error in zip((first, second), errors.values()):
        found = lines(axes)
        assert list(found) == ["pair 0", "pair 3"] and differ_without_colour(found.values())
        for pair, line in zip((0, 3), found.values()):
            shown = np.isfinite(line.get_ydata())
            ends, largest = figures.envelope(error[:, pair].abs().numpy())
            assert line.get_xdata() == pytest.approx(ends)
            assert line.get_ydata()[shown] == pytest.approx(largest[largest >= 1e-5])
    assert lines(second)["pair 3"].get_xdata()[np.isfinite(lines(second)["pair 3"].get_ydata())].min() >= 100
    assert first.get_yscale() == first.get_xscale() == "log"


def test_curves_stand_at_the_middle_of_their_bands():
    curves = {"one": torch.tensor([0.0, 2.0, 4.0]), "noise": torch.tensor([1.0, 1.0, 1.0])}
    (axes,) = drawn(figures.by_position(curves, 8, "a label", cliff=16, title="A title", log=True)).axes
    found = lines(axes)
    for name, values in curves.items():
        assert list(found[name].get_xdata()) == [3.5, 11.5, 19.5]  # 0 … 7, 8 … 15, 16 … 23
        assert list(found[name].get_ydata()) == values.tolist()
    assert differ_without_colour(found.values())
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (16, 24)
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "a label"
    (axes,) = drawn(figures.by_position(curves, 1, "a label", cliff=1)).axes
    assert axes.get_yscale() == "linear" and list(lines(axes)["one"].get_xdata()) == [0, 1, 2]


def test_bars_are_what_a_loss_is_above_the_reference():
    losses = {"float32": torch.tensor([4.0, 3.0]), "a": torch.tensor([4.5, 3.0]), "b": torch.tensor([3.9, 5.0])}
    (axes,) = drawn(figures.loss_by_band(losses, 64, "float32", "A title")).axes
    assert {bars.get_label(): [bar.get_height() for bar in bars] for bars in axes.containers} == {
        "a": pytest.approx([0.5, 0.0]),
        "b": pytest.approx([-0.1, 2.0], rel=1e-5),
    }
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0–63", "64–127"]
    assert len({bars[0].get_hatch() for bars in axes.containers}) == 2
    assert to_hex(axes.containers[0][0].get_facecolor()) == CATEGORICAL[0].lower()
    for bars in axes.containers:
        assert [round(bar.get_x() + bar.get_width() / 2) for bar in bars] == [0, 1]


def test_starts_stand_at_equal_distances():
    curves = {"float32": torch.tensor([3.0, 3.0, 3.0]), "bfloat16": torch.tensor([3.0, 3.5, 4.0])}
    (axes,) = drawn(figures.by_start([0, 256, 16128], curves, "a label", "A title")).axes
    found = lines(axes)
    for name, values in curves.items():
        assert list(found[name].get_xdata()) == [0, 1, 2]
        assert list(found[name].get_ydata()) == values.tolist()
    assert differ_without_colour(found.values())
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "256", "16,128"]
    assert axes.get_ylabel() == "a label"
