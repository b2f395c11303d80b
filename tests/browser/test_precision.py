"""The precision explorer in a real browser: its controls reach the kernel, and what it found comes back."""

import pytest
from playwright.sync_api import expect

EXPLORER = [
    "from persimmon_lab.widgets import PrecisionExplorer",
    'explorer = PrecisionExplorer(text="To be, or not to be")\nexplorer',
]


def use_every_control(page) -> None:
    picture, told = page.locator("img.widget-image"), page.locator(".widget-html")

    def move(control, became: str) -> None:
        """Do something to a control; wait until another picture comes, and below it what became of the model."""
        before = picture.get_attribute("src")
        control()
        expect(picture).not_to_have_attribute("src", before)
        expect(told).to_contain_text(became)

    expect(picture).to_be_visible()
    page.wait_for_function("document.querySelector('img.widget-image').naturalWidth > 900")
    expect(told).to_contain_text("not stressed")
    slider = page.locator(".widget-inline-hbox", has=page.get_by_text("by", exact=True))
    move(lambda: slider.locator(".noUi-handle").press("End"), "float16 ends at 65,504")
    expect(slider.locator(".widget-readout")).to_have_text("× 8192")
    move(lambda: page.get_by_label("module", exact=True).select_option("squared ReLU"), "not finite")
    move(lambda: page.locator("input[type=checkbox]").check(), "mean KL")
    move(lambda: page.locator("input[type=checkbox]").uncheck(), "not finite")
    move(lambda: page.get_by_role("button", name="bfloat16").click(), "mean KL")
    move(lambda: page.get_by_role("button", name="residual stream").click(), "mean KL")


@pytest.fixture
def page(jupyter):
    return jupyter.page


def test_the_explorer_in_jupyterlab(jupyter, page):
    jupyter.open(EXPLORER)
    jupyter.run_all()
    use_every_control(page)
    jupyter.screenshot("precision-explorer")


def test_the_explorer_in_voila(jupyter, page):
    jupyter.open_voila(EXPLORER)
    use_every_control(page)
