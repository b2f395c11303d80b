"""Notebook 04 as a reader meets it: answer the open exercise, run all, and find the answer measured on the model."""

from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "04_257_is_256.ipynb"
ANSWER = """def two_turns(positions, table):
    cos, sin = table(torch.arange(128))[:, positions % 128]
    high_cos, high_sin = table(torch.arange(0, 16384, 128))[:, positions // 128]
    return torch.stack((cos * high_cos - sin * high_sin, sin * high_cos + cos * high_sin))"""


def test_a_readers_repair_is_marked_and_measured(jupyter):
    jupyter.open(NOTEBOOK)
    jupyter.write_into_cell("def two_turns(", ANSWER)
    jupyter.run_all()
    outputs = jupyter.outputs()
    assert sum("○ not answered yet" in output for output in outputs) == 2
    assert sum("✓ right" in output for output in outputs) == 4  # three solutions and the reader's own
    measured = next(output for output in outputs if "the solution: KL" in output)
    assert "yours: KL" in measured
    assert jupyter.page.locator("img.widget-image").count() == 1  # the explorer
