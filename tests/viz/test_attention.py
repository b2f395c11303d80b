"""The pictures hold the numbers they were given."""

import numpy as np
import pytest
import torch
from einops import rearrange

from persimmon_lab.viz.attention import attention_arcs, attention_grid, attention_head
from persimmon_lab.viz.attention_explorer import explorer
from persimmon_lab.viz.predictions import next_token_bars
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

PATTERN = torch.tensor([[1.0, 0, 0, 0], [0.04, 0.96, 0, 0], [0.6, 0.0, 0.4, 0], [0.25, 0.75, 0.0, 0.0]])
TOKENS = ["a", "b", "<c>", "$d"]


def random_pattern(length):
    return torch.rand(length, length, generator=torch.Generator().manual_seed(0)).tril()


def test_one_head_shows_its_pattern_with_queries_as_rows():
    pattern = random_pattern(3)
    axes = attention_head(pattern, ["a", "b", "<c>"], "a head").axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), pattern.numpy())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "<c>"]
    assert axes.images[0].get_clim() == (0, 1)


@pytest.mark.parametrize("length", [28, 60, 500])
def test_a_long_text_keeps_to_the_page_and_its_names_apart(length):
    tokens = [f"▁word{index}" for index in range(length)]
    figure = drawn(attention_head(random_pattern(length), tokens, "a head", highlight=length // 2))
    assert figure.get_figwidth() <= 9
    assert overlapping(figure) == []
    axes = figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        for position, label in zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True):
            assert label.get_text().split()[-1] == tokens[int(position)]


def test_dollar_signs_are_no_formula():
    for figure in (
        attention_head(PATTERN, ["$x^2$", "b", "c", "$"]),
        attention_arcs(PATTERN, ["$x^2$", "b", "c", "$"]),
    ):
        assert not any(label.get_parse_math() for label in drawn(figure).axes[0].get_xticklabels())


def test_the_grid_puts_layers_down_and_heads_across():
    patterns = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    figure = attention_grid(patterns, marks={(1, 2): "this one"})
    cells = figure.axes
    assert len(cells) == 6
    np.testing.assert_allclose(np.square(cells[5].images[0].get_array()), patterns[1, 2].numpy(), rtol=1e-6)
    assert [text.get_text() for text in cells[5].texts] == ["this one"]
    assert not any(cell.texts for cell in cells[:5])


def test_a_grid_of_many_heads_keeps_to_the_page():
    assert attention_grid(torch.zeros(2, 16, 2, 2)).get_figwidth() == pytest.approx(9)
    assert attention_grid(torch.zeros(2, 8, 2, 2)).get_figwidth() == pytest.approx(8 * 0.95)


def arcs(axes):
    """(token that looks, token looked at, line width, opacity) of each arc, thin ones first."""
    (lines,) = [each for each in axes.collections if hasattr(each, "get_segments")]
    ends = [(round(float(points[0, 0])), round(float(points[-1, 0]))) for points in lines.get_segments()]
    return [(*end, width, colour[3]) for end, width, colour in zip(ends, lines.get_linewidths(), lines.get_colors())]


def dots(axes):
    """Where the dots stand at the tokens looked at, and the rings of those that look at themselves."""
    seen, own = (each for each in axes.collections if not hasattr(each, "get_segments"))
    return [round(float(x)) for x in seen.get_offsets()[:, 0]], [round(float(x)) for x in own.get_offsets()[:, 0]]


def test_arcs_lead_from_the_looking_token_to_what_it_looks_at():
    axes = drawn(attention_arcs(PATTERN, TOKENS, "a title")).axes[0]
    found = arcs(axes)
    assert [arc[:2] for arc in found] == [(3, 0), (2, 0), (3, 1)]
    assert [arc[2] for arc in found] == pytest.approx([0.6 + 3.4 * weight for weight in (0.25, 0.6, 0.75)])
    assert [arc[3] for arc in found] == pytest.approx([0.15 + 0.75 * weight for weight in (0.25, 0.6, 0.75)])
    assert dots(axes) == ([0, 0, 1], [2, 1, 0])
    assert [label.get_text() for label in axes.get_xticklabels()] == TOKENS
    assert axes.get_title(loc="left") == "a title"


def test_arcs_below_the_threshold_are_left_out():
    assert [arc[:2] for arc in arcs(attention_arcs(PATTERN, TOKENS, threshold=0.01).axes[0])][0] == (1, 0)
    assert [arc[:2] for arc in arcs(attention_arcs(PATTERN, TOKENS, threshold=0.7).axes[0])] == [(3, 1)]
    assert arcs(attention_arcs(PATTERN, TOKENS, threshold=1.0).axes[0]) == []
    # Not at all is no link, whatever the threshold; nor is the future.
    assert len(arcs(attention_arcs(PATTERN, TOKENS, threshold=0.0).axes[0])) == 4
    assert len(arcs(attention_arcs(torch.full((3, 3), 0.5), TOKENS[:3]).axes[0])) == 3


def test_one_query_s_arcs_say_their_percentages():
    axes = drawn(attention_arcs(PATTERN, TOKENS, query=3)).axes[0]
    assert [arc[:2] for arc in arcs(axes)] == [(3, 0), (3, 1)]
    assert {text.get_text(): text.xy[0] for text in axes.texts} == {"25%": 0, "75%": 1}
    assert [label.get_fontweight() for label in axes.get_xticklabels()] == ["normal"] * 3 + ["bold"]


@pytest.mark.parametrize("length", [28, 60, 500])
def test_arcs_of_a_long_text_keep_to_the_page_and_its_names_apart(length):
    tokens = [f"▁word{index}" for index in range(length)]
    pattern = random_pattern(length)
    figure = drawn(attention_arcs(pattern / pattern.sum(dim=-1, keepdim=True), tokens, query=length - 1))
    assert figure.get_figwidth() <= 9
    assert overlapping(figure) == []


def test_the_explorer_s_picture_frames_heads_and_shows_one_token_s_links():
    small = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    figure = drawn(explorer(small, PATTERN, TOKENS, (1, 2), 3, marks={(0, 1): "induction"}, title="layer 1, head 2"))
    left, right = figure.axes
    (image,) = left.images
    assert image.get_extent() == [0, 3, 2, 0]  # the first query is on top, as the axis points down
    shown = rearrange(np.ma.filled(image.get_array(), np.nan), "(layer row) (head column) -> layer head row column",
                      layer=2, head=3)  # fmt: skip
    np.testing.assert_allclose(shown[:, :, 1:-1, 1:-1], small.sqrt(), rtol=1e-6)
    assert np.isnan(shown[:, :, [0, -1]]).all() and np.isnan(shown[..., [0, -1]]).all()  # a gap between them
    widths = {(int(frame.get_y()), int(frame.get_x())): frame.get_linewidth() for frame in left.patches}
    assert widths == {(0, 0): 0.5, (0, 1): 1.4, (0, 2): 0.5, (1, 0): 0.5, (1, 1): 0.5, (1, 2): 2.6}
    assert [arc[:2] for arc in arcs(right)] == [(3, 0), (3, 1)]
    assert [text.get_text() for text in figure.texts] == ["framed: 0·1 induction"]
    assert overlapping(figure) == []
    right = drawn(explorer(small, PATTERN, TOKENS, (1, 2), 0, "to", threshold=0.03)).axes[1]
    assert [arc[:2] for arc in arcs(right)] == [(1, 0), (3, 0), (2, 0)]
    assert {text.get_text(): text.xy[0] for text in right.texts} == {"100%": 0, "4%": 1, "25%": 3, "60%": 2}


def test_the_explorer_s_picture_of_as_many_heads_as_the_largest_model_has():
    """Numbers of layers and heads stand where there is room for them, and the chosen head's frame is there."""
    small = torch.rand(36, 64, 8, 8, generator=torch.Generator().manual_seed(0))
    figure = drawn(explorer(small, PATTERN, TOKENS, (30, 50), 3))
    left = figure.axes[0]
    assert overlapping(figure) == []
    assert [label.get_text() for label in left.get_xticklabels()] == [str(head) for head in range(0, 64, 4)]
    assert [label.get_text() for label in left.get_yticklabels()] == [str(layer) for layer in range(0, 36, 3)]
    assert left.yaxis.label.get_window_extent().x0 >= 0
    (frame,) = [frame for frame in left.patches if frame.get_linewidth() > 2]
    assert (int(frame.get_y()), int(frame.get_x())) == (30, 50)


def test_bars_are_the_probabilities_best_first():
    figure = next_token_bars([("a prompt", ["▁x", "y"], [0.75, 0.25]), ("another", ["z", "w"], [0.5, 0.125])])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.75, 0.25]
    assert [text.get_text() for text in figure.axes[1].texts] == ["50.0%", "12.5%"]
    assert figure.axes[0].yaxis_inverted()
