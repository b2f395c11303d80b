"""Calling an answer, telling of what it was given, and the rules that every exercise keeps."""

import re

import pytest
import torch

from persimmon_lab import checks
from persimmon_lab.checks.marking import Exercise, Unanswered, Wrong, attempt, brief, call, numbers, verdict

EXERCISES = {
    f"{module}.{name}": value
    for module in checks.__all__
    for name, value in vars(getattr(checks, module)).items()
    if isinstance(value, Exercise)
}


@pytest.mark.parametrize("name", EXERCISES)
def test_every_exercise_knows_three_mistakes(name):
    assert len(EXERCISES[name].mistakes) >= 3


def test_the_exercises_are_found():
    assert len(EXERCISES) > 20


def test_an_answer_may_write_into_lists_of_tensors_too():
    given = [torch.ones(2), (torch.ones(3), "kept")]

    def writes(tensors):
        tensors[0].zero_()
        tensors[1][0].zero_()
        return tensors

    assert call(writes, given)[1][1] == "kept"
    assert given[0].all()
    assert given[1][0].all()
    assert call(lambda tensors: tensors[0].zero_() + 1, tensors=given).all()
    assert given[0].all()


def test_what_is_said_of_the_gradients_is_said_of_those_that_were_given():
    """Scaled in place, they would all be short, and the factor of the mistake with them."""

    def in_place(gradients, most):
        factor = most / torch.stack([gradient.norm() for gradient in gradients]).norm()
        for gradient in gradients:
            gradient.mul_(factor)
        return factor

    assert "short gradients are made longer" in repr(checks.nb07_whole.clipping_factor(in_place))


def test_an_answer_that_stops_is_told_what_it_was_given():
    def stops(*_, **__):
        raise IndexError("too far")

    with pytest.raises(Wrong, match=re.escape("it stopped with IndexError: too far (given (2, 3), x (4,), n 5)")):
        call(stops, torch.zeros(2, 3), x=torch.zeros(4), n=5)


def test_what_stops_an_answer_for_good_reason_is_passed_on():
    def refused():
        raise Wrong("no more rows")

    with pytest.raises(Wrong, match="^no more rows$"):
        call(refused)


@pytest.mark.parametrize("nothing", [None, ...])
def test_a_stub_answers_nothing(nothing):
    with pytest.raises(Unanswered):
        call(lambda: nothing)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.zeros(2, 3), "(2, 3)"),
        ([torch.zeros(2), (torch.zeros(()), 7)], "[(2,), [(), 7]]"),
        (0.5, "0.5"),
        ("text", "text"),
        (b"\xff", r"b'\xff'"),
        (torch.bfloat16, "torch.bfloat16"),
        (lambda: None, "a function"),
        ({"key": object()}, "a dict"),
        (torch.nn.LayerNorm(4), "a LayerNorm"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 119 + "…"),
    ],
)
def test_values_are_told_of_briefly(value, told):
    assert brief(value) == told


def test_praise_may_speak_of_what_the_check_found():
    assert repr(verdict(lambda answer: answer(), lambda: 3, lambda found: f"{found} of them")) == "✓ right: 3 of them"
    assert repr(verdict(lambda answer: answer(), lambda: 3, "all of them")) == "✓ right: all of them"


def test_a_number_counts_as_a_tensor():
    assert attempt(lambda: 2, {}, torch.Size(())) == 2.0


def test_numbers_go_on_and_begin_anew():
    draw, again = numbers(3), numbers(3)
    first, second = draw(2, 3), draw(2, 3)
    assert first.shape == (2, 3)
    assert not torch.equal(first, second)
    assert torch.equal(first, again(2, 3))
    assert torch.equal(first, torch.randn(2, 3, generator=torch.Generator().manual_seed(3)))
