"""Notebook 10 as a reader meets it: run all, repair the converter, run all again."""

from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "10_real_weights.ipynb"
REPAIRED = """def join(name, parts):
    return merge(name, list(parts))"""

WRITE_INTO_CELL = """([start, source]) => {
    const cells = window.jupyterapp.shell.currentWidget.content.widgets;
    const cell = cells.find(cell => cell.model.sharedModel.getSource().startsWith(start));
    cell.model.sharedModel.setSource(source);
}"""


def test_a_reader_repairs_the_converter(jupyter):
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    before = "\n".join(jupyter.outputs())
    assert before.count("○ not answered yet") == 1
    assert "✗ not yet: model.layers.0.input_layernorm.bias: every rank holds a copy" in before
    assert before.count("✓ right") == 2  # the solutions

    jupyter.page.evaluate(WRITE_INTO_CELL, ["def join(name, parts):", REPAIRED])
    jupyter.run_all()
    after = "\n".join(jupyter.outputs())
    assert "✗ not yet" not in after
    assert after.count("✓ right") == 3
