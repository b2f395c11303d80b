"""The lens grid shows each best token, how likely it is, and whether it is the one that follows."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from persimmon_lab.viz.lens import COLUMNS, lens_grid, stream_names, visible
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

READ = ["|ENDOFTEXT|", "▁the", "▁king", "\n"]
FOLLOWING = ["▁the", "▁king", "\n", None]
BEST = [["▁a", "▁the", "▁king", "s"], ["▁the", "▁a", "\n", "ing"], ["▁the", "▁king", "<0x0A>", "$x$"]]
PROBABILITIES = torch.tensor([[0.1, 0.2, 0.3, 0.05], [0.6, 0.4, 0.5, 0.15], [0.9, 0.7, 1.0, 0.25]])


def grid(columns: int, **arguments):
    """So many positions, each cell with a name of its own."""
    best = [[f"▁{stream}p{position}" for position in range(columns)] for stream in range(9)]
    probabilities = torch.rand(9, columns, generator=torch.Generator().manual_seed(0))
    read = [f"▁t{position}" for position in range(columns)]
    return drawn(lens_grid(best, probabilities, read, [*read[1:], None], **arguments))


def cells(axes):
    """Text, colour and weight of each cell by (stream, position)."""
    return {
        tuple(int(each) for each in text.get_position()[::-1]): (
            text.get_text(), text.get_color(), text.get_weight()
        )
        for text in axes.texts
    }  # fmt: skip


def frames(axes):
    """(stream, position) of each frame."""
    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert all(patch.get_linewidth() > 1 for patch in patches)
    return {
        (round(patch.get_y() + patch.get_height() / 2), round(patch.get_x() + patch.get_width() / 2))
        for patch in patches
    }


def names(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_each_cell_is_its_best_token_as_dark_as_it_is_likely():
    figure = drawn(lens_grid(BEST, PROBABILITIES, READ, FOLLOWING, title="$5 a_king"))
    axes = figure.axes[0]
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), PROBABILITIES.numpy())
    assert image.get_clim() == (0, 1)
    low, high = (sum(image.cmap(image.norm(value))[:3]) for value in (0.1, 0.9))
    assert high < low  # dark is likely, in grey as well
    texts = cells(axes)
    assert {place: text for place, (text, *_) in texts.items()} == {
        (stream, position): visible(piece) for stream, row in enumerate(BEST) for position, piece in enumerate(row)
    }
    for (stream, position), (_, colour, _) in texts.items():
        light = sum(to_rgb(colour)) > 1.5
        assert light == (PROBABILITIES[stream, position] > 0.55)
    assert axes.get_title(loc="left") == "$5 a_king"


def test_the_embedding_is_at_the_bottom_and_what_follows_on_top():
    axes = drawn(lens_grid(BEST, PROBABILITIES, READ, FOLLOWING)).axes[0]
    assert names(axes.yaxis) == ["embedding", "layer 0", "layer 1"]
    heights = [label.get_window_extent().y0 for label in axes.yaxis.get_ticklabels()]
    assert heights == sorted(heights)
    assert names(axes.xaxis) == [visible(piece) for piece in READ]
    (above,) = axes.child_axes
    assert names(above.xaxis) == ["␣the", "␣king", "↵", "?"]
    assert min(label.get_window_extent().y0 for label in above.xaxis.get_ticklabels()) > axes.bbox.y1
    assert max(label.get_window_extent().y1 for label in axes.xaxis.get_ticklabels()) < axes.bbox.y0


def test_what_follows_is_framed_and_bold():
    axes = drawn(lens_grid(BEST, PROBABILITIES, READ, FOLLOWING)).axes[0]
    right = {(1, 0), (2, 0), (2, 1), (1, 2)}  # the byte <0x0A> is another token than the line break
    assert frames(axes) == right
    assert {place for place, (*_, weight) in cells(axes).items() if weight == "bold"} == right


def test_of_many_positions_a_window_is_shown():
    for first, expected in ((None, range(24, 40)), (3, range(3, 19)), (30, range(30, 40))):
        figure = grid(40, first=first)
        axes = figure.axes[0]
        assert names(axes.xaxis) == [f"␣t{position}" for position in expected]
        assert cells(axes)[4, 2][0] == f"␣4p{expected[2]}"
        assert axes.get_xlabel() == f"token read: positions {expected[0]} … {expected[-1]} of 40"
        probabilities = torch.rand(9, 40, generator=torch.Generator().manual_seed(0))
        np.testing.assert_allclose(axes.images[0].get_array(), probabilities[:, expected[0] : expected[-1] + 1])
    assert grid(COLUMNS).axes[0].get_xlabel() == "token read"


@pytest.mark.parametrize("columns", [1, 2, 5, 12, 16, 300])
def test_it_keeps_to_the_page_and_no_text_stands_on_another(columns):
    figure = grid(columns)
    assert figure.get_figwidth() <= 9
    assert not overlapping(figure)
    box = figure.bbox
    assert all(box.x0 <= text.get_window_extent().x0 and text.get_window_extent().x1 <= box.x1
               for text in figure.axes[0].texts)  # fmt: skip


def test_long_tokens_are_cut_to_their_cells():
    long = ["▁incomprehensibilities"] * 16
    figure = drawn(lens_grid([long], torch.ones(1, 16), long, [*long[1:], None]))
    axes = figure.axes[0]
    assert all(text.get_text().startswith("␣inc") and text.get_text().endswith("…") for text in axes.texts)
    width = axes.bbox.width / 16
    assert max(text.get_window_extent().width for text in axes.texts) < width
    assert not overlapping(figure)


def test_signs_for_what_cannot_be_seen():
    assert visible("▁the") == "␣the"
    assert visible("a\nb\tc d") == "a↵b⇥c␣d"
    assert visible("<0x0A>") == "↵"
    assert visible("\x00\u202e") == "⟨NUL⟩⟨U+202E⟩"
    assert visible("abcdef", 6) == "abcdef"
    assert visible("abcdefg", 6) == "abcde…"
    assert stream_names(1) == ["embedding"]


def test_sizes_that_do_not_fit_are_refused():
    for best, read, following, message in (
        (BEST[:2], READ, FOLLOWING, "2 rows of best tokens for 3 states of the stream"),
        ([*BEST[:2], BEST[2][:3]], READ, FOLLOWING, "3 best tokens for 4 positions"),
        (BEST, READ[:3], FOLLOWING, "3 read tokens for 4 positions"),
        (BEST, READ, FOLLOWING[:3], "3 following tokens for 4 positions"),
    ):
        with pytest.raises(ValueError, match=message):
            lens_grid(best, PROBABILITIES, read, following)
    for first in (-1, 4):
        with pytest.raises(ValueError, match=f"first is {first}; there are positions 0 … 3"):
            lens_grid(BEST, PROBABILITIES, READ, FOLLOWING, first=first)
