"""No key that is pressed inside a widget reaches the notebook around it, where x and d d delete the cell."""

import pytest
from playwright.sync_api import expect

from tests.browser.test_playground import SETUP, TEN, button, shown

KEYS = ("x", "d", "d", "b", "a", "ArrowDown", "ArrowUp", "Shift+ArrowDown")
CELLS = "window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.sharedModel.getSource())"
INSIDE = "document.activeElement.closest('.persimmon-widget') !== null"
MODE = "window.jupyterapp.shell.currentWidget.content.mode"


@pytest.fixture
def keep(jupyter):
    """A function that presses keys which mean something to a notebook, and sees that this one heard none."""

    def keep(thing) -> None:
        thing.click()
        assert jupyter.page.evaluate(INSIDE), "it has no focus to lose"
        cells = jupyter.page.evaluate(CELLS)
        for key in KEYS:
            jupyter.page.keyboard.press(key)
        assert jupyter.page.evaluate(CELLS) == cells
        assert jupyter.page.evaluate(INSIDE), "the focus went to the notebook"
        assert jupyter.page.evaluate(MODE) == "command"

    return keep


def test_in_the_playground(jupyter, keep):
    jupyter.open([SETUP, TEN, "21 + 21"])
    jupyter.run_all()
    page = jupyter.page
    keep(button(jupyter, "Generate"))
    expect(shown(jupyter)).to_have_count(10)
    keep(shown(jupyter).nth(4))
    keep(shown(jupyter).nth(6))
    expect(page.locator(".details [data-about='1:6']")).to_be_visible()
    keep(page.locator(".details tr[data-token]").filter(has_not_text="◂").first)
    branches = page.locator(".persimmon-branches [data-number]")
    expect(branches).to_have_count(2)
    expect(button(jupyter, "Stop")).to_be_disabled()
    keep(branches.first)
    keep(page.locator(".noUi-handle").first)
    keep(page.get_by_label("chat format"))
    keep(button(jupyter, "Save JSON"))
    expect(branches).to_have_count(2)


def test_in_the_others(jupyter, keep):
    jupyter.open([
        "from persimmon_lab import PersimmonConfig",
        "from persimmon_lab.widgets import AttentionExplorer, LensExplorer, RotaryExplorer, TokenInspector",
        "TokenInspector()",
        "RotaryExplorer(PersimmonConfig.tiny(), position=5)",
        "LensExplorer()",
        "AttentionExplorer()",
    ])  # fmt: skip
    jupyter.run_all()
    page = jupyter.page
    keep(page.locator(".persimmon-pieces .piece").nth(3))
    keep(page.locator(".persimmon-pieces input[type=checkbox]"))
    keep(page.get_by_role("button", name="linear"))
    keep(page.locator(".noUi-handle").first)
    keep(page.locator(".persimmon-lens .cell").first)
    keep(page.locator(".persimmon-lens .choice label").first)
    keep(page.locator(".persimmon-attention .token").nth(3))
    keep(page.locator(".persimmon-attention .grid button").nth(3))
