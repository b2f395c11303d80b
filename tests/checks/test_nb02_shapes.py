"""The marks of notebook 02 accept right answers, written here without einops, and name what is wrong with others."""

import math

import pytest
import torch

from persimmon_lab.checks import nb02_shapes as checks
from persimmon_lab.checks.nb02_shapes import HEAD_FIRST, THREE_FIRST
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {
    "merge_heads": checks.merge_heads,
    "layer_norm": checks.layer_norm,
    "scores": checks.scores,
    "reorder_rows": checks.reorder_rows,
}


def merge(heads):
    return torch.cat(heads.unbind(dim=1), dim=-1)


def norm(x, weight, bias, eps):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


def scores(query, key):
    return (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)


def reorder(weight, head):
    query, key, value = (part.chunk(head) for part in weight.chunk(3))
    return torch.cat([torch.cat(of_one_head) for of_one_head in zip(query, key, value)])


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.merge_heads, merge),
        (checks.layer_norm, norm),
        (checks.scores, scores),
        (checks.reorder_rows, reorder),
    ],
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


def shuffled(heads):
    return heads.permute(0, 2, 3, 1).flatten(2)


def reshaped(heads):
    batch, head, position, channel = heads.shape
    return heads.reshape(batch, position, head * channel)


def backwards(heads):
    return torch.cat(heads.unbind(dim=1)[::-1], dim=-1)


def rms(x, weight, bias, eps):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight + bias


def sample_variance(x, weight, bias, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt() * weight + bias


def eps_outside(x, weight, bias, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True, correction=0) + eps) * weight + bias


def by_variance(x, weight, bias, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + eps) * weight + bias


def over_positions(x, weight, bias, eps):
    return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + eps).sqrt() * weight + bias


def over_everything(x, weight, bias, eps):
    return (x - x.mean()) / (x.var(correction=0) + eps).sqrt() * weight + bias


def mask_of(query):
    return torch.full(query.shape[2:3] * 2, -math.inf).triu(1)


def the_way_back(weight, head):
    channel = len(weight) // (3 * head)
    blocks = [weight[i * channel : (i + 1) * channel] for i in range(3 * head)]
    return torch.cat([blocks[h * 3 + which] for which in range(3) for h in range(head)])


def channels_apart(weight, head):
    query, key, value = weight.chunk(3)
    return torch.stack((query, key, value), dim=1).flatten(0, 1)


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.merge_heads, shuffled, "shuffled together: this is (channel head)"),
        (checks.merge_heads, reshaped, "a reshape without moving"),
        (checks.merge_heads, backwards, "in reverse"),
        (checks.merge_heads, lambda heads: heads.sum(dim=1), "returned the shape (1, 5, 3); expected (1, 5, 6)"),
        (checks.layer_norm, rms, "this is RMSNorm"),
        (checks.layer_norm, sample_variance, "hidden - 1"),
        (checks.layer_norm, eps_outside, "eps stands outside"),
        (checks.layer_norm, by_variance, "divide by its root"),
        (checks.layer_norm, over_positions, "over the positions"),
        (checks.layer_norm, lambda x, weight, bias, eps: norm(x, weight, None, eps), "bias is missing"),
        (checks.layer_norm, lambda x, weight, bias, eps: norm(x, None, bias, eps), "weight is missing"),
        (checks.layer_norm, lambda x, weight, bias, eps: norm(x, None, None, eps), "weight and bias are missing"),
        (checks.layer_norm, lambda x, weight, bias, eps: norm(x, weight, bias, 0.0), "eps is forgotten"),
        (checks.layer_norm, lambda x, weight, bias, eps: (norm(x, None, None, eps) + bias) * weight, "bias is added"),
        (checks.layer_norm, over_everything, "are taken over everything"),
        (checks.layer_norm, lambda x, weight, bias, eps: norm(x, weight, bias, 1e-6), "the numbers are not, in 2 of 3"),
        (checks.scores, lambda query, key: query @ key.mT, "not divided by the root"),
        (checks.scores, lambda query, key: query @ key.mT / query.shape[-1], "divides by the channels"),
        (checks.scores, lambda query, key: scores(key, query), "rows and columns are exchanged"),
        (checks.scores, lambda query, key: scores(query, key) / math.sqrt(query.shape[1]), "all heads' channels"),
        (checks.scores, lambda query, key: query @ key.mT / math.sqrt(query.shape[2]), "root of the positions"),
        (checks.scores, lambda query, key: scores(query, key).softmax(-1), "this is the softmax of the scores"),
        (checks.scores, lambda query, key: scores(query, key) + mask_of(query), "the future is masked; here"),
        (checks.scores, lambda query, key: (scores(query, key) + mask_of(query)).softmax(-1), "and the softmax taken"),
        (checks.scores, lambda query, key: scores(query, key).square(), "the numbers are not, in 3 of 3"),
        (checks.reorder_rows, the_way_back, "this is the way back"),
        (checks.reorder_rows, lambda weight, head: weight, "where they were"),
        (checks.reorder_rows, channels_apart, "channels of a head came apart"),
        (checks.reorder_rows, lambda weight, head: weight.flip(0), "numbers are not"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, told):
    assert_told(check, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", EXERCISES.values())
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


def test_an_answer_that_is_no_layout():
    assert_no_answers(checks.which_layout, tensor=False)


# which_layout: any rule will do


def unlikeness(weight, head, layout):
    """How far the lengths of a head's query and key blocks lie apart."""
    channel = weight.shape[1] // (3 * head)
    lengths = weight.reshape(len(weight), 3 * head, channel, -1).flatten(2).norm(dim=-1).log()
    shape = (len(weight), head, 3) if layout == HEAD_FIRST else (len(weight), 3, head)
    lengths = lengths.reshape(shape)
    lengths = lengths if layout == HEAD_FIRST else lengths.transpose(1, 2)
    return (lengths[..., 0] - lengths[..., 1]).abs().mean()


def by_lengths(weights, head):
    return min((HEAD_FIRST, THREE_FIRST), key=lambda layout: unlikeness(weights, head, layout))


def the_opposite(weights, head):
    return THREE_FIRST if by_lengths(weights, head) == HEAD_FIRST else HEAD_FIRST


def test_lengths_of_rows_tell_the_layout():
    assert_right(checks.which_layout, by_lengths)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda weights, head: HEAD_FIRST, "of all layers of persimmon-mini in the layout (three head channel) it"),
        (lambda weights, head: THREE_FIRST, "in the layout (head three channel) it says (three head channel)"),
        (the_opposite, "in the layout (head three channel) it says (three head channel)"),
        (lambda weights, head: by_lengths(weights[:1], head) if len(weights) == 8 else HEAD_FIRST, "of the first half"),
        (lambda weights, head: "head first", "it returned 'head first'; return '(head three channel)' or"),
        (lambda weights, head: 1 / 0, "it stopped with ZeroDivisionError: division by zero (given (8, 768, 256), 8)"),
    ],
)  # fmt: skip
def test_a_rule_that_does_not_tell_is_told_where_it_fails(answer, told):
    assert_told(checks.which_layout, answer, told)
