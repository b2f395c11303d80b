"""The figures of notebook 09 draw the numbers they are given."""

import math

import pytest
import torch
from matplotlib.colors import to_hex

from persimmon_lab.viz import beams, choosing
from persimmon_lab.viz.beams import Candidate
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn, lines


def test_kept_sets_say_how_many_and_what_mass():
    sure, unsure = torch.tensor([0.1, 0.8, 0.06, 0.04]), torch.tensor([0.25, 0.25, 0.3, 0.2])
    figure = drawn(
        choosing.kept_sets(
            {"a": (sure, ["$x", "y", "z", "unnamed"]), "b": (unsure, ["\n"])}, {"top-k 2": [2, 2], "min-p": [1, 4]}, "T"
        )
    )
    above, other, below, last = figure.axes
    assert list(above.get_lines()[0].get_ydata()) == pytest.approx([0.8, 0.1, 0.06, 0.04])
    assert [text.get_text() for text in above.texts] == [r"\$x", "y", "z"]
    assert [text.get_text() for text in other.texts] == ["↵"]
    assert [text.get_text() for text in below.texts] == ["2 tokens, 90 %", "1 token, 80 %"]
    assert [text.get_text() for text in last.texts] == ["2 tokens, 55 %", "4 tokens, 100 %"]
    ends = [bar.get_x() + bar.get_width() for bar in last.patches]
    assert 2 < ends[0] < 3 and 4 < ends[1] < 5
    assert [label.get_text() for label in below.get_yticklabels()] == ["top-k 2", "min-p"]


def test_kept_counts_follow_the_text():
    (axes,) = drawn(choosing.kept_along(["a", "$b"], {"k": torch.tensor([50, 50]), "p": torch.tensor([1, 7])})).axes
    assert {name: list(line.get_ydata()) for name, line in lines(axes).items()} == {"k": [50, 50], "p": [1, 7]}
    assert axes.get_yscale() == "log"


def test_entropy_is_drawn_below_its_limit():
    temperatures = torch.tensor([0.1, 1.0, 10.0])
    (axes,) = drawn(choosing.entropy_by_temperature(temperatures, {"x": torch.tensor([0.0, 1.0, 2.0])}, 2.0)).axes
    assert list(lines(axes)["x"].get_xdata()) == pytest.approx([0.1, 1, 10])
    assert list(lines(axes)["x"].get_ydata()) == [0, 1, 2]
    assert axes.texts[0].get_text() == "all tokens alike: 2 bits"


def test_each_text_has_its_bars_and_its_mean():
    figure = drawn(choosing.probability_along({"x": torch.tensor([0.5, 0.25]), "y": torch.tensor([1.0])}))
    first, second = figure.axes
    assert [bar.get_height() for bar in first.patches] == [0.5, 0.25]
    assert first.get_title(loc="left") == f"x: {math.log(0.125) / 2:.2f} nats a token"
    assert second.get_title(loc="left") == "y: 0.00 nats a token"


def test_decoders_stand_where_they_were_measured():
    (axes,) = drawn(choosing.likelihood_and_variety({"a": (-1.0, 0.2), "b": (-3.0, 0.9)}, (-2.0, 0.95))).axes
    found = {points.get_label(): tuple(points.get_offsets()[0]) for points in axes.collections}
    assert found == {"a": (-1.0, 0.2), "b": (-3.0, 0.9)}
    assert [line.get_xdata()[0] for line in axes.get_lines()][0] == -2.0


STEPS = [
    [Candidate(0, "a", -1.0, True), Candidate(0, "b", -2.0, False), Candidate(0, "c", -2.5, True)],
    [Candidate(1, "<d>", -3.0, True), Candidate(0, "$e", -3.5, True), Candidate(0, "f", -4.0, False)],
]


def test_the_tree_leads_from_parents_that_were_kept():
    (axes,) = drawn(beams.beam_tree(STEPS, "T")).axes
    # The parent counts kept candidates alone: "c" stands in row 2 and is the second of them.
    assert beams.winning_path(STEPS) == [2, 0]
    ends = [(list(line.get_ydata()), line.get_gid()) for line in axes.get_lines()]
    assert ends == [
        ([1.0, 0], "kept"), ([1.0, 1], "dropped"), ([1.0, 2], "won"), ([2, 0], "won"), ([0, 1], "kept"),
        ([0, 2], "dropped"),
    ]  # fmt: skip
    assert [text.get_text() for text in axes.texts][3:5] == ["<d>\n-3.00", "$e\n-3.50"]
    assert to_hex(axes.get_lines()[3].get_color()) == CATEGORICAL[1].lower()
    assert axes.get_lines()[1].get_linestyle() != axes.get_lines()[0].get_linestyle()
