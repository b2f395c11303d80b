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

    # After layer 6 "ring" is first; one layer below it is far down the list.
    details = page.locator(".persimmon-lens .details")
    expect(details).to_contain_text("Layer 6, after MLP")
    expect(details).to_contain_text("rank 1 of 4,096")
    page.locator(".persimmon-lens .cell[aria-pressed='true']").click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(details).to_contain_text("Layer 5, after MLP")
    expect(details).to_contain_text(re.compile(r"rank [5-9]\d of 4,096"))

    jupyter.answer("def read_stream(", ANSWER)
