"""Notebook 05 as a reader meets it: run all, move the gain, answer an exercise, run all again."""

from pathlib import Path

from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "05_bounded_attention.ipynb"
ANSWER = """def largest_score(head_dim, query_weight, key_weight):
    return abs(query_weight * key_weight) * math.sqrt(head_dim)"""


def test_a_readers_answer_survives_run_all(jupyter):
    page = jupyter.page
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 5
    assert sum("✓ right" in output for output in jupyter.outputs()) == 5  # the solutions

    picture = page.locator("img.widget-image")
    before = picture.get_attribute("src")
    handle = page.locator(".widget-inline-hbox", has=page.get_by_text("gain", exact=True)).locator(".noUi-handle")
    handle.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", before)

    jupyter.write_into_cell("def largest_score(", ANSWER)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 4
    assert sum("✓ right" in output for output in jupyter.outputs()) == 6
