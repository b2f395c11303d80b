"""The marks of notebook 09 accept right answers, written here another way, and name what is wrong with wrong ones."""

import math

import pytest
import torch

from persimmon_lab.checks import nb09_choosing as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {"temperature_for": checks.temperature_for, "nucleus": checks.nucleus}


def bits_at(logits, temperature):
    p = (logits.double() / temperature).softmax(dim=-1)
    return float(-(p * p.clamp(min=1e-300).log2()).sum())


def by_search(logits, bits):
    """Newton's secant on the log-temperature, in place of halving."""
    low, high = -3.0, 4.0
    for _ in range(70):
        share = (bits - bits_at(logits, math.exp(low))) / (
            bits_at(logits, math.exp(high)) - bits_at(logits, math.exp(low))
        )
        middle = low + min(max(share, 0.1), 0.9) * (high - low)
        low, high = (middle, high) if bits_at(logits, math.exp(middle)) < bits else (low, middle)
    return math.exp(low)


def one_by_one(logits, temperature, top_p):
    """Takes the best token that is left until the mass is reached."""
    p = (logits / temperature).softmax(dim=-1)
    stays, mass = [False] * len(p), 0.0
    while mass < top_p:
        best = max((i for i in range(len(p)) if not stays[i]), key=lambda i: float(p[i]))
        stays[best], mass = True, mass + float(p[best])
    return torch.tensor(stays)


def ranked(logits, temperature, top_p, shift=True, back=True):
    p, order = (logits / temperature).softmax(dim=-1).sort(descending=True)
    stays = (p.cumsum(dim=-1) - p if shift else p.cumsum(dim=-1)) < top_p
    return stays.scatter(-1, order, stays) if back else stays


def one_more(logits, temperature, top_p):
    stays = one_by_one(logits, temperature, top_p)
    left = [i for i in range(len(logits)) if not stays[i]]
    stays[max(left, key=lambda i: float(logits[i]))] = True
    return stays


def from_the_tail(logits, temperature, top_p):
    p = (logits / temperature).softmax(dim=-1)
    stays, mass = [False] * len(p), 0.0
    while mass < top_p:
        worst = min((i for i in range(len(p)) if not stays[i]), key=lambda i: float(p[i]))
        stays[worst], mass = True, mass + float(p[worst])
    return torch.tensor(stays)


def by_ratio(logits, temperature, top_p):
    return logits - logits.max() >= temperature * math.log(top_p)


def test_right_answers_found_another_way_are_right():
    assert_right(checks.temperature_for, by_search)
    assert_right(checks.nucleus, one_by_one)
    assert_right(checks.nucleus, lambda **case: one_by_one(**case).long())


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.temperature_for, lambda logits, bits: 1 / by_search(logits, bits), "1 / temperature"),
        (checks.temperature_for, lambda logits, bits: by_search(logits, bits / math.log(2)), "asked for are bits"),
        (checks.temperature_for, lambda logits, bits: bits / bits_at(logits, 1.0), "does not follow the entropy"),
        (checks.nucleus, lambda **case: ranked(**case, shift=False), "shift by one"),
        (checks.nucleus, lambda **case: ranked(**case, back=False), "order of the ranks"),
        (
            checks.nucleus,
            lambda logits, temperature, top_p: ranked(logits, 1.0, top_p),
            "before the temperature",
        ),
        (
            checks.nucleus,
            lambda logits, temperature, top_p: ranked(logits * temperature, 1.0, top_p),
            "divided by it",
        ),
        (checks.nucleus, one_more, "one token too many"),
        (checks.nucleus, from_the_tail, "from the least probable"),
        (checks.nucleus, by_ratio, "this is min-p"),
        (checks.nucleus, lambda **case: torch.ones_like(case["logits"]), "the numbers are not"),
    ],
)
def test_wrong_answers_are_told_what_is_wrong(check, answer, told):
    assert_told(check, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", [checks.temperature_for, checks.nucleus, checks.shown_until])
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check, tensor=check is not checks.shown_until)


# Stop strings


def streamed(pieces, stop, look=True, wait=True, flush=True):
    """Shows what precedes the stop string, and keeps back every end that may begin it."""
    shown, text, sent, done = [], "", 0, False
    for index, piece in enumerate(pieces):
        text = text + piece if look else piece
        sent = sent if look else 0
        limit = len(text)
        if stop in text:
            limit, done = text.index(stop), True
        elif wait and not (flush and index == len(pieces) - 1):
            limit -= next(n for n in range(len(stop) - 1, -1, -1) if text.endswith(stop[:n]))
        shown.append(text[sent:limit])
        sent = max(sent, limit)
        if done:
            return shown + [""] * (len(pieces) - index - 1)
    return shown


def test_the_other_right_answer_waits_and_shows():
    assert_right(checks.shown_until, streamed)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda pieces, stop: streamed(pieces, stop, look=False, wait=False), "begins in one piece"),
        (lambda pieces, stop: streamed(pieces, stop, wait=False), "wait"),
        (lambda pieces, stop: streamed(pieces, stop, flush=False), "was never shown"),
        (lambda pieces, stop: streamed(pieces, stop, wait=stop in "".join(pieces)), "may still become a stop string"),
        (
            lambda pieces, stop: [*[""] * (len(pieces) - 1), "".join(pieces).split(stop)[0]],
            "can be shown by then",
        ),
        (lambda pieces, stop: pieces[:-1], "one for each piece"),
        (lambda pieces, stop: [piece.upper() for piece in pieces], "the text came out"),
    ],
)
def test_wrong_screens_are_told_what_is_wrong(answer, told):
    assert_told(checks.shown_until, answer, told)
