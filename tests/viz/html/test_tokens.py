"""Coloured tokens: escaped whatever they hold, in colours that keep the text readable, with numbers that are right."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persimmon_lab.viz.html import tokens as viz
from persimmon_lab.viz.html.tokens import Token
from persimmon_lab.viz.signs import character_name

NASTY = '<script>alert("1")</script> & \' <img src=x onerror=alert(1)> </span>'
# Text and background of JupyterLab's two themes.
THEMES = {"light": ((33, 33, 33), (255, 255, 255)), "dark": ((224, 224, 224), (17, 17, 17))}


class Page(HTMLParser):
    """The tags of some HTML, its text without marks, the marks, and every attribute's value."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.text, self.marks, self.attributes, self.open = [], "", [], {}, []
        self.feed(source)
        self.close()
        assert not self.open, "every tag is closed"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(dict(attributes).get("class"))
        for name, value in attributes:
            self.attributes.setdefault(name, []).append(value)

    def handle_endtag(self, tag):
        self.open.pop()

    def handle_data(self, data):
        if "mark" in self.open:
            self.marks.append(data)
        else:
            self.text += data


def chosen(text="the", piece="▁the", probability=0.25, rank=2, alternatives=(("▁a", 0.5), ("▁the", 0.25))):
    return Token(text, piece, probability, rank, 1.5, alternatives)


@given(st.text(st.characters(codec="utf-8")))
@example(NASTY)
@example("tab\tand\nbreak")
@example("bell\x07, null\x00, override\u202e, bom\ufeff")
def test_any_text_is_shown_and_none_is_html(text):
    page = Page(viz.token_html(Token(text + "x", NASTY)))
    assert set(page.tags) == {"span"}
    assert page.text == "".join(c for c in text if c.isprintable() or c in "\n\t" + viz.KEPT) + "x"
    shown_by_name = {character_name(c) for c in text if not (c.isprintable() or c in "\n\t" + viz.KEPT)}
    assert shown_by_name <= set(page.marks)
    assert page.marks.count("↵") == text.count("\n")
    assert page.attributes["title"] == [NASTY]


def test_characters_without_ink_have_a_name_and_a_frame():
    for text, name in (("\x07", "BEL"), ("\x1b", "ESC"), ("\u200d", "ZWJ"), ("\u202e", "U+202E")):
        source = viz.token_html(Token(text, "piece", 0.5, 1, 1.0))
        assert Page(source).marks == [name] and viz.CHIP in source
    assert Page(viz.escaped("\U0001f469\u200d\U0001f52c")).marks == []  # a joiner that joins


def test_no_part_of_the_page_lets_html_through():
    nasty = Token(NASTY, NASTY, 0.1, 1, 1.0, ((NASTY, 0.1), ("▁" + NASTY, 0.05)))
    page = Page(viz.page_html([Token(NASTY, NASTY)], [nasty], viz.alternative_html(1, NASTY, 0.1, chosen=True)))
    assert set(page.tags) <= {"div", "span", "table", "tr", "td"}
    assert not [name for name in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert page.text.count(NASTY) == 3  # prompt, token, and an alternative


def test_a_token_without_text_shows_what_it_is():
    assert Page(viz.token_html(Token("", "|ENDOFTEXT|"))).marks == ["|ENDOFTEXT|"]
    byte = Page(viz.token_html(Token("", "<0xE6>")))
    assert (byte.text, byte.marks, byte.attributes["title"]) == ("", ["·"], ["<0xE6>"])


# Colours


def opacity(probability: float) -> float:
    return float(viz.tint(probability).rsplit(",", 1)[1].rstrip(")"))


def test_less_probable_is_stronger():
    assert opacity(1.0) == 0
    falling = [opacity(10 ** -(exponent / 4)) for exponent in range(12)]
    assert falling == sorted(falling)
    assert len(set(falling)) > 9
    assert opacity(0.0) == opacity(1e-30) == viz.STRONGEST


@pytest.mark.parametrize("theme", THEMES)
def test_text_stays_readable_on_the_strongest_colour(theme):
    ink, paper = THEMES[theme]
    mixed = [viz.STRONGEST * c + (1 - viz.STRONGEST) * p for c, p in zip(viz.SURPRISE, paper)]
    assert contrast(ink, mixed) >= 4.5  # WCAG 2, level AA


def contrast(one, other) -> float:
    """WCAG 2's contrast ratio of two colours."""

    def luminance(colour):
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


def test_the_legend_has_the_colours_of_the_tokens():
    page = viz.legend_html()
    for probability, label in ((1.0, "100 %"), (0.5, "50 %"), (0.1, "10 %"), (0.01, "1 %"), (0.001, "0.1 %")):
        assert re.search(re.escape(viz.tint(probability)) + r"[^>]*>" + label + "<", page)
        assert viz.tint(probability) in viz.token_html(chosen(probability=probability))


# Numbers


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(1.0, "100 %"), (0.99999, "> 99.9 %"), (0.9984, "99.8 %"), (0.5, "50.0 %"), (0.0123, "1.2 %"), (0.0041, "0.41 %"),
     (0.00002, "< 0.01 %"), (0.0, "< 0.01 %")],
)  # fmt: skip
def test_percent(probability, shown):
    assert viz.percent(probability) == shown


def test_a_page_frames_the_token_that_it_looks_into():
    tokens = [chosen(piece=piece) for piece in ("one", "two")]
    page = viz.page_html([Token("a", "a")], tokens, "<p>details</p>", inspect=1)
    assert viz.token_html(tokens[0]) + viz.token_html(tokens[1], outlined=True) in page
    assert "<p>details</p>" in page


def test_a_probability_that_is_nearly_none_is_no_tag():
    source = viz.alternative_html(1, "a", 0.00002, chosen=False) + viz.alternative_html(2, "b", 0.99999, chosen=True)
    assert source.count("&lt; 0.01 %") == 1 and source.count("&gt; 99.9 %") == 1
    assert "< 0" not in source and "> 99" not in source


HEBREW = "\u05e9\u05dc\u05d5\u05dd"


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("", "ltr"),
        ("12, ", "ltr"),
        ("a" + HEBREW, "ltr"),
        (HEBREW + "a", "rtl"),
        (f"12 {HEBREW}", "rtl"),
        ("\u0633", "rtl"),
    ],
)
def test_a_text_is_read_from_the_side_of_its_first_letter(text, side):
    assert viz.direction(text) == side


def test_no_text_is_paler_than_can_be_read():
    """On JupyterLab's pages, also where what stands back lies within what stands back: the contrast is at least 4.5."""

    def luminance(grey: float) -> float:
        return grey / 12.92 if grey <= 0.04045 else ((grey + 0.055) / 1.055) ** 2.4

    share = float(viz.MUTED.removeprefix("opacity: ")) ** 2
    for page, ink, opacity in ((1.0, 0.0, 0.87), (0x11 / 255, 1.0, 1.0), (0x21 / 255, 1.0, 1.0)):
        text = page + (ink - page) * opacity * share
        dark, light = sorted(map(luminance, (page, text)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5
    folder = Path(viz.__file__).parent
    paler = [path.name for path in folder.glob("*.py") if re.search(r"opacity: 0?\.[0-7]", path.read_text())]
    assert paler == []
