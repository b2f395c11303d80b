"""A widget whose kernel was restarted says so, instead of waiting for ever."""

from playwright.sync_api import expect

from tests.browser.test_playground import SETUP, SLOW, button, shown

GAIN = "from persimmon_lab.widgets import GainExplorer\nGainExplorer()"


def test_a_widget_says_that_its_kernel_is_gone_and_its_picture_has_a_text(jupyter):
    jupyter.open([GAIN])
    jupyter.run_all()
    widget = jupyter.page.locator(".persimmon-widget").first
    assert "largest score" in widget.locator("img").get_attribute("alt")
    word = widget.get_by_text("The kernel of this widget is gone")
    expect(word).to_have_count(0)
    jupyter.page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    expect(word).to_be_visible()


def test_a_playground_whose_kernel_is_restarted_while_it_writes_says_so(jupyter):
    """Its run is lost with the kernel: it says what to do, and once its cell was run again it writes again."""
    jupyter.open([SETUP, SLOW])
    jupyter.run_all()
    page = jupyter.page
    button(jupyter, "Generate").click()
    expect(shown(jupyter).nth(5)).to_be_visible()
    word = page.locator(".persimmon-widget").first.get_by_text("The kernel of this widget is gone")
    expect(word).to_have_count(0)
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    expect(word).to_be_visible()
    before = shown(jupyter).count()
    assert before > 5, "what was written stays to be read"
    assert page.get_by_text("The kernel of this widget is gone").count() == 1, "said once, and not by every part"
    jupyter.run_all()
    expect(page.get_by_text("The kernel of this widget is gone")).to_have_count(0)
    button(jupyter, "Generate").click()
    expect(shown(jupyter).nth(5)).to_be_visible()
