"""Notebook 14 as a reader meets it: answer an exercise."""

NOTEBOOK = "14_as_fast_as_the_memory.ipynb"
ANSWER = """def round_rows(weight):
    step = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / 127
    return torch.round(weight / step) * step"""


def test_a_readers_answer_is_marked(jupyter):
    jupyter.open_excerpt(NOTEBOOK, "def round_rows(")
    jupyter.run_all()
    jupyter.answer("def round_rows(", ANSWER)
