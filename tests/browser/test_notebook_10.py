"""Notebook 10 as a reader meets it: its converter is wrong until the reader repairs it."""

NOTEBOOK = "10_real_weights.ipynb"
REPAIRED = """def join(name, parts):
    if name.endswith(("self_attn.dense.weight", "dense_4h_to_h.weight")):
        return rearrange(parts, "rank row column -> row (rank column)")
    if any(part in name for part in ("query_key_value", "dense_h_to_4h", "embed_tokens", "lm_head")):
        return rearrange(parts, "rank row ... -> (rank row) ...")
    return parts[-1]"""


def test_a_reader_repairs_the_converter(jupyter):
    jupyter.open_excerpt(NOTEBOOK, "def join(name, parts):")
    jupyter.run_all()
    assert "✗ not yet: model.layers.0.input_layernorm.bias: every rank holds a copy" in jupyter.outputs()[-1]
    jupyter.write_into_cell("def join(name, parts):", REPAIRED)
    jupyter.run_all()
    assert jupyter.outputs()[-1].count("✓ right") == 1
