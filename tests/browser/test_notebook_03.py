"""Notebook 03 as a reader meets it: run all, move the explorer, answer an exercise, run all again."""

from pathlib import Path

from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "03_rotation_as_position.ipynb"
ANSWER = """def undo_rotation(rotated, positions, theta, rotary_dim):
    cos, sin = tables(positions, frequencies(rotary_dim, theta))
    return rotate(rotated, cos, -sin)"""


def test_a_readers_answer_survives_run_all(jupyter):
    page = jupyter.page
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 4
    assert sum("✓ right" in output for output in jupyter.outputs()) == 4  # the solutions

    picture = page.locator("img.widget-image")
    before = picture.get_attribute("src")
    page.locator("input[type=checkbox]").uncheck()
    expect(picture).not_to_have_attribute("src", before)

    jupyter.write_into_cell("def undo_rotation(", ANSWER)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 3
    assert sum("✓ right" in output for output in jupyter.outputs()) == 5
