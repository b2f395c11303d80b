"""Notebook 08 as a reader meets it: run all, answer an exercise, run all again."""

from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "08_remembering.ipynb"
ANSWER = """def longest_context(free_bytes, layers, heads, head_dim, bytes_per_number, batch):
    return free_bytes // (2 * layers * heads * head_dim * bytes_per_number * batch)"""


def test_a_readers_answer_survives_run_all(jupyter):
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 4
    assert sum("✓ right" in output for output in jupyter.outputs()) == 4  # the solutions

    jupyter.write_into_cell("def longest_context(", ANSWER)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 3
    assert sum("✓ right" in output for output in jupyter.outputs()) == 5
