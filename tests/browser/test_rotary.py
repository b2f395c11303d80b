"""The rotary explorer in a real browser: its controls reach the kernel, and the picture comes back."""

import pytest
from playwright.sync_api import expect

EXPLORER = [
    "from persimmon_lab import PersimmonConfig\nfrom persimmon_lab.widgets import RotaryExplorer",
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
    expect(page.get_by_text("Linear scaling by 4: position 301 is read as 75.25.")).to_be_visible()
    expect(page.get_by_text("bfloat16 holds 75.25 as 75;")).to_be_visible()


def use_the_keyboard(page) -> None:
    """Dynamic scaling follows the length of the input, by keys alone."""
    slider(page, "position").focus()
    reached = []
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.type"))
    assert {"0.25", "1.0", "linear", "dynamic", "checkbox"} <= set(reached)
    move(page, lambda: page.get_by_role("button", name="dynamic").press("Enter"))
    within = page.get_by_text("an input of 302 is within the 512 positions of training, so theta stays.")
    expect(within).to_be_visible()
    move(page, lambda: slider(page, "position").press("End"))
    expect(
        page.get_by_text("an input of 2,049 is beyond the 512 positions of training, so theta becomes")
    ).to_be_visible()
    move(page, lambda: page.locator("input[type=checkbox]").press("Space"))


@pytest.fixture
def page(jupyter):
    return jupyter.page


def test_the_explorer_in_jupyterlab(jupyter, page):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    use_every_control(page)
    jupyter.screenshot("rotary-explorer")
    use_the_keyboard(page)


def test_what_no_model_can_have_is_told(jupyter, page):
    jupyter.open(["from persimmon_lab import PersimmonConfig\nfrom persimmon_lab.widgets import RotaryExplorer",
                  "RotaryExplorer(PersimmonConfig.tiny(hidden_size=16), position=5)"])  # fmt: skip
    jupyter.run_all()
    expect(page.locator("img.widget-image")).to_be_visible()
    page.get_by_role("button", name="dynamic").click()
    expect(page.get_by_text("dynamic rope_scaling needs a rotary width above 2")).to_be_visible()
    move(page, lambda: page.get_by_role("button", name="1.0").click())
    expect(page.get_by_text("4 of a head's 4 channels rotate, 0 pass")).to_be_visible()


def test_the_explorer_in_voila(jupyter, page):
    jupyter.open_voila(EXPLORER)
    use_every_control(page)
