"""Notebook 01 as a reader meets it: run all, type into the inspector, answer an exercise, run all again."""

from pathlib import Path

from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_tokens_are_probabilities.ipynb"
ANSWER = """def count_cuts(text, scores):
    ways = [1] + [0] * len(text)
    for end in range(1, len(text) + 1):
        ways[end] = sum(ways[start] for start in range(end) if text[start:end] in scores)
    return ways[-1]"""


def test_a_readers_answer_survives_run_all(jupyter):
    page = jupyter.page
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 4
    assert sum("✓ right" in output for output in jupyter.outputs()) == 4  # the solutions

    inspector = page.locator(".persimmon-pieces")
    expect(inspector.locator(".details")).to_contain_text("18 ways to cut it")
    inspector.get_by_label("Text to cut into pieces").fill("unbelievably")
    expect(inspector.locator(".details")).to_contain_text("120 ways to cut it")
    inspector.get_by_text("lie", exact=True).first.click()
    expect(inspector.locator(".details")).to_contain_text("characters 4\u20137")

    jupyter.write_into_cell("def count_cuts(", ANSWER)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 3
    assert sum("✓ right" in output for output in jupyter.outputs()) == 5
