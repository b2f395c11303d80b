"""The figures of the numerics laboratory draw the numbers they are given, in places where they can be read."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from persimmon_lab.viz import precision as figures
from persimmon_lab.viz.style import CATEGORICAL
from tests.viz.drawing import drawn, lines
from tests.viz.overlaps import overlapping

ERRORS = {"float32": [1e-7, 2e-7, 3e-7], "float16": [5e-4, math.inf, math.inf], "bfloat16": [4e-3, 5e-3, 6e-3]}
HALF_STEPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
LARGEST = {"squared ReLU": [9000.0, 70000.0, 65504.0], "residual stream": [10.0, 20.0, 30.0]}
LIMITS = {"float16": 65504.0, "bfloat16": 3.39e38}


def crosses(axes):
    """The places of the crosses, all lines together."""
    marked = [line for line in axes.get_lines() if line.get_marker() == "X"]
    return [(float(x), float(y)) for line in marked for x, y in zip(line.get_xdata(), line.get_ydata())]


def test_the_ladder_ends_in_crosses_where_nothing_is_finite():
    figure = drawn(figures.error_ladder(ERRORS, HALF_STEPS, title="Which model"))
    (axes,) = figure.axes
    found = lines(axes)
    assert list(found) == ["float32", "float16", "float16: not finite", "bfloat16"]
    for name, values in ERRORS.items():
        shown = np.where(np.isfinite(values), values, np.nan)
        assert np.array_equal(found[name].get_ydata(), shown, equal_nan=True)
    assert [x for x, _ in crosses(axes)] == [1, 2]
    assert all(6e-3 < y < axes.get_ylim()[1] for _, y in crosses(axes))
    assert to_hex(found["float16: not finite"].get_color()) == to_hex(found["float16"].get_color())
    assert len({str(found[name].get_linestyle()) + found[name].get_marker() for name in ERRORS}) == 3
    assert [text.get_text() for text in axes.texts] == ["½ step of\nfloat16", "½ step of\nbfloat16"]
    heights = [line.get_ydata()[0] for line in axes.get_lines() if len(set(line.get_ydata())) == 1 and
               len(line.get_xdata()) == 2 and line.get_marker() == "None"]  # fmt: skip
    assert heights == list(HALF_STEPS.values())
    assert axes.get_title(loc="left") == "Which model"
    assert not overlapping(figure)


def test_a_ladder_of_nothing_but_zeros_and_of_many_layers():
    drawn(figures.error_ladder({"same": [0.0, 0.0]}))
    figure = drawn(figures.error_ladder({"deep": [1e-3] * 36}, title="36 layers"))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [str(layer) for layer in range(0, 36, 2)]
    assert not overlapping(figure)


def test_layers_may_be_named():
    figure = drawn(figures.error_ladder({"one": [1e-3, 2e-3]}, rows=["layer 4", "layer 9"]))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["layer 4", "layer 9"]


def test_the_margin_marks_what_lies_beyond_the_end():
    figure = drawn(figures.overflow_margin(LARGEST, LIMITS, title="Which model"))
    (axes,) = figure.axes
    for name, values in LARGEST.items():
        assert list(lines(axes)[name].get_ydata()) == values
    assert crosses(axes) == [(1.0, 70000.0)]  # 65,504 itself is held
    assert [text.get_text() for text in axes.texts] == [
        "float16\nends at 65,504",
        "bfloat16\nends far above,\nat 3.4e38 ↑",
    ]
    assert axes.texts[0].xy == (1, 65504.0)
    assert axes.get_ylim()[0] < 10 < 70000 < axes.get_ylim()[1]
    assert not overlapping(figure)


def test_an_end_that_is_far_away_is_only_told_of():
    (axes,) = drawn(figures.overflow_margin({"small": [1e-4, 1e-3]}, LIMITS)).axes
    assert axes.get_ylim()[1] < 1
    assert [text.get_text().split("\n")[1] for text in axes.texts] == ["ends far above,", "ends far above,"]


def test_kl_by_position_with_its_mean():
    kl = {"bfloat16": torch.tensor([1e-4, 3e-4, 0.0]), "float16": torch.tensor([1e-6, math.inf, math.inf])}
    figure = drawn(figures.kl_by_position(kl, "Which model"))
    (axes,) = figure.axes
    found = lines(axes)
    assert found["bfloat16"].get_ydata() == pytest.approx([1e-4, 3e-4, figures.NEGLIGIBLE], rel=1e-6)
    assert found["float16"].get_ydata()[0] == pytest.approx(1e-6)
    assert [x for x, _ in crosses(axes)] == [1, 2]
    means = [line.get_ydata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 2 and
             line.get_marker() == "None"]  # fmt: skip
    assert means == pytest.approx([4e-4 / 3])
    assert axes.get_ylabel() == "KL(reference || candidate), nats"
    assert not overlapping(figure)


def test_flipped_tokens_stand_over_their_bars():
    tokens = ["▁The", "$\\nosuch$", "\\frac", "▁cat", "▁sat"]
    kl = torch.tensor([1e-4, 2e-3, 1e-5, math.inf, 0.0])
    flips = {1: ("$\\nosuch", "a_long_one$"), 4: ("▁an", "▁other")}
    figure = drawn(figures.flipped_tokens(tokens, kl, flips, "Which model"))
    (axes,) = figure.axes
    low = axes.get_ylim()[0]
    tops = {round(bar.get_x() + 0.4): low + bar.get_height() for bars in axes.containers for bar in bars}
    assert tops[0] == pytest.approx(1e-4, rel=1e-4)
    assert tops[1] == pytest.approx(2e-3, rel=1e-4)
    assert tops[4] == pytest.approx(figures.NEGLIGIBLE)
    hatched = [round(bar.get_x() + 0.4) for bars in axes.containers for bar in bars if bar.get_hatch()]
    assert hatched == [1, 4]
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [
        ("$\\nosuch → a_long_one$", 1),
        ("▁an → ▁other", 4),
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == tokens
    top = axes.get_window_extent().y1
    assert all(text.get_window_extent().y1 <= top + 2 for text in axes.texts)
    assert not overlapping(figure)


def test_a_text_without_flips():
    (axes,) = drawn(figures.flipped_tokens(["a", "b"], torch.tensor([1e-4, 1e-3]), {})).axes
    assert not axes.texts


def test_the_search_for_islands_row_by_row():
    modules = ["0.mlp", "0.self_attn", "1.mlp"]
    steps = [("all", modules, 1e-6, True), ("none", [], math.inf, False), ("add 1.mlp", ["1.mlp"], 0.0234, False)]
    figure = drawn(figures.island_search(modules, steps, "Which model"))
    left, right = figure.axes
    filled = [[to_hex(colour) == CATEGORICAL[0].lower() for colour in row.get_facecolor()] for row in left.collections]
    assert filled == [[True] * 3, [False] * 3, [False, False, True]]
    assert [list(row.get_offsets()[:, 1]) for row in left.collections] == [[0] * 3, [1] * 3, [2] * 3]
    assert [label.get_text() for label in left.get_xticklabels()] == modules
    assert [label.get_text() for label in left.get_yticklabels()] == ["all", "none", "add 1.mlp"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["✓ KL 1e-06", "not finite", "KL 0.02"]
    assert left.get_ylim() == right.get_ylim()
    assert not overlapping(figure)


def test_the_explorer_has_both_and_room_for_what_it_says():
    note = "stressed: MLP pre-activations of all layers times 64, divided out on the way down; the same function"
    note += "\nmean KL 1.4e-06 nats, 0 of 36 likeliest tokens differ, perplexity 6.799 (exact: 6.8)"
    lost = {"squared ReLU": [2], "residual stream": []}
    spans = (1e-8, 1.0), (1.0, 1e11)
    rows = ["0", "1", "2"]
    figure = drawn(figures.explorer(ERRORS, LARGEST, HALF_STEPS, LIMITS, rows, lost, spans, "A title", note))
    left, right = figure.axes
    assert left.get_ylim() == (1e-8, 1.0)
    assert right.get_ylim() == (1.0, 1e11)
    assert crosses(right) == [(2.0, 65504.0)]
    assert list(lines(left)["bfloat16"].get_ydata()) == ERRORS["bfloat16"]
    assert list(lines(right)["residual stream"].get_ydata()) == LARGEST["residual stream"]
    assert [text.get_text() for text in figure.texts] == ["A title", note]
    assert not overlapping(figure)
    box = figure.get_window_extent()
    texts = [*figure.texts, *left.texts, *right.texts, *left.get_legend().get_texts(), *right.get_legend().get_texts()]
    assert all(box.containsx(edge) for text in texts for edge in text.get_window_extent().intervalx)
