"""The token inspector in a real browser: it cuts what is typed, and explains what is clicked, walked to or hovered."""

import re

import pytest
from playwright.sync_api import expect

from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.unigram import Unigram
from persimmon_lab.widgets.tokens.widget import TEXT, Reading

TOKENIZER = PersimmonTokenizer.from_pretrained(MINI)
UNIGRAM = Unigram.of(TOKENIZER)
READING = Reading(TEXT, TOKENIZER, UNIGRAM)
INSPECTOR = [
    "from persimmon_lab.widgets import TokenInspector",
    "inspector = TokenInspector()\ninspector",
]


@pytest.fixture
def page(jupyter):
    return jupyter.page


def names(page) -> list[str]:
    """Every piece as its tooltip calls it."""
    titles = page.locator(".pieces > .piece").evaluate_all("spans => spans.map(span => span.title)")
    return [title.split(" · ")[0] for title in titles]


def shown(piece) -> str:
    """A piece as the page writes it."""
    return piece.name.replace("▁", "␣")


def use(page) -> None:
    """Type, tick, click, walk, hover, let go; at each step the page says what the tokenizer does."""
    details, area = page.locator(".details"), page.get_by_label("Text to cut into pieces")
    least = READING.least_certain()  # it is explained unasked
    stretch, (first, end) = READING.stretch(least)
    expect(details).to_contain_text(f"{stretch.ways} ways to cut it")
    expect(page.locator(".piece.together")).to_have_text([shown(piece) for piece in READING.pieces[first:end]])
    last = shown(READING.pieces[-1])

    page.locator(".pieces").get_by_text("␣gave", exact=True).click()
    expect(details).to_contain_text("characters 8\u201313")
    page.keyboard.press("ArrowLeft")
    expect(details).to_contain_text("id ")
    expect(page.locator(".piece[aria-pressed=true]")).to_have_text("␣king")
    page.keyboard.press("Home")
    expect(details).to_contain_text("a special token")
    page.keyboard.press("End")
    expect(page.locator(".piece[aria-pressed=true]")).to_have_text(last)
    expect(page.locator(".piece[aria-pressed=true]")).to_be_focused()
    page.locator(".pieces").get_by_text("␣seven", exact=True).hover()
    expect(details).to_contain_text("20 73 65 76 65 6E")
    area.hover()
    expect(page.locator(".piece[aria-pressed=true]")).to_have_text(last)  # what was chosen is back
    page.keyboard.press("Escape")
    expect(page.locator(".piece[aria-pressed=true]")).to_have_text(shown(READING.pieces[least]))

    area.fill("\u67ff <b>|ENDOFTEXT|")
    expect(page.locator(".counts")).to_contain_text("16 characters · 18 bytes")
    expect(page.locator(".pieces > .piece.byte")).to_have_count(3)  # the pieces come after their counts
    assert names(page)[:5] == ["|ENDOFTEXT|", "▁", "<0xE6>", "<0x9F>", "<0xBF>"]
    assert names(page).count("|ENDOFTEXT|") == 1
    assert page.locator(".pieces b").count() == 0
    page.locator(".piece.byte").nth(1).click()
    expect(details).to_contain_text("2 of 3 of \u67ff")
    page.get_by_label("read special tokens").check()
    expect(page.locator(".counts")).to_contain_text("(2 special)")
    expect(page.locator(".pieces > .piece").last).to_have_attribute("title", re.compile(r"^\|ENDOFTEXT\|"))


def test_the_inspector_in_jupyterlab(jupyter, page):
    jupyter.open(INSPECTOR)
    jupyter.run_all()
    use(page)
    area = page.get_by_label("Text to cut into pieces")
    area.fill("human: Do persimmons grow in Hannah's unbelievably small garden?\n\nadept: \u67ff")
    expect(page.locator(".counts")).to_contain_text("(1 special)")
    page.locator(".pieces").get_by_text("␣grow", exact=True).click()
    expect(page.locator(".details")).to_contain_text("ways to cut it")
    jupyter.screenshot("token-inspector")
    area.press("End")
    area.press_sequentially(" \U0001f34a")  # what is typed arrives whole, and no key is a command of JupyterLab
    expect(page.locator(".pieces")).to_contain_text("\U0001f34a")


def test_two_views_and_a_long_text(jupyter, page):
    cells = [*INSPECTOR, "inspector", "inspector.text = 'persimmon ' * 500", "print(len(inspector.pieces))"]
    jupyter.open(cells)
    jupyter.run_all()
    counts = [page.locator(".persimmon-pieces").nth(view).locator(".pieces > .piece") for view in (0, 1)]
    for view in counts:
        expect(view).to_have_count(int(jupyter.outputs()[-1]))
    page.get_by_label("Text to cut into pieces").nth(1).fill("two views")
    for view in counts:
        expect(view).to_have_text([shown(piece) for piece in Reading("two views", TOKENIZER, UNIGRAM).pieces])


def test_the_inspector_in_a_dark_theme(jupyter, page):
    jupyter.open(INSPECTOR)
    jupyter.command("apputils:change-theme", theme="JupyterLab Dark")
    jupyter.run_all()
    expect(page.locator(".details")).to_contain_text("ways to cut it")
    jupyter.screenshot("token-inspector-dark")


def test_the_inspector_in_voila(jupyter, page):
    jupyter.open_voila(INSPECTOR)
    use(page)
