"""The first marks of notebook 08 accept right answers, written here another way, and name what is wrong with others."""

import pytest
import torch

from persimmon_lab.checks import nb08_remembering as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, mistakes_of

EXERCISES = {"longest_context": checks.longest_context, "new_positions": checks.new_positions}


def one_position_at_a_time(free_bytes, layers, heads, head_dim, bytes_per_number, batch):
    channels = layers * heads * head_dim
    return int((free_bytes - free_bytes % (2 * channels * bytes_per_number * batch)) / (2 * channels)
               / bytes_per_number / batch)  # fmt: skip


def token_by_token(attention_mask, past):
    positions = torch.zeros_like(attention_mask)
    for row, marks in enumerate(attention_mask.tolist()):
        for column in range(1, len(marks)):
            positions[row, column] = sum(marks[:column]) if marks[column] else 0
    return positions[:, past:]


@pytest.mark.parametrize(
    ("check", "answer"), [(checks.longest_context, one_position_at_a_time), (checks.new_positions, token_by_token)]
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", EXERCISES.values())
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)
