"""The gain explorer in a real browser: its controls reach the kernel, by mouse and by keys, and the picture follows."""

import re

import pytest
from playwright.sync_api import expect

from persimmon_lab import load_mini
from persimmon_lab.widgets.panels.gain import Bench, Settings
from persimmon_lab.widgets.reading import TEXT

EXPLORER = ["from persimmon_lab.widgets import GainExplorer", "explorer = GainExplorer()\nexplorer"]


def move(page, control) -> None:
    """Do something to a control and wait until the picture follows."""
    picture = page.locator("img.widget-image")
    before = picture.get_attribute("src")  # every new picture is a new address
    control()
    expect(picture).not_to_have_attribute("src", before)


def slider(page, name):
    return page.locator(".widget-inline-hbox", has=page.get_by_text(name, exact=True)).locator(".noUi-handle")


def largest_score() -> str:
    """That of the head that is shown first, with the norm."""
    bench = Bench(*load_mini(), TEXT)
    return f"largest score {float(bench.scores(Settings())[bench.visible].abs().max()):.1f} "


def use_every_control(page) -> None:
    shown = largest_score()
    expect(page.locator("img.widget-image")).to_be_visible()
    page.wait_for_function("document.querySelector('img.widget-image').naturalWidth > 900")
    words = page.locator(".widget-html-content", has_text="Layer")
    expect(words).to_contain_text(f"Layer 6, head 3, queries and keys × 1, with the norm: {shown}")
    slider(page, "gain").focus()
    for _ in range(4):
        move(page, lambda: page.keyboard.press("ArrowRight"))
    expect(words).to_contain_text(f"queries and keys × 4, with the norm: {shown}")  # nothing has moved
    move(page, lambda: page.locator("input[type=checkbox]").press("Space"))
    expect(words).to_contain_text(re.compile(r"× 4, without the norm: largest score \d,\d{3}"))
    expect(words).to_contain_text(re.compile(r"entropy 0\.0\d bits"))


def choose_another_head(page) -> None:
    words = page.locator(".widget-html-content", has_text="Layer")
    move(page, lambda: slider(page, "layer").press("ArrowLeft"))
    move(page, lambda: slider(page, "head").press("ArrowRight"))
    expect(words).to_contain_text("Layer 5, head 4, queries and keys × 4, without the norm")


@pytest.fixture
def page(jupyter):
    return jupyter.page


def test_the_explorer_in_jupyterlab(jupyter, page):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    use_every_control(page)
    jupyter.screenshot("gain-explorer")
    choose_another_head(page)


def test_the_explorer_in_voila(jupyter, page):
    jupyter.open_voila(EXPLORER)
    use_every_control(page)
    choose_another_head(page)
