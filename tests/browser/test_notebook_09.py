"""Notebook 09 as a reader meets it: run all, answer an exercise, run all again."""

from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "09_choosing_words.ipynb"
BUG = """def nucleus_mask(logits, temperature, top_p):
    p, order = (logits / temperature).softmax(dim=-1).sort(descending=True)
    stays = p.cumsum(dim=-1) < top_p
    return stays.scatter(-1, order, stays)"""


def test_an_answer_without_the_shift_is_told_so(jupyter):
    jupyter.open(NOTEBOOK)
    jupyter.write_into_cell("def nucleus_mask(", BUG)
    jupyter.run_all()
    outputs = jupyter.outputs()
    assert sum("○ not answered yet" in output for output in outputs) == 3
    assert sum("✓ right" in output for output in outputs) == 4  # the solutions
    (told,) = (output for output in outputs if "✗ not yet" in output)
    assert "shift by one" in told
    jupyter.page.get_by_role("heading", name="7 · Looking ahead: beams").scroll_into_view_if_needed()
    jupyter.screenshot("notebook_09")
