"""A stressed model is the same function by larger numbers."""

import pytest
import torch

from persimmon_lab.numerics import stress
from persimmon_lab.numerics.compare import compare, in_dtype
from tests.models import ids, tiny


def largest(model) -> dict[str, float]:
    """Each module's largest magnitude."""
    return {module.path: module.distance.largest for module in compare(model, {"itself": model}, ids()).modules}


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(ids()).logits


@pytest.mark.parametrize("factor", [2.0**-10, 0.5, 16.0, 2.0**20])
def test_powers_of_two_change_no_bit_of_the_result(factor):
    model = tiny()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for stressed in (stress.scale_mlp(model, factor), stress.scale_residual(model, factor)):
        assert torch.equal(logits(stressed), logits(model))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert model.model.final_layernorm.eps == 1e-5


def test_other_factors_change_it_by_rounding_alone():
    model = in_dtype(tiny(), torch.float64)
    for stressed in (stress.scale_mlp(model, 3.7), stress.scale_residual(model, 3.7)):
        assert 0 < (logits(stressed) - logits(model)).abs().max() < 1e-12


def test_the_mlp_is_scaled_where_it_was_asked_for():
    calm, stressed = largest(tiny()), largest(stress.scale_mlp(tiny(), 16.0, layers=[1]))
    grown = {path: stressed[path] / calm[path] for path in calm}
    assert grown.pop("model.layers.1.mlp.dense_h_to_4h") == 16
    assert grown.pop("model.layers.1.mlp.activations") == 256
    assert set(grown.values()) == {1}


def test_the_residual_stream_is_scaled_and_nothing_else():
    calm, stressed = largest(tiny()), largest(stress.scale_residual(tiny(), 64.0))
    written = ("embed_tokens", "self_attn.dense", "self_attn", "mlp.dense_4h_to_h", "mlp", "dropout", "layers.0",
               "layers.1")  # fmt: skip
    for path in calm:
        assert stressed[path] / calm[path] == (64 if path.endswith(written) else 1), path


def test_what_cannot_be_stressed():
    with pytest.raises(ValueError, match="hidden_act is 'gelu'"):
        stress.scale_mlp(tiny(hidden_act="gelu"), 2.0)
    with pytest.raises(ValueError, match="factor is 0"):
        stress.scale_mlp(tiny(), 0)
    with pytest.raises(ValueError, match="factor is -2"):
        stress.scale_residual(tiny(), -2.0)
    with pytest.raises(ValueError, match="no layer 2: the model's layers are 0 … 1"):
        stress.scale_mlp(tiny(), 2.0, layers=[0, 2])
    with pytest.raises(ValueError, match="tied to lm_head"):
        stress.scale_residual(tiny(tie_word_embeddings=True), 2.0)


def test_a_caption_says_which_layers_and_how_much():
    assert "MLP pre-activations of all layers times 64," in stress.what_scale_mlp_does(64.0)
    assert "of layer 3 times 0.5," in stress.what_scale_mlp_does(0.5, [3])
    assert "of layers 1, 2 times" in stress.what_scale_mlp_does(2.0, range(1, 3))
    assert "residual stream times 8192," in stress.what_scale_residual_does(8192)
