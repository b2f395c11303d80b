"""What every mark owes whoever answers: praise where it is due, the mistake by its name, and no crash."""

import math
from collections.abc import Callable, Mapping

import torch

from persimmon_lab.checks.marking import Exercise, Verdict

Check = Callable[[Callable], Verdict]


def mistakes_of(exercises: Mapping[str, Exercise]) -> list[tuple[str, str]]:
    """The names of an exercise and of a mistake, for every mistake: what to call a test with."""
    return [(name, message) for name, exercise in exercises.items() for message in exercise.mistakes]


def assert_right(check: Check, answer: Callable) -> Verdict:
    """Gives the verdict, for what else it has to say."""
    verdict = check(answer)
    assert verdict
    assert repr(verdict).startswith("✓ right: ")
    return verdict


def assert_told(check: Check, answer: Callable, told: str):
    """The answer is wrong, or none, and the reader is told so."""
    verdict = check(answer)
    assert not verdict
    assert repr(verdict).startswith(("✗ not yet: ", "○ not answered yet: "))
    assert told in repr(verdict)


def assert_recognised(exercise: Exercise, message: str, asked: Check | None = None):
    """A named mistake gets its own message and nothing else: no other mistake gives the same numbers on all cases.

    `asked` is what readers call where that is more than the exercise itself.
    """
    verdict = (asked or exercise)(exercise.mistakes[message])
    assert not verdict
    assert repr(verdict) == f"✗ not yet: {message}"


def assert_no_answers(check: Check, tensor: bool = True):
    """A stub, an answer that stops, and things that answer nothing. `tensor` says that one is asked for."""

    def stops(*_, **__):
        raise KeyError("theta")

    def gives(value):
        return lambda *_, **__: value

    for nothing in (None, ...):
        assert_told(check, gives(nothing), "○ not answered yet")
    assert_told(check, stops, "it stopped with KeyError: 'theta' (given ")
    assert " at 0x" not in repr(check(stops))
    assert_told(check, gives("1.0"), "it returned ")
    told = repr(check(gives("1.0")))
    assert "returned a str" in told or (not tensor and "returned '1.0'" in told)
    odd = torch.zeros(3, 1, 4, 1, 5)
    assert_told(check, gives(odd), "it returned the shape (3, 1, 4, 1, 5); expected (" if tensor else "✗ not yet")
    for value in (1.0, math.nan, torch.zeros(())):
        assert_told(check, gives(value), "✗ not yet")
