"""Notebook 13 as a reader meets it: run all, walk through the explorer, answer an exercise, run all again."""

import re
from pathlib import Path

from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "13_when_does_it_know.ipynb"
ANSWER = """def read_stream(stream, weight, bias, eps, rows):
    return torch.nn.functional.layer_norm(stream, stream.shape[-1:], weight, bias, eps) @ rows.T"""


def test_the_explorer_answers_and_a_readers_answer_survives_run_all(jupyter):
    page = jupyter.page
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 3
    assert sum("✓ right" in output for output in jupyter.outputs()) == 3  # the solutions

    # After layer 6 "ring" is first; one layer below it is far down the list.
    details = page.locator(".persimmon-lens .details")
    expect(details).to_contain_text("Layer 6, after MLP")
    expect(details).to_contain_text("rank 1 of 4,096")
    page.locator(".persimmon-lens .cell[aria-pressed='true']").click()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(details).to_contain_text("Layer 5, after MLP")
    expect(details).to_contain_text(re.compile(r"rank [5-9]\d of 4,096"))

    jupyter.write_into_cell("def read_stream(", ANSWER)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 2
    assert sum("✓ right" in output for output in jupyter.outputs()) == 4
