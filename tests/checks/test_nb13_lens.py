"""The marks of notebook 13 accept right answers and name each wrong one."""

import pytest
import torch

from persimmon_lab.checks import nb13_lens as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {name: getattr(checks, name) for name in ("read_stream", "head_share", "score_keys")}


def read_in_two_steps(stream, weight, bias, eps, rows):
    deviation = (stream.var(dim=-1, correction=0, keepdim=True) + eps).sqrt()
    return ((stream - stream.mean(dim=-1, keepdim=True)) / deviation * weight + bias) @ rows.T


def share_by_direction(mix, columns, row, stream, weight, eps):
    direction = weight * row - (weight * row).mean()
    return direction @ columns @ mix / (stream.var(correction=0) + eps).sqrt()


def scores_one_by_one(query, keys, query_norm, key_norm, eps):
    def norm(x, weight, bias):
        return (x - x.mean()) / (x.var(correction=0) + eps).sqrt() * weight + bias

    return torch.stack([norm(query, *query_norm) @ norm(key, *key_norm) for key in keys]) / len(query) ** 0.5


@pytest.mark.parametrize(
    ("name", "answer"),
    [("read_stream", read_in_two_steps), ("head_share", share_by_direction), ("score_keys", scores_one_by_one)],
)
def test_a_right_answer_found_another_way_is_right(name, answer):
    assert_right(EXERCISES[name], answer)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", EXERCISES.values())
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


@pytest.mark.parametrize("name", EXERCISES)
def test_what_nobody_thought_of_is_wrong_too(name):
    exercise = EXERCISES[name]
    assert_told(exercise, lambda **case: exercise.reference(**case) + 0.1, "the numbers are not")
