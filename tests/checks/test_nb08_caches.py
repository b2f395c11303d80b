"""The marks of notebook 08's caches accept right ones and name what is wrong with wrong ones."""

import pytest
import torch

from persimmon_lab.cache import DynamicCache
from persimmon_lab.checks import nb08_caches as checks
from persimmon_lab.rotary import apply_rotary, rotary_tables
from tests.checks.verdicts import assert_no_answers, assert_right, assert_told


def update(layer, key, value, shift=0, advance=True, copy=False, strict=True, hand_back=None, store=None):
    """The right update, and what may be wrong with it."""
    start = layer.length + (shift if layer.length else 0)
    end = start + key.shape[-2]
    if strict and layer.length + key.shape[-2] > layer.keys.shape[-2]:
        raise ValueError("full")
    if copy:
        layer.keys = torch.cat((layer.keys[..., :start, :], key), dim=-2)
        layer.values = torch.cat((layer.values[..., :start, :], value), dim=-2)
    else:
        layer.keys[..., start:end, :], layer.values[..., start:end, :] = key, value if store is None else store(key)
    held = layer.length + key.shape[-2]
    before, layer.length = layer.length, held if advance else layer.length
    if hand_back is not None:
        return hand_back(layer, key, value, before)
    return layer.keys[..., :held, :], layer.values[..., :held, :]


def wrong(**how):
    return lambda layer, key, value: update(layer, key, value, **how)


def by_index(layer, key, value):
    where = torch.arange(layer.length, layer.length + key.shape[-2])
    if len(where) and where[-1] >= layer.keys.shape[2]:
        raise ValueError("no room")
    layer.keys.index_copy_(2, where, key)
    layer.values.index_copy_(2, where, value)
    layer.length += len(where)
    return [room.narrow(2, 0, layer.length) for room in (layer.keys, layer.values)]


class TurnsAgain(DynamicCache):
    """Keeps what it was given and its tables; `apply_rotary` by the difference would do as well."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.unrotated = {}

    def update(self, key, value, layer_index):
        start = self.get_seq_length(layer_index)
        end = start + key.shape[-2]
        cos, sin = rotary_tables(torch.arange(end)[None], self.config, end, key.dtype)
        new = apply_rotary(key, cos[:, start:], -sin[:, start:])
        old = self.unrotated.get(layer_index, new[:, :, :0])
        self.unrotated[layer_index] = torch.cat((old, new), dim=2)
        super().update(key, value, layer_index)
        return apply_rotary(self.unrotated[layer_index], cos, sin), self.value_cache[layer_index]


class Stale(DynamicCache):
    def __init__(self, config):
        super().__init__()

    def update(self, key, value, layer_index):
        return super().update(key, value, layer_index)


class Unturned(TurnsAgain):
    def update(self, key, value, layer_index):
        _, values = super().update(key, value, layer_index)
        return self.unrotated[layer_index], values


class Stub(DynamicCache):
    def __init__(self, config):
        super().__init__()


class Stops(Stub):
    def update(self, key, value, layer_index):
        raise KeyError("theta")


@pytest.mark.parametrize(
    ("check", "answer"),
    [(checks.reserved_update, update), (checks.reserved_update, by_index), (checks.unrotated_cache, TurnsAgain)],
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


def stops_writing(layer, key, value):
    """Right in every room that is not larger than ten."""
    if layer.length < 10:
        return update(layer, key, value)
    layer.length += key.shape[-2]
    return layer.keys[..., : layer.length, :], layer.values[..., : layer.length, :]


def refuses(layer, key, value):
    if layer.length >= 10:
        raise ValueError("enough")
    return update(layer, key, value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (stops_writing, "in the shipped model the logits differ by"),
        (refuses, "in the model it stopped with ValueError: enough"),
    ],
)
def test_an_update_that_is_right_in_small_rooms_only_is_caught_in_the_model(answer, told):
    assert_told(checks.reserved_update, answer, told)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (wrong(shift=-1), "off by one: the first new position was written over the last old one"),
        (wrong(shift=1), "off by one: it leaves a gap"),
        (wrong(advance=False), "`layer.length` is 0 after 3 positions"),
        (wrong(copy=True), "were copied; write into the room"),
        (wrong(strict=False), "a full room takes one more token without a word"),
        (wrong(store=lambda key: key), "the values are the keys"),
        (wrong(hand_back=lambda layer, *_: (layer.keys, layer.values)), "returns the whole room of 8"),
        (wrong(hand_back=lambda layer, key, value, _: (key, value)), "the keys were copied"),
        (
            wrong(hand_back=lambda layer, key, value, before: tuple(
                room[..., before : layer.length, :] for room in (layer.keys, layer.values))),
            "it returns the new keys alone",
        ),
        (
            wrong(hand_back=lambda layer, key, value, before: tuple(
                room[..., : before or layer.length, :] for room in (layer.keys, layer.values))),
            "new positions are missing from the keys",
        ),
    ],
)  # fmt: skip
def test_a_wrong_update_is_told_what_is_wrong(answer, told):
    assert_told(checks.reserved_update, answer, told)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Stale, "under dynamic scaling it is as wrong as DynamicCache"),
        (Unturned, "without scaling the logits differ by"),
        (Stub, "○ not answered yet"),
        (Stops, "in the model it stopped with KeyError"),
    ],
)
def test_a_cache_whose_keys_grow_old_is_told_so(answer, told):
    assert_told(checks.unrotated_cache, answer, told)


@pytest.mark.parametrize("check", [checks.reserved_update, checks.unrotated_cache])
def test_an_answer_that_is_no_pair_and_no_cache(check):
    assert_no_answers(check, tensor=False)
