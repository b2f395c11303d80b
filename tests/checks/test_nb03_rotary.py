"""The marks of notebook 03 accept right answers, written here another way, and name what is wrong with wrong ones."""

import math

import pytest
import torch

from persimmon_lab.checks import nb03_rotary as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {
    "undo_rotation": checks.undo_rotation,
    "score_by_offset": checks.score_by_offset,
    "reorder_for_adjacent": checks.reorder_for_adjacent,
}


def angles(positions, theta, width):
    return positions[:, None].double() * theta ** (-torch.arange(0, width, 2).double() / width)


def turn_back(rotated, positions, theta, rotary_dim, direction=-1, first=slice(None), second=slice(None)):
    """Pairs as complex numbers; `first` and `second` say which rotated channels are the parts of each pair."""
    turned = rotated.double().clone()
    pairs = torch.complex(turned[..., first], turned[..., second])
    phases = direction * angles(positions, theta, rotary_dim)
    pairs = pairs * torch.polar(torch.ones_like(phases), phases)
    turned[..., first], turned[..., second] = pairs.real, pairs.imag
    return turned.float()


def by_halves(rotated, positions, theta, rotary_dim):
    half = rotary_dim // 2
    return turn_back(rotated, positions, theta, rotary_dim, -1, slice(half), slice(half, rotary_dim))


def by_neighbours(rotated, positions, theta, rotary_dim):
    return turn_back(rotated, positions, theta, rotary_dim, -1, slice(0, rotary_dim, 2), slice(1, rotary_dim, 2))


def forwards(rotated, positions, theta, rotary_dim):
    half = rotary_dim // 2
    return turn_back(rotated, positions, theta, rotary_dim, +1, slice(half), slice(half, rotary_dim))


def all_channels(rotated, positions, theta, rotary_dim):
    return by_halves(rotated, positions, theta, rotated.shape[-1])


def with_the_base_of_the_8b_model(rotated, positions, theta, rotary_dim):
    return by_halves(rotated, positions, 25000.0, rotary_dim)


def cosine_formula(query, key, offsets, theta, rotary_dim):
    """The sum over pairs of |q||k| cos(angle between them + phase), and the passed channels' product."""
    half = rotary_dim // 2
    total = torch.zeros(len(offsets)) + float(query[rotary_dim:] @ key[rotary_dim:])
    for pair in range(half):
        (a, b), (c, d) = ((float(v[pair]), float(v[pair + half])) for v in (query, key))
        between = math.atan2(b, a) - math.atan2(d, c)
        phase = offsets * theta ** (-2 * pair / rotary_dim)
        total += math.hypot(a, b) * math.hypot(c, d) * torch.cos(phase + between)
    return total


def cosine_formula_of_neighbours(query, key, offsets, theta, rotary_dim):
    order = [*range(0, rotary_dim, 2), *range(1, rotary_dim, 2), *range(rotary_dim, len(query))]
    return cosine_formula(query[order], key[order], offsets, theta, rotary_dim)


def backwards(query, key, offsets, theta, rotary_dim):
    return cosine_formula(query, key, -offsets, theta, rotary_dim)


def without_the_rest(query, key, offsets, theta, rotary_dim):
    return cosine_formula(query[:rotary_dim], key[:rotary_dim], offsets, theta, rotary_dim)


def twice_the_offset(query, key, offsets, theta, rotary_dim):
    return cosine_formula(query, key, 2 * offsets, theta, rotary_dim)


