"""Caches of transformers 5 in our model, and what is no cache."""

import pytest
import torch
import transformers

from persimmon_lab import DynamicCache, StaticCache
from persimmon_lab.generation.engines.choosing import runner_for
from tests.models import ids, tiny

MAKERS = {
    "dynamic": lambda config: transformers.DynamicCache(),
    "static": lambda config: transformers.StaticCache(config=config, max_cache_len=24),
}


@pytest.fixture(params=MAKERS)
def make(request):
    config = transformers.PersimmonConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=128, max_position_embeddings=64
    )
    return lambda: MAKERS[request.param](config)


@pytest.mark.parametrize("runner", ["plain", "fast"])
@pytest.mark.parametrize("sizes", [(9,), (4, 1, 3, 1), (1,) * 9])
@torch.no_grad()
def test_it_is_filled_and_read(make, sizes, runner):
    model = tiny()
    run, cache, start, logits = runner_for(model, runner), make(), 0, []
    for size in sizes:
        output = run(ids()[:, start : start + size], past_key_values=cache, use_cache=True, logits_to_keep=size)
        assert output.past_key_values is cache
        logits.append(output.logits)
        start += size
        assert int(cache.get_seq_length()) == start
    assert (torch.cat(logits, dim=1) - model(ids()).logits).abs().max() < 1e-5


@torch.no_grad()
def test_without_use_cache_it_is_read_and_left(make):
    model, cache = tiny(), make()
    model(ids()[:, :6], past_key_values=cache)
    last = model(ids()[:, 6:], past_key_values=cache, use_cache=False)
    assert int(cache.get_seq_length()) == 6
    assert last.past_key_values is None
    assert (last.logits - model(ids()).logits[:, 6:]).abs().max() < 1e-5


def test_generate_takes_it(make):
    model, cache = tiny(), make()
    wanted = model.generate(ids(), max_new_tokens=5)
    assert torch.equal(model.generate(ids(), max_new_tokens=5, past_key_values=cache), wanted)
    assert int(cache.get_seq_length()) == 13


def test_a_window_that_forgets_is_refused():
    class Forgetful(transformers.DynamicCache):
        def update(self, key, value, layer, *rest):
            key, value = super().update(key, value, layer, *rest)
            return key[..., -4:, :], value[..., -4:, :]

    with pytest.raises(ValueError, match="Forgetful, gave back 4 of 9 positions"):
        tiny()(ids(), past_key_values=Forgetful())


@pytest.mark.parametrize("given", ["cache", torch.zeros(2), {"key": 1}])
def test_what_is_no_cache_is_refused(given, unchecked_annotations):
    with pytest.raises(TypeError, match=f"past_key_values is a {type(given).__name__}"):
        tiny()(ids(), past_key_values=given)


@pytest.mark.parametrize("given", ["x", {}, {"key": 1}, (torch.zeros(2),), [{}], DynamicCache])
def test_generate_refuses_what_is_no_cache(given, unchecked_annotations):
    with pytest.raises(TypeError, match=r"past_key_values(\[0\])? is a "):
        tiny().generate(ids(), max_new_tokens=2, past_key_values=given)


OTHERS = {
    "tuple": lambda: None,
    "dynamic": DynamicCache,
    "static": lambda: StaticCache(24),
    "transformers": transformers.DynamicCache,
}


@pytest.mark.parametrize("make_cache", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("layers", [1, 3])
@torch.no_grad()
def test_a_cache_of_more_layers_or_fewer_is_refused(make_cache, layers):
    model, past = tiny(), tiny(num_hidden_layers=layers)(ids()[:, :4], past_key_values=make_cache()).past_key_values
    told = f"past_key_values hold {layers} layers and the model has 2"
    for runner in ("plain", "fast"):
        given = DynamicCache.from_legacy_cache(past) if isinstance(past, tuple) and runner == "fast" else past
        with pytest.raises(ValueError, match=told):
            runner_for(model, runner)(ids()[:, 4:], past_key_values=given, use_cache=True)
        with pytest.raises(ValueError, match=told):
            model.generate(ids(), max_new_tokens=2, past_key_values=past, engine=runner)


@torch.no_grad()
def test_an_error_in_the_middle_of_a_step_leaves_what_it_held():
    model, cache = tiny(), transformers.DynamicCache()
    model(ids()[:, :4], past_key_values=cache)
    model.model.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.generate(ids(), max_new_tokens=2, past_key_values=cache)
    assert [int(layer.get_seq_length()) for layer in cache.layers] == [4, 4]


@torch.no_grad()
def test_a_cache_that_was_emptied_half_way_is_filled_again():
    cache = DynamicCache()
    cache.update(torch.ones(2, 4, 3, 16), torch.ones(2, 4, 3, 16), 0)
    cache.crop(0)
    assert torch.equal(tiny()(ids(), past_key_values=cache).logits, tiny()(ids()).logits)
