"""This package and transformers agree at every module that both have; a planted bug is named."""

import pytest
import torch
import transformers

from persimmon_lab import load_mini
from persimmon_lab.mini import MINI
from persimmon_lab.numerics.compare import in_dtype
from persimmon_lab.numerics.parity import parity
from persimmon_lab.numerics.tolerances import NORMS
from tests.models import ids, tiny
from tests.parity.cases import fill

# The norms of transformers come before its heads move forward, so the number of positions here is that of the heads:
# tensors of the two layouts then have one shape.
TEXT = ids(2, 4)


def their_tiny(**overrides):
    config = tiny(**overrides).config.to_dict()
    return fill(transformers.PersimmonForCausalLM(transformers.PersimmonConfig(**config))).eval()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("overrides", [{}, {"qk_layernorm": False}, {"tie_word_embeddings": True}], ids=str)
def test_tiny_models_agree_with_transformers(overrides, implementation):
    theirs, ours = their_tiny(**overrides), tiny(**overrides, attn_implementation=implementation)
    for text in (TEXT, ids(2, 11)):
        found = parity(theirs, ours, text)
        assert found.tolerance == NORMS[torch.float32]
        assert found.holds, str(found)
        assert len(found.comparison.modules) == (23 if "qk_layernorm" in overrides else 27)
        assert str(found).startswith("agree (tolerance 1e-05 of the norm")


def test_the_shipped_model_agrees_with_transformers(report_table):
    ours, tokenizer = load_mini()
    theirs = transformers.PersimmonForCausalLM.from_pretrained(MINI, dtype=torch.float32)
    text = tokenizer("The laws of physics are the same for all observers.", return_tensors="pt").input_ids
    found = parity(theirs, ours, text)
    assert found.holds, str(found)
    worst = found.frame()["relative error"].max()
    report_table("persimmon-mini beside transformers 5", [{"modules": len(found.comparison.modules), "worst": worst}])
    assert worst < 2e-6
    ours.model.layers[3].self_attn.k_layernorm.eps = 1e-3
    assert parity(theirs, ours, text).first_difference == "model.layers.3.self_attn.k_layernorm"


def test_another_dtype_has_the_tolerance_of_the_coarser():
    for dtype in (torch.float16, torch.bfloat16):
        found = parity(tiny(), in_dtype(tiny(), dtype), TEXT)
        assert found.holds
        assert found.tolerance == NORMS[dtype] == parity(in_dtype(tiny(), dtype), tiny(), TEXT).tolerance
        assert not parity(tiny(), in_dtype(tiny(), dtype), TEXT, tolerance=1e-5).holds


def scaled(module, factor=1.001):
    with torch.no_grad():
        module.weight *= factor


@pytest.mark.parametrize(
    ("where", "plant"),
    [
        ("model.embed_tokens", lambda model: scaled(model.model.embed_tokens)),
        ("model.layers.1.self_attn.dense", lambda model: scaled(model.model.layers[1].self_attn.dense)),
        ("model.layers.0.mlp.activations", lambda model: setattr(model.model.layers[0].mlp, "act", torch.relu)),
        ("model.layers.1.self_attn.rotated_key", lambda model: model.model.layers[1].self_attn.rotated_key
         .register_forward_hook(lambda _module, _given, made: made.roll(1, dims=2))),
        ("lm_head", lambda model: scaled(model.lm_head)),
    ],
)  # fmt: skip
def test_the_first_difference_is_where_the_bug_was_planted(where, plant):
    broken = tiny()
    plant(broken)
    found = parity(tiny(), broken, TEXT)
    assert found.first_difference == where
    assert not found.holds
    assert f"DIFFER, first at {where}" in str(found)


def test_the_report_names_the_worst_module_of_every_layer():
    broken = tiny()
    scaled(broken.model.layers[1].mlp.dense_4h_to_h, 2.0)
    found = parity(tiny(), broken, TEXT)
    layers, frame = found.layers(), found.frame()
    assert list(layers.index) == ["model.embed_tokens", "layer 0", "layer 1", "model.final_layernorm", "lm_head"]
    assert layers.loc["layer 0", "relative error"] == 0
    assert layers.loc["layer 1", "worst module"] == "model.layers.1.mlp.dense_4h_to_h"
    assert layers.loc["layer 1", "relative error"] == frame[frame["layer"] == 1]["relative error"].max()
    report = str(found)
    assert "likeliest tokens differ" in report
    assert "layer 1" in report.splitlines()[-3]


def test_the_report_tells_of_numbers_that_are_not_finite():
    model = tiny()
    scaled(model.model.layers[0].mlp.dense_h_to_4h, 1000.0)
    report = str(parity(model, in_dtype(model, torch.float16), TEXT))
    assert "first number that is not finite: model.layers.0.mlp.activations" in report


def test_only_some_modules():
    found = parity(tiny(), tiny(), TEXT, only=["*.mlp"])
    assert list(found.frame()["path"]) == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert str(found).startswith("agree")


def test_a_parity_shows_itself_in_a_line():
    found = parity(tiny(), tiny(), TEXT)
    assert repr(found).startswith("<Parity: agree (tolerance 1e-05 of the norm, ")
    assert "\n" not in repr(found) and str(found).count("\n") > 3
