"""Caches of transformers 5 in our model, and what is no cache."""

import pytest
import torch
import transformers

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
