"""ReservedCache holds what DynamicCache holds, whatever is done to both, and does not move what lies in its room."""

import copy
import random

import pytest
import torch

from persimmon_lab.cache import DynamicCache
from persimmon_lab.generation.engines.reserved_cache import ReservedCache
from tests.models import ids, tiny

LAYERS, BATCH, HEADS, CHANNELS = 2, 3, 2, 4


def entries(positions: int, seed: int, batch: int = BATCH):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(LAYERS, 2, batch, HEADS, positions, CHANNELS, generator=generator)


def extend(cache, positions: int, seed: int, batch: int = BATCH):
    return [cache.update(key, value, index) for index, (key, value) in enumerate(entries(positions, seed, batch))]


def require_equal(cache, other):
    assert cache.get_seq_length() == other.get_seq_length()
    for ours, theirs in zip(cache.to_legacy_cache(), other.to_legacy_cache(), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("room", [0, 4, 100])
@pytest.mark.parametrize("seed", range(5))
def test_it_is_a_dynamic_cache_by_what_it_holds(room, seed):
    chance, ours, theirs, batch = random.Random(seed), ReservedCache(LAYERS, room), DynamicCache(), BATCH
    for turn in range(30):
        action = chance.choice(["extend", "extend", "crop", "reorder", "fewer", "replace"])
        if action == "extend" or len(theirs) == 0:
            positions = chance.randint(1, 5)
            for (key, value), (other_key, other_value) in zip(
                extend(ours, positions, turn, batch), extend(theirs, positions, turn, batch), strict=True
            ):
                assert torch.equal(key, other_key)
                assert torch.equal(value, other_value)
        elif action == "crop":
            length = chance.randint(1, theirs.get_seq_length())
            ours.crop(length)
            theirs.crop(length)
        elif action == "replace":
            for cache in (ours, theirs):
                cache.key_cache = [key + 1 for key in cache.key_cache]
        else:
            rows = [chance.randrange(batch) for _ in range(batch if action == "reorder" else chance.randint(1, 3))]
            ours.reorder_cache(torch.tensor(rows))
            theirs.reorder_cache(torch.tensor(rows))
            batch = len(rows)
        require_equal(ours, theirs)


def test_nothing_moves_while_there_is_room():
    cache = ReservedCache(LAYERS, 8)
    extend(cache, 3, seed=0)
    before = [(key.data_ptr(), value.data_ptr()) for key, value in cache]
    room = cache.reserved
    for seed in range(5):
        extend(cache, 1, seed)
        cache.reorder_cache(torch.tensor([2, 0, 1]))
        assert cache.reserved is room
    cache.crop(7)
    assert cache.reserved is room
    extend(cache, 1, seed)
    assert cache.reserved is room
    assert [(key.data_ptr(), value.data_ptr()) for key, value in cache] == before
    extend(cache, 1, seed=9)
    assert cache.key_cache[0].data_ptr() != before[0][0]
    assert cache.reserved.shape[4] == 16, "when the room is full there is twice as much"


def test_copies_do_not_write_to_each_other():
    cache = ReservedCache(LAYERS, 8)
    extend(cache, 3, seed=0)
    branch = copy.deepcopy(cache)
    extend(cache, 1, seed=1)
    extend(branch, 1, seed=2)
    one, other = DynamicCache(), DynamicCache()
    for plain, seed in ((one, 1), (other, 2)):
        extend(plain, 3, seed=0)
        extend(plain, 1, seed)
    require_equal(cache, one)
    require_equal(branch, other)


def test_others_write_into_the_room_and_say_so():
    cache = ReservedCache(LAYERS, 4)
    assert not cache.has_room(1), "an empty cache has reserved nothing yet"
    extend(cache, 3, seed=0)
    assert cache.has_room(1)
    assert not cache.has_room(2)
    cache.reserved[:, 0, :, :, 3], cache.reserved[:, 1, :, :, 3] = 7, 8
    cache.advance(1)
    assert cache.get_seq_length() == 4
    assert all((key[:, :, 3] == 7).all() and (value[:, :, 3] == 8).all() for key, value in cache)
    assert torch.equal(cache.key_cache[1][:, :, :3], entries(3, 0)[1, 0])


def test_while_the_first_layer_is_ahead_the_others_hold_what_they_held():
    cache, (key, value) = ReservedCache(LAYERS, 3), entries(1, 1)[0]
    cache.update(key, value, 0)
    assert not cache.has_room(1), "the second layer holds nothing yet"
    cache.update(key, value, 1)
    extend(cache, 2, seed=0)
    before = [held.clone() for held in cache[1]]
    cache.update(key, value, 0)  # which makes a larger room
    assert all(torch.equal(held, old) for held, old in zip(cache[1], before, strict=True))


def test_other_tensors_and_other_rows_do_not_lie_in_the_room():
    cache = ReservedCache(LAYERS, 9)
    extend(cache, 3, seed=0)
    with pytest.raises(RuntimeError):
        extend(cache, 1, seed=1, batch=1)  # and are not spread over all rows
    cache = ReservedCache(LAYERS, 9)
    extend(cache, 3, seed=0)
    cache.reserved[:, :, :, :, 3:5] = 7
    cache.advance(2)
    assert cache.get_seq_length() == 5
    with pytest.raises(TypeError):
        cache.value_cache[1] = cache.value_cache[1].clone()  # it would be lost in silence
    held = [key.clone() for key in cache.key_cache]
    cache.value_cache = [value.clone() for value in cache.value_cache]
    assert type(cache) is DynamicCache, "what somebody put there does not lie in the room"
    assert all(map(torch.equal, cache.key_cache, held))


def test_all_layers_are_extended_at_once():
    cache, other = ReservedCache(LAYERS, 4), DynamicCache()
    for positions, seed in ((3, 0), (1, 1), (2, 2)):  # the last ones need more room
        new = entries(positions, seed)
        extend(other, positions, seed)
        for place, layer in zip(cache.extend(new[0, 0]), new, strict=True):
            place.copy_(layer)
        require_equal(cache, other)
        assert cache.reserved is not None


def test_layers_out_of_order_are_kept_as_a_dynamic_cache_keeps_them():
    cache, other = ReservedCache(LAYERS, 9), DynamicCache()
    (key, value), _ = entries(1, 1)
    for each in (cache, other):
        extend(each, 3, seed=0)
        each.update(key, value, 0)
        each.update(key, value, 0)
    assert type(cache) is DynamicCache
    assert (cache.get_seq_length(0), cache.get_seq_length(1)) == (5, 3)
    require_equal(cache, other)
    cache = ReservedCache(LAYERS, 9)
    extend(cache, 3, seed=0)
    cache.update(key, value, 0)
    assert [cache.get_seq_length(layer) for layer in range(2)] == [4, 3], "one layer is ahead"
    cache.crop(3)  # which gives the step up
    extend(cache, 1, seed=2)
    assert cache.get_seq_length() == 4
    assert torch.equal(cache.key_cache[0][:, :, 3:], entries(1, 2)[0, 0])


def test_training_through_it_works():
    model = tiny()
    losses = []
    for cache in (DynamicCache(), ReservedCache(2, 20)):
        model.zero_grad()
        model(ids(), past_key_values=cache, use_cache=True)
        model(ids(), past_key_values=cache, use_cache=True).logits.square().mean().backward()
        losses.append(model.model.layers[0].self_attn.query_key_value.weight.grad.clone())
    assert torch.equal(*losses)


def test_unwritten_room_is_zero():
    """A step of fixed shapes multiplies it by 0, and 0 times nan is nan."""
    cache = ReservedCache(LAYERS, 64)
    extend(cache, 3, seed=0)
    assert (cache.reserved[:, :, :, :, 3:] == 0).all()
