"""Notebook 07 as a reader meets it: run all, answer an exercise, run all again."""

from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "07_a_whole_persimmon.ipynb"
ANSWER = """def post_norm_block(x, attention, mlp, first_norm, second_norm):
    x = first_norm(x + attention(x))
    return second_norm(x + mlp(x))"""
BUG = """def answer_loss(logits, ids, start):
    log_probability = logits.log_softmax(dim=-1)
    losses = -log_probability.gather(-1, rearrange(ids, "batch position -> batch position 1"))[..., 0]
    return losses[torch.arange(ids.shape[1]) >= rearrange(start, "batch -> batch 1")].mean()"""


def test_answers_survive_run_all_and_are_marked(jupyter):
    jupyter.open(NOTEBOOK)
    jupyter.write_into_cell("def post_norm_block(", ANSWER)
    jupyter.write_into_cell("def answer_loss(", BUG)
    jupyter.run_all()
    outputs = jupyter.outputs()
    assert sum("○ not answered yet" in output for output in outputs) == 3
    assert sum("✓ right" in output for output in outputs) == 6  # five solutions and the reader's own
    (told,) = (output for output in outputs if "✗ not yet" in output)
    assert "there is no shift" in told
    figures = jupyter.page.locator(".jp-OutputArea-output img")
    assert figures.count() == 7
    jupyter.page.get_by_role("heading", name="12 · Take the norms away").scroll_into_view_if_needed()
    jupyter.screenshot("notebook_07")
