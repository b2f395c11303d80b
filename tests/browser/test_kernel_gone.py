"""A widget whose kernel was restarted says so, instead of waiting for ever."""

from playwright.sync_api import expect

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
