"""The marks of notebook 05 on bounds accept what is a bound, and refute what is none."""

import math

import pytest
import torch

from persimmon_lab.checks import nb05_bounds as checks
from persimmon_lab.numerics.bounds import largest_score_found, longest_output
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told

# largest_score


def by_search(head_dim, query_weight, key_weight):
    """The best pair there is: equal vectors, one of them turned round if the weights differ in sign."""
    x = torch.nn.functional.layer_norm(torch.arange(float(head_dim)).double(), (head_dim,), eps=0.0)
    return float(abs((query_weight * x) @ (key_weight * x))) / math.sqrt(head_dim)


def test_a_right_answer_found_another_way_is_right():
    assert_right(checks.largest_score, by_search)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda head_dim, **_: 8.0, "the shape is right, the numbers are not"),
        (lambda head_dim, query_weight, key_weight: head_dim * abs(query_weight * key_weight), "divided by √head_dim"),
        (lambda head_dim, **_: math.sqrt(head_dim), "bound for weight 1"),
        (lambda head_dim, query_weight, key_weight: abs(query_weight * key_weight), "to have length 1"),
        (lambda head_dim, query_weight, key_weight: abs(query_weight * key_weight) / math.sqrt(head_dim),
         "before the division"),
        (lambda head_dim, query_weight, key_weight: math.sqrt(head_dim) * query_weight * key_weight,
         "may be negative"),
        (lambda head_dim, query_weight, key_weight: math.sqrt(head_dim) * abs(query_weight), "only one of the two"),
    ],
)  # fmt: skip
def test_a_wrong_bound_is_told_what_is_wrong(answer, told):
    assert_told(checks.largest_score, answer, told)


@pytest.mark.parametrize("message", checks.largest_score.mistakes)
def test_every_named_mistake_is_recognised_as_itself(message):
    assert_recognised(checks.largest_score, message)


# reach_the_bound


def alternating(head_dim):
    vector = torch.tensor([(-1.0) ** channel for channel in range(head_dim)])
    return torch.stack((vector, 1000 * vector + 7))


def one_hot(head_dim):
    return torch.eye(head_dim)[:1].repeat(2, 1)


def half_way(head_dim):
    """Of the same direction in 2 channels, where there are only two; elsewhere not."""
    return torch.stack((torch.arange(float(head_dim)), torch.arange(float(head_dim)) ** 3))


@pytest.mark.parametrize("answer", [alternating, one_hot])
def test_vectors_that_reach_the_bound_are_right(answer):
    assert_right(checks.reach_the_bound, answer)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda head_dim: torch.ones(2, head_dim), "a vector of equal numbers is all mean"),
        (lambda head_dim: alternating(head_dim) * torch.tensor([[1.0], [-1.0]]), "turn one of the two round"),
        (lambda head_dim: 2e-3 * alternating(head_dim)[:1].repeat(2, 1), "so small a vector"),
        (half_way, "for which two directions"),
        (lambda head_dim: torch.stack((torch.arange(float(head_dim)), torch.eye(head_dim)[0])), "the lowest there is"),
        (lambda head_dim: torch.ones(head_dim), "it returned the shape (2,); expected (2, 2)"),
    ],
)
def test_vectors_that_do_not_are_told_why(answer, told):
    assert_told(checks.reach_the_bound, answer, told)


# tight_bound


def cauchy_schwarz(query_weight, query_bias, key_weight, key_bias, cos, sin):
    lengths = longest_output(query_weight, query_bias) * longest_output(key_weight, key_bias)
    return lengths / math.sqrt(len(query_weight))


def by_singular_values(query_weight, query_bias, key_weight, key_bias, cos, sin):
    """The notebook's solution, another way: one offset at a time, and rotation as a matrix."""
    channels, half = len(query_weight), cos.shape[-1] // 2
    centre = torch.eye(channels, dtype=torch.float64) - 1 / channels
    worst = 0.0
    for row in range(len(cos)):
        turn = torch.eye(channels, dtype=torch.float64)
        for pair in range(half):
            c, s = float(cos[row, pair]), float(sin[row, pair])
            turn[pair, pair] = turn[pair + half, pair + half] = c
            turn[pair, pair + half], turn[pair + half, pair] = -s, s
        best = math.inf
        for constant in (2.0, 3.0, 4.0):
            sides = [
                torch.cat((weight.double().diag() @ centre, bias.double()[:, None] / constant), dim=1)
                for weight, bias in ((query_weight, query_bias), (key_weight, key_bias))
            ]
            form = (turn @ sides[0]).T @ sides[1]
            best = min(best, float(torch.linalg.matrix_norm(form, 2)) * (channels + constant**2))
        worst = max(worst, best / math.sqrt(channels))
    return worst


def at_offset_zero(cos, sin, **case):
    return by_singular_values(cos=torch.ones_like(cos[:1]), sin=torch.zeros_like(sin[:1]), **case)


def without_biases(query_bias, key_bias, **case):
    return by_singular_values(query_bias=0 * query_bias, key_bias=0 * key_bias, **case)


def largest_of_a_sample(query_weight, query_bias, key_weight, key_bias, cos, sin):
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.layer_norm(torch.randn(2, 5000, len(cos[0]) * 2, generator=generator), (len(cos[0]) * 2,))
    scores = (x[0] * query_weight + query_bias) * (x[1] * key_weight + key_bias)
    return scores.sum(dim=-1).max() / math.sqrt(len(query_weight))


def test_a_proven_bound_is_right():
    assert_right(checks.tight_bound, by_singular_values)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (cauchy_schwarz, "or nearly; it lets the longest query"),
        (lambda **case: 1.5 * cauchy_schwarz(**case), "looser than Cauchy and Schwarz"),
        (lambda query_weight, **_: math.sqrt(len(query_weight)), "is not a bound"),
        (largest_of_a_sample, "is not a bound: there are a query and a key that score"),
        (without_biases, "is not a bound"),
        (lambda **case: 0.9 * by_singular_values(**case) if len(case["cos"]) > 30 else by_singular_values(**case),
         "of persimmon-mini)"),
    ],
)  # fmt: skip
def test_what_is_no_tighter_bound_is_told_why(answer, told):
    assert_told(checks.tight_bound, answer, told)


def test_the_cases_have_a_best_offset_that_is_not_zero():
    """A bound for offset 0 alone must be refuted."""
    verdict = checks.tight_bound(at_offset_zero)
    assert "is not a bound" in repr(verdict)
    assert "(random norms of 8 channels)" in repr(verdict)
    _, query_norm, key_norm, cos, sin = next(checks.tight_cases())
    found = largest_score_found(query_norm, key_norm, cos, sin)
    assert found[0] < 0.9 * found[checks.MEETING]


@pytest.mark.parametrize("check", [checks.largest_score, checks.reach_the_bound, checks.tight_bound])
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)
