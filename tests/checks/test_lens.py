"""The marks of notebook 13 accept right answers and name each wrong one."""

import pytest
import torch

from persimmon_lab.checks import lens as checks

EXERCISES = {name: getattr(checks, name) for name in ("read_stream", "head_share", "score_keys")}
MISTAKES = [(name, message) for name, exercise in EXERCISES.items() for message in exercise.mistakes]


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
def test_another_right_answer_passes(name, answer):
    assert EXERCISES[name](EXERCISES[name].reference)
    assert EXERCISES[name](answer)


@pytest.mark.parametrize(("name", "message"), MISTAKES)
def test_each_mistake_is_told(name, message):
    verdict = EXERCISES[name](EXERCISES[name].mistakes[message])
    assert not verdict
    assert message in str(verdict)


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_is_not_answered_yet(name):
    assert "not answered yet" in str(EXERCISES[name](lambda **case: ...))


@pytest.mark.parametrize("name", EXERCISES)
def test_what_nobody_thought_of_is_wrong_too(name):
    exercise = EXERCISES[name]
    assert "the numbers are not" in str(exercise(lambda **case: exercise.reference(**case) + 0.1))
