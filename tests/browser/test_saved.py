"""A notebook that was run and saved shows its pictures to whoever opens it without its kernel, in JupyterLab.

A student saves one and opens it again, which the server trusts; a teacher gets a copy, which it does not.
"""

import nbformat
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import DISPOSE_ALL

CELLS = [
    "from persimmon_lab.widgets import AttentionExplorer, GainExplorer\nGainExplorer()",
    "AttentionExplorer()",
    "from persimmon_lab.widgets import TokenInspector\nTokenInspector('to Hannah')",
    "from persimmon_lab import load_mini\nfrom persimmon_lab.widgets import GenerationPlayground\n"
    "GenerationPlayground(*load_mini(), 'Once upon', max_new_tokens=5).generate().wait()",
]
PICTURES = 'img.jp-needs-light-background[width="900"], .persimmon-still'
SAVED = "() => !window.jupyterapp.shell.currentWidget.context.model.dirty"


@pytest.mark.parametrize("is_copy", [False, True], ids=["trusted", "copied"])
def test_a_saved_notebook_shows_its_pictures_without_its_kernel(jupyter, is_copy):
    jupyter.open(CELLS)
    jupyter.run_all()
    page, pictures = jupyter.page, jupyter.page.locator(PICTURES)
    expect(page.locator(".persimmon-widget img.widget-image")).to_be_visible()
    expect(page.locator(".persimmon-attention .details tr")).not_to_have_count(0)
    expect(page.locator(".persimmon-tokens .text .token")).to_have_count(5)
    expect(pictures).to_have_count(4)
    assert not any(picture.is_visible() for picture in pictures.all()), "beside the living widget"
    jupyter.command("docmanager:save")
    page.wait_for_function(SAVED)
    name = page.evaluate("window.jupyterapp.shell.currentWidget.context.path")
    page.evaluate(DISPOSE_ALL)
    jupyter.shut_down_kernels()

    notebook = nbformat.read(jupyter.server.notebooks / name, as_version=4)
    if is_copy:
        notebook.cells[0].source += "\n# another file"
        jupyter.open(notebook)
    else:
        jupyter.command("docmanager:open", path=name, factory="Notebook")
    for place in range(4):
        expect(pictures.nth(place)).to_be_visible()
    assert page.locator(".jp-OutputArea img").count() == 2, "each picture once"
    expect(pictures.nth(2)).to_contain_text("ways to cut")
    expect(pictures.nth(3)).to_contain_text("Once upon")
    assert page.locator(".persimmon-widget").count() == 0


def test_voila_shows_the_widget_alone(jupyter):
    jupyter.open_voila(CELLS[:1])
    expect(jupyter.page.locator(".persimmon-widget img.widget-image")).to_be_visible()
    assert not any(picture.is_visible() for picture in jupyter.page.locator(PICTURES).all())
