"""Notebook 10 as a reader meets it: run all, repair the converter, run all again."""

from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "10_real_weights.ipynb"
REPAIRED = """def join(name, parts):
    return merge(name, list(parts))"""


def test_a_reader_repairs_the_converter(jupyter):
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    before = "\n".join(jupyter.outputs())
    assert before.count("○ not answered yet") == 1
    assert "✗ not yet: model.layers.0.input_layernorm.bias: every rank holds a copy" in before
    assert before.count("✓ right") == 2  # the solutions

    jupyter.write_into_cell("def join(name, parts):", REPAIRED)
    jupyter.run_all()
    after = "\n".join(jupyter.outputs())
    assert "✗ not yet" not in after
    assert after.count("✓ right") == 3
