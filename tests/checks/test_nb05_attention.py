"""The marks of notebook 05 on norm and mask accept right answers, and name what is wrong with wrong ones."""

import math

import pytest
import torch

from persimmon_lab.checks import nb05_attention as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told

# commuting_norm


def norm(x, weight, bias, rotary_dim, eps, *, mean=False, tied="halves", bias_on="passed", divide=True):
    weight, bias = weight.clone(), bias.clone()
    half = rotary_dim // 2
    if tied == "halves":
        weight[:half] = weight[half:rotary_dim] = (weight[:half] + weight[half:rotary_dim]) / 2
    if tied == "neighbours":
        for first in range(0, rotary_dim, 2):
            weight[first : first + 2] = weight[first : first + 2].mean()
    if tied == "all":
        weight[:] = weight.mean()
    if bias_on == "passed":
        bias[:rotary_dim] = 0
    if bias_on == "none":
        bias[:] = 0
    if mean:
        x = x - x.mean(dim=-1, keepdim=True)
    scale = (x.square().mean(dim=-1, keepdim=True) + eps).sqrt() if divide else 1.0
    return x / scale * weight + bias


def first_weight_of_each_pair(x, weight, bias, rotary_dim, eps):
    weight = weight.clone()
    weight[rotary_dim // 2 : rotary_dim] = weight[: rotary_dim // 2]
    return norm(x, weight, bias, rotary_dim, eps)


def two_norms(x, weight, bias, rotary_dim, eps):
    """Another right answer: rotated and passed channels have mean squares of their own, the passed ones their mean."""
    rotated, passed = x[..., :rotary_dim], x[..., rotary_dim:]
    if passed.shape[-1]:
        passed = torch.nn.functional.layer_norm(passed, passed.shape[-1:], weight[rotary_dim:], bias[rotary_dim:], eps)
    return torch.cat((norm(rotated, weight[:rotary_dim], bias[:rotary_dim], rotary_dim, eps), passed), dim=-1)


def weights_left_out(x, weight, bias, rotary_dim, eps):
    return norm(x, torch.ones_like(weight), bias, rotary_dim, eps)


@pytest.mark.parametrize("answer", [norm, first_weight_of_each_pair, two_norms])
def test_norms_that_commute_are_right(answer):
    assert_right(checks.commuting_norm, answer)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda **case: norm(**case, divide=False), checks.UNNORMALISED),
        (lambda **case: norm(**case).flip(0), checks.MIXED),
        (lambda x, **_: x, checks.UNNORMALISED),
        (lambda **case: norm(**case, mean=True), checks.MEAN),
        (lambda x, weight, bias, eps, **_: torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps),
         checks.MEAN),
        (lambda **case: norm(**case, tied=""), checks.WEIGHTS),
        (lambda **case: norm(**case, tied="neighbours"), checks.WEIGHTS),
        (lambda **case: norm(**case, bias_on="all"), checks.BIAS),
        (weights_left_out, checks.UNWEIGHTED),
        (lambda weight, **case: norm(weight=weight * weight.norm(), **case), checks.UNWEIGHTED),
        (lambda **case: norm(**case, tied="all"), checks.PASSED_WEIGHT),
        (lambda **case: norm(**case, bias_on="none"), checks.PASSED_BIAS),
    ],
)  # fmt: skip
def test_other_norms_are_told_the_first_thing_that_is_wrong(answer, told):
    assert_told(checks.commuting_norm, answer, f"✗ not yet: {told} (")
    assert_told(checks.commuting_norm, answer, "of which")


# left_padded_mask


def one_by_one(lengths, width, dtype):
    mask = torch.full((len(lengths), 1, width, width), torch.finfo(dtype).min, dtype=dtype)
    for row, length in enumerate(lengths.tolist()):
        for query in range(width):
            for key in range(width - length, query + 1):
                mask[row, 0, query, key] = 0
    return mask


def with_infinity(lengths, width, dtype):
    mask = one_by_one(lengths, width, dtype)
    return mask.masked_fill(mask != 0, -math.inf)


def padded_on_the_right(lengths, width, dtype):
    mask = one_by_one(torch.full_like(lengths, width), width, dtype)
    for row, length in enumerate(lengths.tolist()):
        mask[row, :, :, length:] = torch.finfo(dtype).min
    return mask


def future_visible(lengths, width, dtype):
    mask = torch.zeros(len(lengths), 1, width, width, dtype=dtype)
    for row, length in enumerate(lengths.tolist()):
        mask[row, :, :, : width - length] = torch.finfo(dtype).min
    return mask


def padding_visible(lengths, width, dtype):
    return one_by_one(torch.full_like(lengths, width), width, dtype)


def not_itself(lengths, width, dtype):
    mask = one_by_one(lengths, width, dtype)
    for place in range(width):
        mask[:, :, place, place] = torch.finfo(dtype).min
    return mask


def low_enough_here(lengths, width, dtype):
    mask = one_by_one(lengths, width, dtype).float()
    return mask.masked_fill(mask != 0, -65504.0 if dtype == torch.float16 else -1e9).to(dtype)


def upside_down(lengths, width, dtype):
    return torch.where(one_by_one(lengths, width, dtype) == 0, torch.finfo(dtype).min, 0.0).to(dtype)


def one_place_too_far(lengths, width, dtype):
    return one_by_one(lengths, width, dtype).roll(1, dims=-1)


def test_a_mask_made_one_by_one_is_right():
    assert_right(checks.left_padded_mask, one_by_one)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (padded_on_the_right, "pads on the right"),
        (future_visible, "the future is visible"),
        (padding_visible, "the padding is visible"),
        (not_itself, "does not see itself"),
        (lambda **case: one_by_one(**case).mT, "query and key are exchanged"),
        (upside_down, "the other way round"),
        (low_enough_here, "-1e9 is low in float32"),
        (with_infinity, "it holds -inf in torch.float32"),
        (lambda dtype, **case: one_by_one(dtype=torch.float32, **case).to(dtype), "it holds -inf in torch.float16"),
        (one_place_too_far, "the shape is right, the numbers are not"),
        (lambda **case: one_by_one(**case)[:, 0], "returned the shape (3, 4, 4); expected (3, 1, 4, 4)"),
    ],
)
def test_a_wrong_mask_is_told_what_is_wrong(answer, told):
    assert_told(checks.left_padded_mask, answer, told)


@pytest.mark.parametrize("message", checks.MASK.mistakes)
def test_every_named_mistake_is_recognised_as_itself(message):
    assert_recognised(checks.MASK, message, asked=checks.left_padded_mask)


@pytest.mark.parametrize("check", [checks.commuting_norm, checks.left_padded_mask])
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)
