"""The mark of notebook 12 for a rule accepts one that says where a head looks, and only of a head without a name."""

import re
from functools import cache

import pytest
import torch

import persimmon_lab
from persimmon_lab.checks import nb12_naming as checks
from persimmon_lab.trace.heads import patterns_of, stripe_scores
from persimmon_lab.training.evaluate import repeated_rows
from tests.checks.verdicts import assert_no_answers, assert_right, assert_told

MODEL, TOKENIZER = persimmon_lab.load_mini()


def pieces(ids):
    return TOKENIZER.convert_ids_to_tokens(ids.tolist())


def marking(wanted):
    """A rule that marks every key whose piece is wanted."""
    return lambda ids: torch.tensor([wanted(piece) for piece in pieces(ids)]).repeat(len(ids), 1)


def punctuation(piece):
    """Ends with a mark, as the start of a document does: |ENDOFTEXT|."""
    return piece[-1] in '.,?!:;)"|'


def beginnings(piece):
    """Ends a line, begins one, or is a run of spaces."""
    return piece in ("\n", "human", "▁human", "adept") or (len(piece) > 1 and set(piece) == {"▁"})


def lines_and_colons(ids):
    """Line breaks, the piece with which the line after each begins, and colons: the notebook's own solution."""
    breaks = torch.tensor([piece == "\n" for piece in pieces(ids)])
    begins = torch.cat((torch.tensor([False]), breaks[:-1]))
    colons = torch.tensor([piece == ":" for piece in pieces(ids)])
    return (breaks | begins | colons).repeat(len(ids), 1)


@cache
def fitting_rule():
    """Of some rules the first that names a head: which one does is a matter of the model that ships."""
    rules = (*map(marking, (punctuation, beginnings)), lines_and_colons)
    return next(rule for rule in rules if repr(checks.name_a_head(rule)).startswith("✓"))


def looking(ids):
    return fitting_rule()(ids)


def back(*offsets):
    return lambda ids: sum(torch.ones(len(ids), len(ids)).tril(-each).triu(-each) for each in offsets) > 0


def test_a_rule_for_a_head_without_a_name():
    found = assert_right(checks.name_a_head, looking)
    told = re.search(r"head (\d)\.(\d) looks where your rule says, with \d\d% in the chat", repr(found))
    assert told and (int(told[1]), int(told[2])) not in checks.named_heads()


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (back(1), "in the code), is one of the previous token heads"),
        (back(1, 2, 3), "is one of the previous token heads"),
        (marking(lambda piece: True), "it marks 100% of the keys"),
        (marking(lambda piece: piece == "▁the"), "of the queries look; say it of a third at least"),
        (back(0), "not with half of its attention everywhere"),
        (lambda ids: torch.zeros(len(ids), len(ids)).bool(), "it says where 0% of the queries look"),
        (lambda ids: ids.nowhere, "✗ not yet: in the chat it stopped with AttributeError: "),
    ],
)
def test_rules_that_are_not_enough_are_told_why(rule, told):
    assert_told(checks.name_a_head, rule, told)


def test_marks_in_the_future_do_not_count():
    def with_the_future(ids):
        return looking(ids) | torch.ones(len(ids), len(ids)).triu(1).bool()

    assert repr(checks.name_a_head(with_the_future)) == repr(checks.name_a_head(looking))


def test_the_heads_that_look_hardest_have_the_names():
    scores = stripe_scores(patterns_of(MODEL, repeated_rows(4096, 261, period=30, rows=8, seed=1)), 30)
    for kind in ("previous token", "induction"):
        hardest = divmod(int(scores[kind].argmax()), scores[kind].shape[1])
        assert checks.named_heads()[hardest] == kind


def test_an_answer_that_is_no_answer():
    assert_no_answers(checks.name_a_head)
