"""Two texts side by side."""

import pytest

from persimmon_lab.viz.html.comparison import comparison_html, first_difference
from persimmon_lab.viz.html.tokens import Token, token_html


def text(*ids):
    return [Token(f"<{index}>", f"<{index}>", 0.25, 2, 1.0, token_id=index) for index in ids]


@pytest.mark.parametrize(
    ("one", "other", "index"),
    [((1, 2, 3), (1, 2, 3), None), ((1, 2, 3), (1, 5, 3), 1), ((1, 2), (1, 2, 3), 2), ((), (), None), ((1,), (2,), 0)],
)
def test_the_first_difference(one, other, index):
    assert first_difference(text(*one), text(*other)) == index


def test_the_token_at_which_they_part_is_framed_in_both():
    page = comparison_html(("<b>greedy</b>", "hot"), (text(1, 2, 3), text(1, 5, 3)))
    for index in (2, 5):
        assert token_html(text(index)[0], outlined=True) in page
    assert token_html(text(1)[0], outlined=True) not in page
    assert "The first token agrees; then A takes" in page
    assert "<b>greedy" not in page and "<1>" not in page


def test_equal_texts_and_one_that_ends_are_said_so():
    assert "A and B write the same 2 tokens." in comparison_html(("", ""), (text(1, 2), text(1, 2)))
    assert "A and B write the same 1 token." in comparison_html(("", ""), (text(1), text(1)))
    assert "The first 2 tokens agree; then" in comparison_html(("", ""), (text(1, 2, 3), text(1, 2)))
    assert "No tokens agree; then" in comparison_html(("", ""), (text(1), text(2)))
    assert "B ends" in comparison_html(("", ""), (text(1, 2), text(1)))
