"""Notebook 13 as a reader meets it: walk through the explorer, answer an exercise."""

import re

from playwright.sync_api import expect

NOTEBOOK = "13_when_does_it_know.ipynb"
ANSWER = """def read_stream(stream, weight, bias, eps, rows):
    return torch.nn.functional.layer_norm(stream, stream.shape[-1:], weight, bias, eps) @ rows.T"""


def test_the_explorer_answers_and_a_readers_answer_is_marked(jupyter):
    page = jupyter.page
    jupyter.open_excerpt(NOTEBOOK, "from persimmon_lab.widgets import LensExplorer", "def read_stream(")
    jupyter.run_all()

    # It begins at the first layer that has the following token on top; one layer below another token is.
    details = page.locator(".persimmon-lens .details")
    expect(details).to_contain_text("rank 1 of 4,096")
    layer = int(re.search(r"Layer (\d), after MLP", details.inner_text())[1])
    page.locator(".persimmon-lens .cell[aria-pressed='true']").click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(details).to_contain_text(f"Layer {layer - 1}, after MLP")
    expect(details).to_contain_text(re.compile(r"rank ([2-9]|\d[\d,]+) of 4,096"))

    jupyter.answer("def read_stream(", ANSWER)
