"""Pieces in HTML: escaped whatever they hold, parted without colour too, and their numbers right."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persimmon_lab.viz.html import pieces as viz
from persimmon_lab.viz.html.pieces import Cut, Piece, Stretch
from tests.viz.html.test_tokens import NASTY, Page

HA = Piece(1201, "▁Ha", b" Ha", 35, 38, "piece", -9.066)
BYTE = Piece(164, "<0x9F>", b"\x9f", 2, 3, "byte", -21.3, "柿", 1, 3)
SPECIAL = Piece(3, "|ENDOFTEXT|", b"|ENDOFTEXT|", 0, 0, "special")
CUTS = (Cut(("▁Ha", "n"), -14.0, 0.536), Cut(("▁H", "an"), -15.0, 0.233))
STRETCH = Stretch("▁Han", 18, 0.657, CUTS)


def texts(source: str) -> str:
    return Page(source).text


@given(st.text(st.characters(codec="utf-8"), min_size=1))
@example(NASTY)
@example("\n")
def test_any_piece_is_shown_and_none_is_html(text):
    for piece in (
        Piece(1, text, text.encode(), 0, 1, "piece", -1.0),
        Piece(1, "<0x41>", b"A", 0, 1, "byte", -1.0, text, 0, 2),
        Piece(1, text, text.encode(), 0, 1, "special"),
    ):
        page = Page(viz.piece_html(piece).replace("<br>", ""))
        assert set(page.tags) == {"span"}
        assert not [name for name in page.attributes if name.startswith("on")]
    page = Page(
        viz.details_html(Piece(1, text, b"", 0, 1, "piece", -1.0), Stretch(text, 1, 1.0, (Cut((text,), -1.0, 1.0),)))
    )
    assert set(page.tags) <= {"div", "span", "table", "tr", "td"}


def test_a_piece_says_its_name_id_and_score():
    page = Page(viz.piece_html(HA))
    assert page.attributes["title"] == ["▁Ha · id 1201 · −9.07"]
    assert (page.text, page.marks) == ("Ha", ["␣"])
    assert "style" not in viz.piece_html(HA).split(">")[0]
    assert 'style="display: inline-block; ' in viz.piece_html(HA, "color: red").split(">")[0]
    assert "color: red" in viz.piece_html(HA, "color: red").split(">")[0]


def test_a_byte_shows_itself_and_the_first_one_its_character():
    page = Page(viz.piece_html(BYTE))
    assert (page.text, page.marks) == ("9F", [])
    assert page.attributes["title"] == ["<0x9F> · id 164 · byte 2 of 3 of '柿'"]
    first = Page(viz.piece_html(Piece(235, "<0xE6>", b"\xe6", 2, 3, "byte", -21.3, "柿", 0, 3)))
    assert (first.text, first.marks) == ("E6", ["柿"])
    unseen = Page(viz.piece_html(Piece(10, "<0x07>", b"\x07", 2, 3, "byte", -21.3, "\x07", 0, 1)))
    assert (unseen.text, unseen.marks) == ("07", [])


def test_a_special_token_is_a_sign_and_a_line_break_breaks_the_line_after_it():
    page = Page(viz.piece_html(SPECIAL))
    assert (page.text, page.marks) == ("", ["|ENDOFTEXT|"])
    assert page.attributes["title"] == ["|ENDOFTEXT| · id 3 · special token"]
    source = viz.piece_html(Piece(4, "\n", b"\n", 0, 1, "piece", -2.15))
    assert source.endswith("</span><br>")
    assert "\n" not in source
    assert Page(source.replace("<br>", "")).marks == ["↵"]


def test_the_details_of_a_piece():
    text = texts(viz.details_html(HA, STRETCH))
    for said in ("id1,201", "bytes20 48 61", "characters 35–38", "−9.07 \u2002one in 8,656", "65.7 % of all cuts"):
        assert said in text
    assert "Han 18 ways to cut it, the best 2" in text
    assert texts(viz.details_html(HA, Stretch("▁Han", 2, 0.6, CUTS))).count("the best") == 0
    assert "one way to cut it" in texts(viz.details_html(HA, Stretch("▁Ha", 1, 1.0, CUTS[:1])))
    assert "certain" in texts(viz.details_html(Piece(5, "a", b"a", 0, 1, "piece", 0.0), None))


def test_the_table_of_cuts_is_in_order_and_marks_the_best():
    rows = re.findall("<tr.*?</tr>", viz.details_html(HA, STRETCH))
    cells = [[texts(cell) for cell in re.findall("<td.*?</td>", row)] for row in rows]
    assert cells == [["Han ◂", "−14.00", "", "53.6 %"], ["Han", "−15.00", "", "23.3 %"]]
    assert ["bold" in row for row in rows] == [True, False]
    assert [float(re.search(r"[ \"]width: ([\d.]+)%; min", row)[1]) for row in rows] == [53.6, 23.3]
    boxes = re.findall(r"background-color: (rgba\([^)]*\))\">", rows[0])
    assert boxes[:2] == [viz.colour(0), viz.colour(1)]


def test_the_details_of_bytes_and_special_tokens():
    text = texts(viz.details_html(BYTE, None))
    assert "byte2 of 3 of 柿" in text
    assert "−21.30 \u2002of the unknown character, once" in text
    assert "put before the text" in texts(viz.details_html(SPECIAL, None))
    typed = texts(viz.details_html(Piece(3, "|ENDOFTEXT|", b"", 4, 15, "special"), None))
    assert "characters 4–15" in typed
    assert "log-probability" not in typed
    assert "the space before the text" in texts(viz.details_html(Piece(2, "▁", b" ", 0, 0, "piece", -2.0), None))


@pytest.mark.parametrize(
    ("count", "shown"),
    [(1, "1"), (1234, "1,234"), (999999, "999,999"), (3281040, "3.2 × 10⁶"), (10**400, "1.0 × 10⁴⁰⁰")],
)
def test_numbers_of_any_length(count, shown):
    assert viz.number(count) == shown


def test_counts_leave_special_tokens_out_of_the_bytes_a_token():
    pieces = [SPECIAL, HA, Piece(5, "n", b"n", 38, 39, "piece", -5.0)]
    text = texts(viz.counts_html("Han", pieces, 6, 0.5))
    assert text.startswith("3 characters · 3 bytes · 3 tokens (1 special) · 1.50 bytes per token · ")
    assert text.endswith("the best of 6 cuts has 50.0 % of the probability")
    typed = Piece(3, "|ENDOFTEXT|", b"|ENDOFTEXT|", 2, 13, "special")
    text = texts(viz.counts_html("柿|ENDOFTEXT|", [BYTE, BYTE, BYTE, typed], 1, 1.0))
    assert text.startswith("12 characters · 14 bytes · 4 tokens (1 special) · 1.00 bytes per token")
    assert texts(viz.counts_html("", [], 1, 1.0)) == "0 characters · 0 bytes · 0 tokens"


def test_neighbours_have_other_colours_and_a_gap():
    page = viz.page_html([HA] * 9, "counts")
    colours = re.findall(r"background-color: (rgba\([^)]*\))\"", page)
    assert all(one != other for one, other in zip(colours, colours[1:]))
    assert page.count("margin: 0 1px") == 9


def test_a_page_shows_the_inspected_piece_and_says_what_it_leaves_out():
    page = viz.page_html([HA, BYTE], "<b>2</b> tokens", 0, STRETCH)
    assert viz.details_html(HA, STRETCH) in page
    assert "<b>2</b> tokens" in page
    assert [("outline" in each) for each in re.findall('class="piece.*?title', page)] == [True, False]
    last = viz.page_html([HA, BYTE], "", 1)
    assert [("outline" in each) for each in re.findall('class="piece.*?title', last)] == [False, True]
    long = viz.page_html([HA] * 5, "", most=3)
    assert long.count('class="piece') == 3
    assert "… and 2 more" in long
    assert "more" not in viz.page_html([HA] * 3, "", most=3)


def test_a_page_of_boxes_begins_on_the_side_of_its_text():
    hebrew = Piece(9, "\u05e9", "\u05e9".encode(), 0, 1)
    assert '<div dir="rtl"' in viz.page_html([SPECIAL, hebrew], "")
    assert '<div dir="ltr"' in viz.page_html([SPECIAL, HA], "")
