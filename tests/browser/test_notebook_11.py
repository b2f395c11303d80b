"""Notebook 11 as a reader meets it: run all, stress the model in the explorer, answer an exercise, run all again."""

from pathlib import Path

from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "11_float16_or_bfloat16.ipynb"
ANSWER = """def half_step(weights, fraction_bits):
    return 2.0 ** (weights.abs().log2().floor() - fraction_bits - 1)"""


def test_a_readers_answer_survives_run_all(jupyter):
    page = jupyter.page
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 3
    assert sum("✓ right" in output for output in jupyter.outputs()) == 3  # the solutions

    picture = page.locator("img.widget-image")
    before = picture.get_attribute("src")
    page.locator("input[type=checkbox]").check()
    expect(picture).not_to_have_attribute("src", before)

    jupyter.write_into_cell("def half_step(", ANSWER)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 2
    assert sum("✓ right" in output for output in jupyter.outputs()) == 4
