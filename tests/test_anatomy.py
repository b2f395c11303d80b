"""Paths mean what the models make of them; the axes are compared with runs in tests/trace/test_sizes.py."""

import pytest
from torch import nn

from persimmon_lab.anatomy import PARTS, any_layer, axes_of, layer_of, operation_of, part_at, within_layer
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.classification import PersimmonForSequenceClassification
from persimmon_lab.config import PersimmonConfig


@pytest.mark.parametrize(
    "path, layer, within, kind",
    [
        ("model.layers.12.mlp.act", 12, "mlp.act", "model.layers.N.mlp.act"),
        ("layers.0", 0, "", "layers.N"),
        ("layers.0:input", 0, ":input", "layers.N:input"),
        ("model.layers.3.self_attn.dense.weight", 3, "self_attn.dense.weight", "model.layers.N.self_attn.dense.weight"),
        ("language_model.encoder.layers.2.mlp", 2, "mlp", "language_model.encoder.layers.N.mlp"),
        ("model.layers", None, "model.layers", "model.layers"),
        ("model.sublayers.3.mlp", None, "model.sublayers.3.mlp", "model.sublayers.3.mlp"),
        ("layers.3x.mlp", None, "layers.3x.mlp", "layers.3x.mlp"),
        ("lm_head", None, "lm_head", "lm_head"),
    ],
)
def test_the_layer_of_a_path(path, layer, within, kind):
    assert layer_of(path) == layer
    assert within_layer(path) == within
    assert any_layer(path) == kind
    assert any_layer(path, "*") == kind.replace("layers.N", "layers.*")


def test_operations_in_words():
    assert operation_of("model.layers.3") == "residual stream"
    assert operation_of("model.layers.3.self_attn.k_layernorm") == "LayerNorm"
    assert operation_of("model.layers.3.mlp.activations", "relu2") == "squared ReLU"
    assert operation_of("model.layers.3.mlp.activations", "gelu") == "activation gelu"
    assert operation_of("model.layers.3.mlp.act") == "act"  # transformers' name for it
    assert operation_of("blocks.3") == "3"


def test_axes_of_what_a_module_is_given_and_makes():
    assert axes_of("model.layers.3.self_attn.dense") == ("batch", "position", "hidden")
    assert axes_of("layers.3.self_attn.dense:input") == ("batch", "position", "(head channel)")
    assert axes_of("layers.3:input") == ("batch", "position", "hidden")
    assert axes_of("embed_tokens:input") is None  # ids
    assert axes_of("blocks.3") is None


def test_every_module_of_the_models_is_a_part_and_every_part_a_module():
    tiny = PersimmonConfig.tiny()
    paths = {
        path
        for model in (PersimmonForCausalLM(tiny), PersimmonForSequenceClassification(tiny))
        for path, module in model.named_modules()
        if path not in ("", "model") and not isinstance(module, nn.ModuleList)
    }
    assert {part_at(path) for path in paths} == set(PARTS.values())
    assert {path for path in paths if part_at(path) is None} == set()
