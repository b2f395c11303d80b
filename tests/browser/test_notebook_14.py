"""Notebook 14 as a reader meets it: run all, answer an exercise, run all again."""

from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "14_as_fast_as_the_memory.ipynb"
ANSWER = """def round_rows(weight):
    step = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127
    return torch.round(weight / step) * step"""


def test_a_readers_answer_survives_run_all(jupyter):
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 3
    assert sum("✓ right" in output for output in jupyter.outputs()) == 3  # the solutions

    jupyter.write_into_cell("def round_rows(", ANSWER)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 2
    assert sum("✓ right" in output for output in jupyter.outputs()) == 4
