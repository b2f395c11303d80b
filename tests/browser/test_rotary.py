"""The rotary explorer in a real browser: its controls reach the kernel, and the picture comes back."""

import pytest
from playwright.sync_api import expect

EXPLORER = [
    "from persimmon_lab import PersimmonConfig\nfrom persimmon_lab.widgets.rotary import RotaryExplorer",
    "config = PersimmonConfig.tiny(hidden_size=128, max_position_embeddings=512)\n"
    "explorer = RotaryExplorer(config, position=300)\n"
    "explorer",
]


def shown(page) -> str:
    """Where the browser has the picture now; every new picture is a new address."""
    return page.locator("img.widget-image").get_attribute("src")


def move(page, control) -> None:
    """Do something to a control and wait until the picture follows."""
    before = shown(page)
    control()
    expect(page.locator("img.widget-image")).not_to_have_attribute("src", before)


def slider(page, name):
    return page.locator(".widget-inline-hbox", has=page.get_by_text(name, exact=True)).locator(".noUi-handle")


def use_every_control(page) -> None:
    expect(page.locator("img.widget-image")).to_be_visible()
    page.wait_for_function("document.querySelector('img.widget-image').naturalWidth > 900")
    move(page, lambda: slider(page, "position").press("ArrowRight"))
    expect(page.locator(".widget-inline-hbox", has_text="position").locator(".widget-readout")).to_have_text("301")
    move(page, lambda: slider(page, "theta").press("ArrowLeft"))
    move(page, lambda: page.get_by_role("button", name="0.75").click())
    move(page, lambda: page.get_by_role("button", name="linear").click())
    move(page, lambda: page.locator("input[type=checkbox]").check())


@pytest.fixture
def page(jupyter):
    return jupyter.page


def test_the_explorer_in_jupyterlab(jupyter, page):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    use_every_control(page)
    jupyter.screenshot("rotary-explorer")


def test_the_explorer_in_voila(jupyter, page):
    jupyter.open_voila(EXPLORER)
    use_every_control(page)
