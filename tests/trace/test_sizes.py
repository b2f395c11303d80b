"""How much a capture keeps is known before it runs, and too much is refused then."""

import math

import pytest
import torch

from persimmon_lab import (
    DynamicCache,
    PersimmonForCausalLM,
    PersimmonForSequenceClassification,
    PersimmonModel,
    footprint,
)
from persimmon_lab.anatomy import axes_of
from persimmon_lab.footprint import in_bytes
from persimmon_lab.numerics.islands import keep_in_float32
from persimmon_lab.trace.capture import capture, capturing
from persimmon_lab.trace.names import sites
from persimmon_lab.trace.patch import patch
from persimmon_lab.trace.sizes import default_limit, kept_bytes
from tests.models import ids, tiny

EVERYTHING = ["*", "*:input"]


def names_with_axes(model) -> list[str]:
    return [site.name for site in sites(model, EVERYTHING) if axes_of(site.name)]


def kept(trace) -> dict[str, int]:
    return {name: tensor.nbytes for name, tensor in trace.items()}


@pytest.mark.parametrize("model_class", [PersimmonForCausalLM, PersimmonModel, PersimmonForSequenceClassification])
@pytest.mark.parametrize(
    "choice", [{}, {"heads": [3, 0]}, {"positions": [-1]}, {"heads": [1], "positions": [0, 5, -1]}], ids=str
)
def test_every_activation_has_the_size_that_was_said_before(model_class, choice):
    # Sizes that differ from each other, so that no axis can stand for another.
    model = tiny(model_class, pad_token_id=0, num_labels=5, intermediate_size=112)
    if model_class is PersimmonForSequenceClassification:
        choice = choice | {"attention_mask": torch.ones(2, 9, dtype=torch.long)}
    names = names_with_axes(model)
    said = kept_bytes(model, ids(), only=names, **choice)
    trace = capture(model, ids(), only=names, **choice)
    assert said == kept(trace)
    assert sum(said.values()) == trace.nbytes
    assert len(said) > 2 * 15 * 2
    for name, tensor in trace.items():
        assert len(trace.axes[name]) == tensor.ndim


def test_the_only_modules_without_axes_hold_others_and_make_no_tensor():
    names = [site.name for site in sites(tiny(), None) if axes_of(site.name) is None]
    assert names == ["model"]


def test_after_a_past_the_keys_count_all_positions():
    model = tiny()
    cache = DynamicCache()
    model(ids(2, 5), past_key_values=cache)
    for past in (cache, cache.to_legacy_cache()):
        arguments = {"only": ["pattern", "value"], "past_key_values": past}
        trace = capture(model, ids(2, 3), **arguments)
        assert trace["layers.1.self_attn.pattern"].shape == (2, 4, 3, 8)
        assert kept_bytes(model, ids(2, 3), **arguments) == kept(trace)
    assert cache.get_seq_length() == 5


def test_embeddings_instead_of_ids_and_logits_of_the_last_positions():
    model = tiny()
    arguments = {
        "inputs_embeds": torch.zeros(3, 7, 64),
        "logits_to_keep": 2,
        "only": ["lm_head", "lm_head:input", "mlp"],
    }
    trace = capture(model, **arguments)
    assert trace["lm_head"].shape == (3, 2, model.config.vocab_size)
    assert kept_bytes(model, **arguments) == kept(trace)


def test_bytes_follow_the_dtype_where_the_activation_is_made():
    model = keep_in_float32(tiny(), torch.bfloat16, ["layers.1.self_attn"])
    names = ["rotated_query", "query_key_value", "dense_4h_to_h"]
    trace = capture(model, ids(), only=names)
    assert {tensor.dtype for tensor in trace.values()} == {torch.bfloat16, torch.float32}
    assert kept_bytes(model, ids(), only=names) == kept(trace)


def test_gradients_count_whole():
    model = tiny()
    plain = kept_bytes(model, ids(), only=["head_output"])
    sliced = kept_bytes(model, ids(), only=["head_output"], heads=[1], gradients=True)
    assert all(sliced[name] == plain[name] // 4 + plain[name] for name in plain)


def test_too_much_is_refused_before_anything_runs(monkeypatch):
    model = tiny()
    monkeypatch.setattr(PersimmonForCausalLM, "forward", lambda *_, **__: pytest.fail("it ran"))
    total = sum(kept_bytes(model, ids()).values())
    with pytest.raises(MemoryError) as refusal:
        capture(model, ids(), limit_bytes=total - 1)
    message = str(refusal.value)
    assert f"{in_bytes(total)} of activations were asked for and {in_bytes(total - 1)} may be kept" in message
    largest = "model.layers.0.mlp.dense_h_to_4h 18.4 kB, model.layers.0.mlp.activations 18.4 kB"
    for part in (largest, "and 38 more. Ask", "only=[...]", "heads=[...]", "positions=[...]", "limit_bytes=..."):
        assert part in message


def test_exactly_as_much_as_allowed_is_kept():
    total = sum(kept_bytes(tiny(), ids()).values())
    assert capture(tiny(), ids(), limit_bytes=total).nbytes == total


def test_a_gradient_that_is_too_much_is_refused_as_well():
    total = sum(kept_bytes(tiny(), ids(), only=["mlp"]).values())
    asked = {"only": ["mlp"], "gradient_of": lambda output: output.logits.sum()}
    with pytest.raises(MemoryError):
        capture(tiny(), ids(), limit_bytes=2 * total - 1, **asked)
    assert capture(tiny(), ids(), limit_bytes=2 * total, **asked).nbytes == total


def test_many_passes_stop_before_they_keep_too_much():
    model = tiny()
    one = sum(kept_bytes(model, ids(), only=["mlp"]).values())
    with capturing(model, only=["mlp"], limit_bytes=2.5 * one) as steps:
        model(ids())
        model(ids())
        with pytest.raises(MemoryError, match="2 earlier passes 18.4 kB"):
            model(ids())
        assert len(steps) == 2
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_pass_that_failed_does_not_count():
    model = tiny()
    one = sum(kept_bytes(model, ids(), only=["mlp"]).values())
    with capturing(model, only=["mlp"], limit_bytes=2 * one) as steps:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError), patch(model, {"lm_head": lambda x: 1 / 0}):
                model(ids())
        model(ids())
        model(ids())
    assert len(steps) == 2


def test_a_model_of_unknown_axes_is_counted_as_it_goes():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    assert kept_bytes(model, ids()) == {}
    with capturing(model, limit_bytes=100) as steps, pytest.raises(MemoryError, match="0 64 bytes|1 64 bytes"):
        model(torch.zeros(4, 4))
    assert steps == []


def test_by_default_half_of_what_is_free_may_be_kept(monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", lambda: {"cuda:0": 10, "cpu": 5000})
    assert default_limit(tiny()) == 2500
    with pytest.raises(MemoryError, match="2.5 kB may be kept"):
        capture(tiny(), ids(), only=["mlp"])
    with pytest.raises(MemoryError, match="2.5 kB may be kept"), capturing(tiny(), only=["mlp"]) as _:
        model = tiny()
        with capturing(model, only=["mlp"]):
            model(ids())
    monkeypatch.setattr(footprint, "free_memory", dict)
    assert default_limit(tiny()) == math.inf
