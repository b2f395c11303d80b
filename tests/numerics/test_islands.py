"""Float32 islands cure what happens inside them, and the search finds those that are needed."""

import pytest
import torch

from persimmon_lab import load_mini
from persimmon_lab.numerics.compare import compare, in_dtype
from persimmon_lab.numerics.islands import close, keep_in_float32, outermost, smallest_island
from persimmon_lab.numerics.stress import scale_mlp, scale_residual
from tests.models import ids, tiny


@torch.no_grad()
def test_an_island_computes_in_float32_between_two_casts():
    """Worked out by hand: the half-precision layer, its MLP in float32 with the unrounded weights."""
    model = tiny(num_hidden_layers=1)
    mixed = keep_in_float32(model, torch.bfloat16, ["*.mlp"])
    half = in_dtype(model, torch.bfloat16)
    seen = {}
    for name in ("post_attention_layernorm", "mlp"):
        half.model.layers[0].get_submodule(name).register_forward_hook(
            lambda _module, given, made, name=name: seen.update({name: made, f"into {name}": given[0]})
        )
    half(ids())
    attended, normed = seen["into post_attention_layernorm"], seen["post_attention_layernorm"]
    made = attended + model.model.layers[0].mlp(normed.float()).bfloat16()
    expected = half.lm_head(half.model.final_layernorm(made))
    assert torch.equal(mixed(ids()).logits, expected)
    assert not torch.equal(half(ids()).logits, expected)


def test_weights_of_islands_are_float32_and_the_originals():
    model = tiny()
    mixed = keep_in_float32(model, torch.float16, ["*.0.self_attn", "model.final_layernorm"])
    for (name, original), parameter in zip(model.named_parameters(), mixed.parameters(), strict=True):
        inside = ".0.self_attn." in name or "final_layernorm" in name
        assert parameter.dtype is (torch.float32 if inside else torch.float16), name
        assert torch.equal(parameter.float(), original if inside else original.half().float())
        assert parameter.data_ptr() != original.data_ptr()


@torch.no_grad()
def test_all_float32_is_the_model_itself_but_for_the_casts_between():
    model = tiny()
    final = model.model(ids()).last_hidden_state.bfloat16()
    body = keep_in_float32(model, torch.bfloat16, ["model"])
    assert torch.equal(body(ids()).logits, in_dtype(model, torch.bfloat16).lm_head(final))
    whole = keep_in_float32(model, torch.bfloat16, ["model", "lm_head"])
    assert torch.equal(whole(ids()).logits, model.lm_head(final.float()).bfloat16())


@torch.no_grad()
def test_attention_with_its_mask_and_its_tables_may_be_an_island():
    for implementation in ("eager", "sdpa"):
        model = tiny(attn_implementation=implementation)
        padding = torch.tensor([[0, 0] + [1] * 7, [1] * 9])
        mixed = keep_in_float32(model, torch.float16, ["*.self_attn"])
        exact, found = (each(ids(), attention_mask=padding).logits for each in (model, mixed))
        assert (found - exact)[padding.bool()].abs().max() < 0.02


@torch.no_grad()
def test_a_tied_head_may_be_an_island_alone():
    model = tiny(tie_word_embeddings=True)
    mixed = keep_in_float32(model, torch.bfloat16, ["lm_head"])
    assert mixed.model.embed_tokens.weight.dtype is torch.bfloat16
    assert mixed.lm_head.weight.dtype is torch.float32
    assert mixed(ids()).logits.dtype is torch.bfloat16


def test_an_island_in_an_island_is_one_island():
    model = tiny()
    assert outermost(model, ["*.1.mlp.*", "*.1.mlp", "lm_head"]) == ["model.layers.1.mlp", "lm_head"]
    assert outermost(model, ["*"]) == ["model", "lm_head"]
    tall = tiny(num_hidden_layers=11)
    assert outermost(tall, ["*.layers.1", "*.layers.10"]) == ["model.layers.1", "model.layers.10"]
    mixed = keep_in_float32(model, torch.float16, ["*.1.mlp", "*.1.mlp.*"])
    assert [path for path, module in mixed.named_modules() if module._forward_pre_hooks] == ["model.layers.1.mlp"]


