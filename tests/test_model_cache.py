"""A cache changes the work, not the answer; and it comes back in the format that went in."""

import pytest
import torch

from persimmon_lab import DynamicCache, PersimmonConfig, PersimmonForCausalLM, StaticCache
from persimmon_lab.attention import apply_rotary, split_heads
from persimmon_lab.generation.engines.reserved_cache import ReservedCache
from persimmon_lab.rotary import rotary_tables
from tests.models import ids, tiny
from tests.tolerances import TOLERANCE

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["eager", "sdpa"])
CACHES = pytest.mark.parametrize("make_cache", [DynamicCache, lambda: StaticCache(9), lambda: StaticCache(20)])


def close(ours, theirs) -> bool:
    return torch.allclose(ours, theirs, atol=TOLERANCE[torch.float32])


@IMPLEMENTATIONS
@CACHES
@pytest.mark.parametrize("sizes", [(9,), (4, 5), (1,) * 9, (3, 1, 5)])
@torch.no_grad()
def test_pieces_give_what_the_whole_gives(implementation, make_cache, sizes):
    model, cache, pieces = tiny(attn_implementation=implementation), make_cache(), []
    for piece in ids().split(sizes, dim=1):
        output = model(piece, past_key_values=cache)
        assert output.past_key_values is cache
        pieces.append(output.logits)
    assert cache.get_seq_length() == 9
    assert close(torch.cat(pieces, dim=1), model(ids()).logits)


@IMPLEMENTATIONS
@CACHES
@torch.no_grad()
def test_pieces_of_a_padded_text(implementation, make_cache):
    model, cache = tiny(attn_implementation=implementation), make_cache()
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 0, 1, 1]])
    model(ids()[:, :5], attention_mask=mask[:, :5], past_key_values=cache)
    last = model(ids()[:, 5:], attention_mask=mask, past_key_values=cache).logits
    assert close(last, model(ids(), attention_mask=mask).logits[:, 5:])


def test_keys_are_kept_after_their_rotation():
    model = tiny()
    attention, hidden = model.model.layers[0].self_attn, model.model.layers[0].input_layernorm
    _, key, value = split_heads(attention.query_key_value(hidden(model.model.embed_tokens(ids()))), attention.head_dim)
    cos, sin = rotary_tables(torch.arange(9)[None], model.config, 9, torch.float32)
    kept_key, kept_value = model(ids()).past_key_values[0]
    assert kept_key.shape == (2, 4, 9, 16)
    assert close(kept_key, apply_rotary(attention.k_layernorm(key), cos, sin))
    assert close(kept_value, value)


def test_a_tuple_comes_back_as_a_tuple_and_is_left_alone():
    model = tiny()
    first = model(ids()[:, :4]).past_key_values
    assert type(first) is tuple
    assert [type(layer) for layer in first] == [tuple, tuple]
    second = model(ids()[:, 4:], past_key_values=first).past_key_values
    assert type(second) is tuple
    assert [key.shape[-2] for key, _ in first] == [4, 4]
    assert [key.shape[-2] for key, _ in second] == [9, 9]


def test_an_empty_cache_object_is_filled():
    cache = DynamicCache()
    tiny()(ids(), past_key_values=cache)
    assert [cache.get_seq_length(layer) for layer in range(2)] == [9, 9]


@CACHES
def test_without_use_cache_a_past_is_read_and_left_as_it_is(make_cache):
    """The peer crashes here."""
    model, cache = tiny(), make_cache()
    with torch.no_grad():
        model(ids()[:, :4], past_key_values=cache)
        output = model(ids()[:, 4:], past_key_values=cache, use_cache=False)
        assert output.past_key_values is None
        assert [cache.get_seq_length(layer) for layer in range(2)] == [4, 4]
        legacy = model(ids()[:, 4:], past_key_values=cache.to_legacy_cache(), use_cache=False)
        whole = model(ids()).logits[:, 4:]
    assert close(output.logits, whole)
    assert close(legacy.logits, whole)


def test_legacy_round_trip_keeps_every_tensor():
    legacy = tiny()(ids()).past_key_values
    again = DynamicCache.from_legacy_cache(legacy).to_legacy_cache()
    for ours, theirs in zip(again, legacy, strict=True):
        assert ours[0] is theirs[0]
        assert ours[1] is theirs[1]


@CACHES
@torch.no_grad()
def test_a_cropped_cache_goes_on_from_there(make_cache):
    model, cache = tiny(), make_cache()
    model(ids(), past_key_values=cache)
    cache.crop(5)
    assert cache.get_seq_length() == 5
    cache.crop(7)
    assert cache.get_seq_length() == 5
    assert close(model(ids()[:, 5:], past_key_values=cache).logits, model(ids()).logits[:, 5:])


@CACHES
@torch.no_grad()
def test_reordered_rows_go_on_as_their_texts_do(make_cache):
    model, cache, rows = tiny(), make_cache(), torch.tensor([1, 1, 0])
    model(ids()[:, :6], past_key_values=cache)
    cache.reorder_cache(rows)
    last = model(ids()[rows, 6:], past_key_values=cache).logits
    assert close(last, model(ids()[rows]).logits[:, 6:])


@torch.no_grad()
def test_a_full_static_cache_says_so():
    model, cache = tiny(), StaticCache(9)
    model(ids(), past_key_values=cache)
    with pytest.raises(ValueError, match="10 positions do not fit into a StaticCache of 9"):
        model(ids()[:, :1], past_key_values=cache)


def test_a_static_cache_keeps_its_room():
    cache = StaticCache(20)
    with torch.no_grad():
        tiny()(ids(), past_key_values=cache)
        before = [tensor.data_ptr() for tensor in cache.key_cache + cache.value_cache]
        tiny()(ids()[:, :3], past_key_values=cache)
    assert [tensor.data_ptr() for tensor in cache.key_cache + cache.value_cache] == before
    assert cache.get_max_length() == 20
    assert cache[0][0].shape[-2] == 12


def test_gradient_flows_through_a_past():
    model = tiny()
    past = model(ids()[:, :4]).past_key_values
    model(ids()[:, 4:], past_key_values=past).logits[:, -1].sum().backward()
    pieces = model.model.layers[0].self_attn.query_key_value.weight.grad.clone()
    model.zero_grad()
    model(ids()).logits[:, -1].sum().backward()
    assert torch.allclose(pieces, model.model.layers[0].self_attn.query_key_value.weight.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("length", [-9, -5, -2, -1, 0, 1, 3, 5, 9])
@pytest.mark.parametrize("kind", [DynamicCache, lambda: StaticCache(8), lambda: ReservedCache(2, 8)])
def test_caches_are_cropped_from_both_ends(kind, length):
    cache = kind()
    keys = torch.arange(10.0).reshape(1, 1, 5, 2)
    for layer in range(2):
        cache.update(keys, keys, layer)
    cache.crop(length)
    assert cache.get_seq_length() == len(range(5)[:length])
    assert torch.equal(cache[1][0], keys[:, :, :length])


@pytest.mark.parametrize("kind", [DynamicCache, lambda: StaticCache(8)])
def test_layers_that_count_themselves_otherwise_are_told(kind):
    model = PersimmonForCausalLM(PersimmonConfig.tiny(num_hidden_layers=3)).eval()
    del model.model.layers[1]
    with pytest.raises(IndexError, match="layer 2 comes where the cache expects layer 1.*layer_index"):
        model(torch.tensor([[5, 6]]), past_key_values=kind(), use_cache=True)
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_index = index
    assert model(torch.tensor([[5, 6]]), past_key_values=kind(), use_cache=True).logits.isfinite().all()
