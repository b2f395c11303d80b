"""The marks of notebook 04 accept right answers, written here another way, and name what is wrong with wrong ones."""

import math
from collections import Counter

import pytest
import torch

from persimmon_lab.checks import nb04_collisions as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {"positions_that_share": checks.positions_that_share, "separate_errors": checks.separate_errors}


def cast(length, dtype):
    return torch.arange(length).to(dtype).tolist()


def share_by_counting(length, dtype):
    return sum(count for count in Counter(cast(length, dtype)).values() if count > 1)


def share_by_neighbours(length, dtype):
    values = cast(length, dtype)
    return torch.tensor(sum(v in (values[max(i - 1, 0)] if i else None, *values[i + 1 : i + 2])
                            for i, v in enumerate(values)))  # fmt: skip


def errors_by_loop(positions, theta, rotary_dim, steps=("position", "frequency")):
    """One number at a time, in Python's float64."""

    def rounded(value):
        return float(torch.tensor(value).bfloat16())

    errors = torch.empty(2, len(positions), rotary_dim // 2, dtype=torch.float64)
    for row, position in enumerate(positions.tolist()):
        for pair in range(rotary_dim // 2):
            speed = theta ** (-2 * pair / rotary_dim)
            values = {"position": rounded(position) * speed, "frequency": position * rounded(speed)}
            for index, step in enumerate(steps):
                errors[index, row, pair] = values[step] - position * speed
    return errors


def errors_in_float32(positions, theta, rotary_dim):
    speeds = theta ** (-torch.arange(0, rotary_dim, 2) / rotary_dim)
    position = positions.float()[:, None]
    return torch.stack((position.bfloat16().float() * speeds, position * speeds.bfloat16())) - position * speeds


def multiplied_in_bfloat16(positions, theta, rotary_dim):
    speeds = theta ** (-torch.arange(0, rotary_dim, 2).double() / rotary_dim)
    position = positions.double()[:, None]
    both = torch.stack((position.bfloat16() * speeds, position * speeds.bfloat16()))
    return both.bfloat16().double() - position * speeds


def composed(positions, table, low_rows=256, sign=1):
    """Complex numbers with parts in bfloat16 could do it; torch has none, so the four products are written out."""
    low, high = positions % low_rows, positions // low_rows
    (low_cos, low_sin), (high_cos, high_sin) = (
        table(torch.arange(low_rows)),
        table(torch.arange(math.ceil(16384 / low_rows)) * low_rows),
    )
    c, s, C, S = low_cos[low], sign * low_sin[low], high_cos[high], high_sin[high]
    return torch.stack((c * C - s * S, s * C + c * S))


def composed_in_float32(positions, table):
    return composed(positions, lambda rows: table(rows).float()).bfloat16()


def only_the_low_part(positions, table):
    return table(torch.arange(256))[:, positions % 256]


def rounded_positions(positions, table):
    """Its 320 rows are those of rounded positions, as far as they go."""
    return table(torch.arange(256))[:, positions.bfloat16().long() % 256]


def added_tables(positions, table):
    low, high = table(torch.arange(256))[:, positions % 256], table(torch.arange(64) * 256)[:, positions // 256]
    return low + high


def one_sign_wrong(positions, table):
    low, high = table(torch.arange(256))[:, positions % 256], table(torch.arange(64) * 256)[:, positions // 256]
    return torch.stack((low[0] * high[0] + low[1] * high[1], low[1] * high[0] + low[0] * high[1]))


def backwards(positions, table):
    return composed(positions, table, sign=-1)


def first_rows_only(positions, table):
    return table(torch.arange(320))[:, positions.clamp(max=319)]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.positions_that_share, share_by_counting),
        (checks.positions_that_share, share_by_neighbours),
        (checks.separate_errors, errors_by_loop),
        (checks.separate_errors, errors_in_float32),
        (checks.two_turns, composed),
        (checks.two_turns, lambda positions, table: composed(positions, table, low_rows=128)),
        (checks.two_turns, composed_in_float32),
    ],
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.positions_that_share, lambda length, dtype: len(set(cast(length, dtype))), "the different values"),
        (checks.positions_that_share, lambda length, dtype: length - len(set(cast(length, dtype))), "all three share"),
        (
            checks.positions_that_share,
            lambda length, dtype: sum(a != b for a, b in enumerate(cast(length, dtype))),
            "256 stays where it is",
        ),
        (
            checks.positions_that_share,
            lambda length, dtype: sum(count > 1 for count in Counter(cast(length, dtype)).values()),
            "not the positions that share them",
        ),
        (
            checks.positions_that_share,
            lambda length, dtype: share_by_counting(length, torch.bfloat16),
            "whatever dtype is asked for",
        ),
        (
            checks.positions_that_share,
            lambda length, dtype: share_by_counting(length + 1, dtype),
            "from 0 to length - 1",
        ),
        (checks.positions_that_share, lambda length, dtype: 7, "the numbers are not"),
        (checks.separate_errors, multiplied_in_bfloat16, "product was rounded too"),
        (checks.separate_errors, lambda **case: -errors_by_loop(**case), "sign is flipped"),
        (checks.separate_errors, lambda **case: errors_by_loop(**case).abs(), "an error has a sign"),
        (
            checks.separate_errors,
            lambda **case: errors_by_loop(**case, steps=("frequency", "position")),
            "in the wrong order",
        ),
        (checks.separate_errors, lambda **case: errors_by_loop(**case) * 2, "for example error "),
        (checks.two_turns, lambda positions, table: table(positions), "asked for 16,384 different positions"),
        (checks.two_turns, lambda positions, table: composed(positions, table).float(), "result is torch.float32"),
        (checks.two_turns, only_the_low_part, "position 256 comes out as position 0"),
        (checks.two_turns, rounded_positions, "256 and 257 still have the same"),
        (checks.two_turns, added_tables, "angles add while their cosines"),
        (checks.two_turns, one_sign_wrong, "mind the signs"),
        (checks.two_turns, backwards, "the low part turns the wrong way"),
        (checks.two_turns, first_rows_only, "position 320 is the first that is off"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, told):
    assert_told(check, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", [*EXERCISES.values(), checks.two_turns])
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


def test_what_the_praise_counts():
    assert 16384 - share_by_counting(16384, torch.bfloat16) == 320
