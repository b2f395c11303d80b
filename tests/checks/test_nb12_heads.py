"""The marks of notebook 12 accept right answers, written here another way, and name what is wrong with wrong ones."""

import pytest
import torch

import persimmon_lab
from persimmon_lab.checks import nb12_heads as checks
from persimmon_lab.trace.heads import patterns_of, stripe_scores
from persimmon_lab.training.evaluate import repeated_rows
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {
    "sink_score": checks.sink_score,
    "induction_margin": checks.induction_margin,
    "following_score": checks.following_score,
}


def sink_by_loop(patterns):
    layers, heads, length, _ = patterns.shape
    result = torch.zeros(layers, heads)
    for query in range(1, length):
        result += patterns[:, :, query, 0] / (length - 1)
    return result


def margin_by_loop(repeated, shuffled, period, back=1, top=lambda null: null.max()):
    queries = range(period, 2 * period)
    scores = torch.stack([repeated[..., q, q - period + back] for q in queries]).mean(dim=0)
    null = torch.stack([shuffled[..., q, q - period + back] for q in queries]).mean(dim=0)
    return scores - top(null)


def following_by_loop(patterns, ids, every=False, after=1):
    layers, heads, length, _ = patterns.shape
    total, count = torch.zeros(layers, heads), 0
    for query in range(length):
        earlier = [key for key in range(query) if ids[key] == ids[query]]
        count += bool(earlier) or every
        for key in earlier:
            if key + after >= 0:
                total += patterns[:, :, query, key + after]
    return total / count


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.sink_score, sink_by_loop),
        (checks.induction_margin, margin_by_loop),
        (checks.following_score, following_by_loop),
    ],
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.sink_score, lambda patterns: patterns[..., 0].mean(dim=-1), "first query counts as well"),
        (checks.sink_score, lambda patterns: patterns[:, :, 0, 1:].mean(dim=-1), "query and key are swapped"),
        (checks.sink_score, lambda patterns: patterns[:, :, 1:, 0].sum(dim=-1), "adds the queries up"),
        (checks.sink_score, lambda patterns: patterns.diagonal(dim1=-2, dim2=-1)[..., 1:].mean(dim=-1), "the diagonal"),
        (
            checks.sink_score,
            lambda patterns: patterns.diagonal(-1, dim1=-2, dim2=-1).mean(dim=-1),
            "token before the query",
        ),
        (checks.sink_score, lambda patterns: sink_by_loop(patterns) / 2, "the numbers are not"),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, back=0), "earlier copy itself"),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, back=2), "two after the earlier copy"),
        (
            checks.induction_margin,
            lambda **case: margin_by_loop(**case, top=lambda null: null.max(dim=0).values),
            "own null alone",
        ),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, top=lambda null: null.mean()), "null's mean"),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, top=lambda null: 0), "null is missing"),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, top=lambda n: n.min()), "numbers are not"),
        (checks.following_score, lambda **case: following_by_loop(**case, after=0), "earlier copies themselves"),
        (checks.following_score, lambda **case: following_by_loop(**case, after=-1), "wrong side"),
        (checks.following_score, lambda **case: following_by_loop(**case, every=True), "whose token is new"),
        (checks.following_score, lambda **case: following_by_loop(**case, after=2), "numbers are not"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, told):
    assert_told(check, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", EXERCISES.values())
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


def test_on_rows_said_twice_the_answer_for_any_text_is_the_stripe():
    model, _ = persimmon_lab.load_mini()
    rows = repeated_rows(4096, 261, period=30, rows=1, seed=1)
    patterns = patterns_of(model, rows)[:, 0]
    torch.testing.assert_close(following_by_loop(patterns, rows[0]), stripe_scores(patterns[:, None], 30)["induction"])
