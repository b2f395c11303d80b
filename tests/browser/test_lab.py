"""The lab's ground: JupyterLab opens and runs a notebook, its widgets answer, and Voila shows the same as a page."""

import pytest
from playwright.sync_api import expect

WIDGET = [
    "import ipywidgets\nfrom IPython.display import display",
    "button, answer = ipywidgets.Button(description='Add one'), ipywidgets.Label('0')\n"
    "button.on_click(lambda _: setattr(answer, 'value', str(int(answer.value) + 1)))\n"
    "display(button, answer)",
]


def test_a_notebook_runs(jupyter):
    jupyter.open(["21 + 21", "import persimmon_lab\nprint(persimmon_lab.__name__)"])
    jupyter.run_all()
    assert jupyter.outputs()[0].split() == ["[1]:", "42"]
    assert "persimmon_lab" in jupyter.outputs()[1]


def test_a_failing_cell_fails_the_run(jupyter):
    jupyter.open(["1 / 0", "2"])
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        jupyter.run_all()


def test_a_widget_reaches_its_kernel_and_back(jupyter):
    jupyter.open(WIDGET)
    jupyter.run_all()
    button = jupyter.page.get_by_role("button", name="Add one")
    button.click()
    expect(jupyter.page.locator(".widget-label")).to_have_text("1")
    button.click()
    expect(jupyter.page.locator(".widget-label")).to_have_text("2")


def test_voila_serves_a_notebook(jupyter):
    jupyter.open_voila(WIDGET)
    jupyter.page.get_by_role("button", name="Add one").click()
    expect(jupyter.page.locator(".widget-label")).to_have_text("1")
    expect(jupyter.page.get_by_text("import ipywidgets")).to_have_count(0)


def test_a_failing_cell_fails_the_page(jupyter):
    with pytest.raises(AssertionError):
        jupyter.open_voila(["1 / 0"])
