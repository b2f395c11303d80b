"""Every tensor of the attention passes through a module with a name, where a hook sees it and may replace it."""

import math
import weakref

import pytest
import torch

from tests.models import ids, tiny
from tests.tolerances import TOLERANCE

ATTENTION_TAPS = ("rotated_query", "rotated_key", "value", "scores", "pattern", "head_output")
FUSED_TAPS = ("rotated_query", "rotated_key", "value", "head_output")


def taps_of(model, layer: int = 0, **arguments) -> dict[str, torch.Tensor]:
    """What each tap of a layer let through in one forward."""
    seen, handles = {}, []
    for parent, tap in [*(("self_attn", tap) for tap in ATTENTION_TAPS), ("mlp", "activations")]:

        def remember(module, given, output, name=tap):
            seen[name] = output

        module = model.get_submodule(f"model.layers.{layer}.{parent}.{tap}")
        handles.append(module.register_forward_hook(remember))
    model(ids(), **arguments)
    for handle in handles:
        handle.remove()
    return seen


def close(ours, theirs) -> bool:
    return torch.allclose(ours, theirs, atol=TOLERANCE[torch.float32])


def test_taps_reach_what_the_layer_computes():
    """Each recomputed from those before: scores from query and key, pattern from scores, output from both."""
    model = tiny(attn_implementation="eager")
    output = model(ids(), output_attentions=True, output_hidden_states=True)
    for index, layer in enumerate(model.model.layers):
        seen = taps_of(model, index)
        assert seen["rotated_query"].shape == (2, 4, 9, 16)
        products = seen["rotated_query"] @ seen["rotated_key"].transpose(-1, -2) / math.sqrt(16)
        visible = torch.ones(9, 9).tril().bool().expand(2, 4, 9, 9)
        assert close(seen["scores"][visible], products[visible])
        assert close(seen["pattern"], products.masked_fill(~visible, -math.inf).softmax(-1))
        assert close(seen["pattern"], output.attentions[index])
        assert close(seen["head_output"], seen["pattern"] @ seen["value"])
        heads_side_by_side = torch.cat(seen["head_output"].unbind(1), dim=-1)
        after_attention = output.hidden_states[index] + layer.self_attn.dense(heads_side_by_side)
        neurons = layer.mlp.dense_h_to_4h(layer.post_attention_layernorm(after_attention)).relu() ** 2
        assert close(seen["activations"], neurons)
        if index == 0:
            assert close(after_attention + layer.mlp.dense_4h_to_h(neurons), output.hidden_states[1])


def test_keys_and_values_of_the_taps_are_those_of_the_cache():
    model = tiny()
    key, value = model(ids()).past_key_values[1]
    seen = taps_of(model, 1)
    assert torch.equal(seen["rotated_key"], key)
    assert torch.equal(seen["value"], value)


def test_the_fused_kernel_has_the_same_taps_but_scores_and_pattern():
    fused, eager = taps_of(tiny()), taps_of(tiny(attn_implementation="eager"))
    assert fused.keys() == {*FUSED_TAPS, "activations"}
    assert eager.keys() == {*ATTENTION_TAPS, "activations"}
    for name in fused:
        assert close(fused[name], eager[name])


def test_asking_for_attentions_makes_every_tap_speak():
    assert taps_of(tiny(), output_attentions=True).keys() == {*ATTENTION_TAPS, "activations"}


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("tap", FUSED_TAPS)
def test_what_a_hook_returns_replaces_the_tensor(implementation, tap):
    model = tiny(attn_implementation=implementation)
    before = model(ids()).logits

    def without_head_2(module, given, output):
        return output.index_fill(1, torch.tensor([2]), 0.0)

    handle = getattr(model.model.layers[0].self_attn, tap).register_forward_hook(without_head_2)
    changed = model(ids()).logits
    handle.remove()
    assert (changed - before).abs().max() > 0.01
    assert torch.equal(model(ids()).logits, before)


def test_a_replaced_pattern_is_the_pattern_that_is_used_and_returned():
    model = tiny(attn_implementation="eager")
    uniform = torch.ones(9, 9).tril() / torch.arange(1, 10)[:, None]
    tap = model.model.layers[0].self_attn.pattern
    tap.register_forward_hook(lambda module, given, output: uniform.expand_as(output))
    seen = taps_of(model)
    assert close(seen["head_output"], uniform @ seen["value"])
    assert torch.equal(model(ids(), output_attentions=True).attentions[0], uniform.expand(2, 4, 9, 9))


def test_taps_hold_no_weights():
    names = [name for name, _ in tiny().named_parameters()]
    assert not any(tap in name.split(".") for tap in (*ATTENTION_TAPS, "activations") for name in names)
    assert tiny().state_dict().keys() == set(names)


@torch.no_grad()
def test_nothing_is_kept_that_was_not_asked_for():
    """By the end of a forward the patterns and hidden states of earlier layers are gone."""
    model = tiny(attn_implementation="eager", num_hidden_layers=3)
    kept, alive_at_the_end = [], []
    layers = model.model.layers
    layers[0].self_attn.pattern.register_forward_hook(lambda *call: kept.append(weakref.ref(call[2])))
    layers[1].input_layernorm.register_forward_pre_hook(lambda *call: kept.append(weakref.ref(call[1][0])))
    model.model.final_layernorm.register_forward_hook(
        lambda *call: alive_at_the_end.append([reference() is not None for reference in kept])
    )
    model(ids(), use_cache=False)
    model(ids(), use_cache=False, output_attentions=True, output_hidden_states=True)
    assert alive_at_the_end == [[False, False], [False, False, True, True]]
