"""Notebook 08 as a reader meets it: answer an exercise."""

NOTEBOOK = "08_remembering.ipynb"
ANSWER = """def longest_context(free_bytes, layers, heads, head_dim, bytes_per_number, batch):
    return free_bytes // (2 * layers * heads * head_dim * bytes_per_number * batch)"""


def test_a_readers_answer_is_marked(jupyter):
    jupyter.open_excerpt(NOTEBOOK, "def longest_context(")
    jupyter.run_all()
    jupyter.answer("def longest_context(", ANSWER)