def test_patterns_and_models_that_make_no_island():
    with pytest.raises(ValueError, match="no module with weights matches 'model.layers'"):
        outermost(tiny(), ["model.layers"])  # a list, which is never called
    with pytest.raises(ValueError, match=r"no module with weights matches '\*.mlpp'"):
        keep_in_float32(tiny(), torch.float16, ["*.mlp", "*.mlpp"])
    with pytest.raises(ValueError, match=r"no module with weights matches '\*.activations'"):
        keep_in_float32(tiny(), torch.float16, ["*.activations"])
    with pytest.raises(ValueError, match=r"the model is torch.float16; islands take their weights from a float32"):
        keep_in_float32(in_dtype(tiny(), torch.float16), torch.float16, ["*.mlp"])


def test_gradients_flow_through_an_island():
    mixed = keep_in_float32(tiny(), torch.bfloat16, ["*.mlp"])
    mixed(ids(), labels=ids()).loss.backward()
    for name, parameter in mixed.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype is parameter.dtype, name


def test_the_shipped_model_overflows_where_it_is_stressed_and_the_islands_are_just_these():
    model, tokenizer = load_mini()
    stressed = scale_mlp(model, 128.0, layers=[2, 5])
    text = tokenizer("The laws of physics are the same for all observers.", return_tensors="pt").input_ids
    search = smallest_island(stressed, torch.float16, text)
    assert search.islands == ("model.layers.2.mlp", "model.layers.5.mlp")
    frame = search.frame()
    assert frame["action"].tolist() == ["all", "none", "add", "add", "drop", "drop"]
    assert frame["restored"].tolist() == [True, False, False, True, False, False]
    assert frame["first not finite"][1].startswith("model.layers.2.mlp.activations")
    assert frame["first not finite"][2].startswith("model.layers.5.mlp.activations")
    # Once more, and without the search: with the islands it holds, with either of them alone it does not.
    for islands, holds in ((search.islands, True), (search.islands[:1], False), (search.islands[1:], False)):
        mixed = keep_in_float32(stressed, torch.float16, islands)
        assert close(compare(stressed, {"mixed": mixed}, text).predictions["mixed"]) == holds


@torch.no_grad()
def test_where_nothing_overflows_every_candidate_is_tried():
    """Planted in layer 1: two neurons near 1,024 that nearly cancel on the way down; bfloat16 has steps of 4 there."""
    model = tiny(num_hidden_layers=3)
    mlp = model.model.layers[1].mlp
    mlp.dense_h_to_4h.weight[:2] *= torch.tensor([[0.01], [0.0]])
    mlp.dense_h_to_4h.bias[:2] = 32
    mlp.dense_4h_to_h.weight[:, 0] *= 5
    mlp.dense_4h_to_h.weight[:, 1] = -mlp.dense_4h_to_h.weight[:, 0]
    search = smallest_island(model, torch.bfloat16, ids(), candidates=["*.self_attn", "*.mlp", "lm_head"])
    assert search.islands == ("model.layers.1.mlp",)
    frame = search.frame()
    assert frame["action"].tolist() == ["all", "none", *["try"] * 7, "add"]
    tried = frame[frame["action"] == "try"]
    assert tried["restored"].sum() == 1
    assert (tried["islands"] == 1).all()


def test_an_island_that_proves_unnecessary_is_dropped():
    """By a criterion that answers as it was told to: both are needed, it seems, and then the first is not."""
    answers = iter([True, False, False, False, False, True, True, False])
    search = smallest_island(tiny(num_hidden_layers=1), torch.bfloat16, ids(), candidates=["*.self_attn", "*.mlp"],
                             restores=lambda made: next(answers))  # fmt: skip
    assert [step.action for step in search.steps] == ["all", "none", "try", "try", "add", "add", "drop", "drop"]
    both = search.steps[5].islands
    assert both == ("model.layers.0.self_attn", "model.layers.0.mlp")
    assert search.islands == both[1:] == search.steps[6].islands


def test_what_no_island_cures_is_said_at_once():
    """The residual stream itself overflows, between the islands."""
    stressed = scale_residual(tiny(), 2.0**17)
    search = smallest_island(stressed, torch.float16, ids(), candidates=["*.self_attn", "*.mlp"])
    assert search.islands is None
    assert search.frame()["action"].tolist() == ["all"]


def test_where_nothing_is_wrong_no_island_is_needed():
    search = smallest_island(tiny(), torch.float16, ids())
    assert search.islands == ()
    assert [step.action for step in search.steps] == ["all", "none"]
