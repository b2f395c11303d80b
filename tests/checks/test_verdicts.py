"""What the tests of all marks share fails where a mark does: nothing else would notice if it stopped doing so."""

import pytest
import torch

from persimmon_lab.checks.marking import Exercise, Verdict
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

DOUBLE = Exercise(
    reference=lambda x: 2 * x,
    cases=lambda: [{"x": torch.arange(1.0, 4.0)}],
    axes=("place",),
    praise="twice",
    mistakes={"once": lambda x: x, "once more": lambda x: 1 * x, "none": lambda x: 2 * x},
)


def test_a_sound_mark_passes():
    assert repr(assert_right(DOUBLE, lambda x: x + x)) == "✓ right: twice"
    assert_told(DOUBLE, lambda x: x, "once")
    assert_told(DOUBLE, lambda x: ..., "not answered yet")
    assert_recognised(DOUBLE, "once")
    assert_no_answers(DOUBLE)


def test_mistakes_are_named_by_exercise():
    assert mistakes_of({"double": DOUBLE}) == [("double", "once"), ("double", "once more"), ("double", "none")]


@pytest.mark.parametrize("answer", [lambda x: x, lambda x: ...])
def test_what_is_wrong_is_not_right(answer):
    with pytest.raises(AssertionError):
        assert_right(DOUBLE, answer)


@pytest.mark.parametrize(
    ("answer", "told"), [(lambda x: 2 * x, "twice"), (lambda x: x, "thrice"), (lambda x: 3 * x, "once")]
)
def test_what_is_right_or_told_otherwise_is_not_told(answer, told):
    with pytest.raises(AssertionError):
        assert_told(DOUBLE, answer, told)


def test_a_verdict_that_does_not_show_itself_as_wrong():
    with pytest.raises(AssertionError):
        assert_told(lambda answer: Verdict(False, "once"), lambda x: x, "once")
    with pytest.raises(AssertionError):
        assert_right(lambda answer: Verdict(True, "twice"), lambda x: x)
    with pytest.raises(AssertionError):
        assert_right(lambda answer: Verdict(False, "✓ right: twice"), lambda x: x)
    with pytest.raises(AssertionError):
        assert_told(lambda answer: Verdict(True, "✗ not yet: once"), lambda x: x, "once")


@pytest.mark.parametrize("message", ["once more", "none"])
def test_mistakes_that_are_taken_for_another_or_are_none(message):
    with pytest.raises(AssertionError):
        assert_recognised(DOUBLE, message)


def test_a_mistake_is_recognised_by_what_readers_call():
    with pytest.raises(AssertionError):
        assert_recognised(DOUBLE, "once", asked=lambda answer: Verdict(True, "✗ not yet: once"))
    with pytest.raises(AssertionError):
        assert_recognised(DOUBLE, "once", asked=lambda answer: Verdict(False, "✗ not yet: once, in two cases"))


SOUND = {
    "nothing": "○ not answered yet: write it",
    "stops": "✗ not yet: it stopped with KeyError: 'theta' (given x (3,))",
    "str": "✗ not yet: it returned a str; return a tensor",
    "odd": "✗ not yet: it returned the shape (3, 1, 4, 1, 5); expected (3,)",
    "number": "✗ not yet: the numbers are not",
}


def spoiled(**said):
    """A mark that says what is sound to everything, but for `said`; a message that is None is a crash."""
    messages = SOUND | said

    def check(answer):
        try:
            value = answer(x=torch.ones(3))
        except KeyError:
            kind = "stops"
        else:
            kind = "nothing" if value is None or value is ... else "str" if isinstance(value, str) else "number"
            if isinstance(value, torch.Tensor) and value.dim() == 5:
                kind = "odd"
        if messages[kind] is None:
            raise TypeError
        return Verdict(messages[kind].startswith("✓"), messages[kind])

    return check


def test_the_marks_below_are_spoiled_in_one_place_only():
    assert_no_answers(spoiled())
    assert_no_answers(spoiled(str="✗ not yet: it returned '1.0'", odd="✗ not yet: no list"), tensor=False)


@pytest.mark.parametrize("tensor", [True, False])
@pytest.mark.parametrize("kind", SOUND)
def test_a_mark_that_takes_anything_for_an_answer(kind, tensor):
    with pytest.raises(AssertionError):
        assert_no_answers(spoiled(**{kind: f"✓ right: {SOUND[kind]}"}), tensor)


@pytest.mark.parametrize("kind", SOUND)
def test_a_mark_that_crashes(kind):
    with pytest.raises(TypeError):
        assert_no_answers(spoiled(**{kind: None}))


@pytest.mark.parametrize("tensor", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        {"nothing": "✗ not yet: it returned a NoneType"},
        {"stops": "✗ not yet: it stopped with KeyError: 'theta'"},
        {"stops": "✗ not yet: it stopped with KeyError: 'theta' (given f <function f at 0x7f0>)"},
        {"str": "✗ not yet: the numbers are not"},
        {"str": "○ not answered yet"},
        {"number": "○ not answered yet"},
    ],
)
def test_a_mark_that_tells_something_else(said, tensor):
    with pytest.raises(AssertionError):
        assert_no_answers(spoiled(**said), tensor)


@pytest.mark.parametrize(
    "said",
    [
        {"str": "✗ not yet: it returned '1.0'"},
        {"odd": "✗ not yet: it returned a Tensor; expected (3,)"},
        {"odd": "✗ not yet: it returned the shape (3, 1, 4, 1, 5); give (3,)"},
    ],
)
def test_a_mark_of_tensors_that_does_not_tell_type_and_shape(said):
    with pytest.raises(AssertionError):
        assert_no_answers(spoiled(**said))
