"""Notebook 06 as a reader meets it: run all, answer an exercise, run all again."""

from pathlib import Path

from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_neurons_that_stay_silent.ipynb"
ANSWER = """def skip_silent(activations, weight, bias):
    needed = activations.any(dim=0)
    return F.linear(activations[:, needed], weight[:, needed], bias)"""
WRONG = """def squared_relu_derivative(x):
    return (x > 0).float()"""


def test_a_readers_answer_survives_run_all(jupyter):
    page = jupyter.page
    jupyter.open(NOTEBOOK)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 4
    assert sum("✓ right" in output for output in jupyter.outputs()) == 4  # the solutions
    assert page.locator(".jp-OutputArea-output img").count() == 5  # every figure

    contexts = page.locator(".jp-OutputArea-output table").first
    expect(contexts).to_contain_text("human")
    contexts.scroll_into_view_if_needed()
    jupyter.screenshot("neuron_contexts")

    jupyter.write_into_cell("def skip_silent(", ANSWER)
    jupyter.write_into_cell("def squared_relu_derivative(", WRONG)
    jupyter.run_all()
    assert sum("○ not answered yet" in output for output in jupyter.outputs()) == 2
    assert sum("✓ right" in output for output in jupyter.outputs()) == 5
    assert sum("✗ not yet: this is ReLU's derivative" in output for output in jupyter.outputs()) == 1
