"""Notebook 09 as a reader meets it: an answer with the best-known mistake is told what is missing."""

NOTEBOOK = "09_choosing_words.ipynb"
BUG = """def nucleus_mask(logits, temperature, top_p):
    p, order = (logits / temperature).softmax(dim=-1).sort(descending=True)
    stays = p.cumsum(dim=-1) < top_p
    return stays.scatter(-1, order, stays)"""


def test_an_answer_without_the_shift_is_told_so(jupyter):
    jupyter.open_excerpt(NOTEBOOK, "def nucleus_mask(")
    jupyter.run_all()
    assert "○ not answered yet" in jupyter.outputs()[-1]
    jupyter.write_into_cell("def nucleus_mask(", BUG)
    jupyter.run_all()
    (told,) = (output for output in jupyter.outputs() if "✗ not yet" in output)
    assert "shift by one" in told