def one_by_one(x, rotary_dim):
    reordered = x.clone()
    for channel in range(rotary_dim // 2):
        reordered[..., 2 * channel] = x[..., channel]
        reordered[..., 2 * channel + 1] = x[..., channel + rotary_dim // 2]
    return reordered


def the_other_way(x, rotary_dim):
    reordered = x.clone()
    for channel in range(rotary_dim // 2):
        reordered[..., channel] = x[..., 2 * channel]
        reordered[..., channel + rotary_dim // 2] = x[..., 2 * channel + 1]
    return reordered


def whole_head(x, rotary_dim):
    return one_by_one(x, x.shape[-1])


def mirrored(x, rotary_dim):
    return torch.cat((x[..., :rotary_dim].flip(-1), x[..., rotary_dim:]), dim=-1)


def counting_from_zero(rotated, positions, theta, rotary_dim):
    return by_halves(rotated, torch.arange(len(positions)), theta, rotary_dim)


def without_the_two(rotated, positions, theta, rotary_dim):
    return by_halves(rotated, positions, theta**0.5, rotary_dim)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.undo_rotation, by_halves),
        (checks.score_by_offset, cosine_formula),
        (checks.reorder_for_adjacent, one_by_one),
    ],
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.undo_rotation, by_neighbours, "adjacent-pair rotation; Persimmon rotates halves"),
        (checks.undo_rotation, forwards, "opposite angle"),
        (checks.undo_rotation, all_channels, "were passed, not rotated"),
        (checks.undo_rotation, with_the_base_of_the_8b_model, "the shape is right, the numbers are not"),
        (checks.undo_rotation, counting_from_zero, "turns by 0, 1, 2, … in place of the positions"),
        (checks.undo_rotation, without_the_two, "the exponent lacks its 2"),
        (checks.undo_rotation, lambda rotated, **_: rotated, "returns what it was given"),
        (checks.score_by_offset, cosine_formula_of_neighbours, "adjacent-pair rotation; Persimmon rotates halves"),
        (checks.score_by_offset, backwards, "sign of the offset is flipped"),
        (checks.score_by_offset, without_the_rest, "passed channels are missing"),
        (checks.score_by_offset, twice_the_offset, "for example offset "),
        (checks.reorder_for_adjacent, the_other_way, "from adjacent pairs to halves"),
        (checks.reorder_for_adjacent, whole_head, "from rotary_dim on must stay"),
        (checks.reorder_for_adjacent, mirrored, "the shape is right, the numbers are not"),
        (checks.reorder_for_adjacent, lambda x, rotary_dim: x, "order is unchanged"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, told):
    assert_told(check, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", [*EXERCISES.values(), checks.stretch_frequencies])
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


def test_numbers_that_are_not_finite():
    assert "not finite" in repr(checks.reorder_for_adjacent(lambda x, rotary_dim: x / 0))


def test_an_answer_may_write_into_what_it_is_given():
    def in_place(x, rotary_dim):
        return x.copy_(one_by_one(x, rotary_dim))

    assert checks.reorder_for_adjacent(in_place)

    def wrong_in_place(x, rotary_dim):
        return x.zero_()

    # The mistakes are recognised on the cases as they were, not on zeros.
    assert "the numbers are not" in repr(checks.reorder_for_adjacent(wrong_in_place))


# The open exercise: any frequencies with the three properties


def turns(frequencies, trained_length):
    return frequencies * trained_length / (2 * math.pi)


def hard_switch(frequencies, factor, trained_length):
    return torch.where(turns(frequencies, trained_length) < 1, frequencies / factor, frequencies)


def ramp(frequencies, factor, trained_length):
    keep = ((turns(frequencies, trained_length) - 1) / 31).clamp(0, 1)
    return frequencies * (keep + (1 - keep) / factor)


def ntk(frequencies, factor, trained_length):
    pair = torch.arange(len(frequencies))
    return frequencies * factor ** (-pair / (len(frequencies) - 1))


def fast_too_slow(frequencies, factor, trained_length):
    return torch.where(
        turns(frequencies, trained_length) > 100, frequencies / 1.05, hard_switch(frequencies, factor, trained_length)
    )


def last_one_stopped(frequencies, factor, trained_length):
    return torch.cat((hard_switch(frequencies, factor, trained_length)[:-1], torch.zeros(1)))


@pytest.mark.parametrize("answer", [hard_switch, ramp])
def test_scalings_with_the_properties_are_right(answer):
    assert checks.stretch_frequencies(answer)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda frequencies, **_: frequencies, "angles"),
        (lambda frequencies, factor, **_: frequencies / factor, "leave it as it is"),
        (ntk, "angles"),
        (fast_too_slow, "slowed down by 1.05"),
        (last_one_stopped, "positive"),
        (lambda frequencies, factor, **_: (frequencies / factor).flip(0), "fall from pair to pair"),
    ],
)
def test_scalings_without_them_are_told_which(answer, told):
    assert_told(checks.stretch_frequencies, answer, told)
