"""Notebook 06 as a reader meets it: two answers, a right and a wrong one, and run all."""

from pathlib import Path

from playwright.sync_api import expect

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "06_neurons_that_stay_silent.ipynb"
ANSWER = """def skip_silent(activations, weight, bias):
    needed = activations.any(dim=0)
    return F.linear(activations[:, needed], weight[:, needed], bias)"""
WRONG = """def squared_relu_derivative(x):
    return (x > 0).float()"""


def test_answers_survive_run_all_and_are_marked(jupyter):
    page = jupyter.page
    jupyter.open(NOTEBOOK)
    jupyter.write_into_cell("def skip_silent(", ANSWER)
    jupyter.write_into_cell("def squared_relu_derivative(", WRONG)
    jupyter.run_all()
    outputs = jupyter.outputs()
    assert sum("○ not answered yet" in output for output in outputs) == 2
    assert sum("✓ right" in output for output in outputs) == 5  # four solutions and the reader's own
    assert sum("✗ not yet: this is ReLU's derivative" in output for output in outputs) == 1
    assert page.locator(".jp-OutputArea-output img").count() == 5  # every figure

    contexts = page.locator(".jp-OutputArea-output table").first
    expect(contexts).to_contain_text("human")
    contexts.scroll_into_view_if_needed()
    jupyter.screenshot("neuron_contexts")
