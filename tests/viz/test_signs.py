"""What has no ink is seen, and words agree with their numbers."""

import pytest

from persimmon_lab.viz import attention_arcs, attention_head, beam_tree, lattice, raster
from persimmon_lab.viz.signs import character_name, counted, readable, visible
from tests.viz.drawing import drawn
from tests.viz.examples import PATTERN, STEPS, drawn_at_random


@pytest.mark.parametrize(
    ("token", "shown"),
    [("the", "the"), ("▁the", "▁the"), ("a b", "a b"), ("\n", "↵"), ("a\tb", "a⇥b"), ("  ", "␣␣"), ("", ""),
     ("\x07", "⟨BEL⟩"), ("a\x00", "a⟨NUL⟩"), ("\x7f", "⟨DEL⟩"), ("\u202e", "⟨U+202E⟩"), ("\u200d", "⟨ZWJ⟩"),
     ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"), ("<0x07>", "<0x07>"), ("é漢", "é漢")],
)  # fmt: skip
def test_a_token_is_readable(token, shown):
    assert readable(token) == shown


def test_every_control_character_has_a_name():
    names = [character_name(chr(code)) for code in (*range(32), 127)]
    assert len(set(names)) == 33 and not any(name.startswith("U+") for name in names)
    assert character_name("\x07") == "BEL" and character_name("\x1f") == "US" and character_name("\u2028") == "U+2028"


def test_a_piece_is_cut_after_its_signs():
    assert visible("▁a\x07") == "␣a⟨BEL⟩"
    assert visible("▁abc\n", 4) == "␣ab…"


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [(1, "token", "1 token"), (0, "token", "0 tokens"), (4096, "token", "4,096 tokens"), (2, "query", "2 queries"),
     (2, "key", "2 keys"), (2, "row of activations", "2 rows of activations")],
)  # fmt: skip
def test_a_noun_agrees_with_its_number(count, noun, said):
    assert counted(count, noun) == said


def test_figures_name_what_has_no_ink():
    tokens = ["\x07", "\n", "a"]
    for figure in (attention_head(PATTERN, tokens), attention_arcs(PATTERN, tokens)):
        names = [label.get_text() for label in drawn(figure).axes[0].get_xticklabels()]
        assert names == ["⟨BEL⟩", "↵", "a"]
    names = [
        label.get_text() for label in raster((drawn_at_random(3, 9) > 0.5).float(), tokens).axes[0].get_yticklabels()
    ]
    assert names == ["⟨BEL⟩", "↵", "a"]
    tree = beam_tree([[STEPS[0][0].__class__(0, "\x07", -1.0, True)]])
    assert "⟨BEL⟩\n-1.00" in [text.get_text() for text in tree.axes[0].texts]
    text = lattice.lattice("a\x07", [(0, 2, -1.0)], {0}).axes[0].texts
    assert "⟨BEL⟩" in [each.get_text() for each in text]
