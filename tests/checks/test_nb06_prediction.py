"""The mark of the cheap prediction in notebook 06 accepts any matrix of rank 64 that chooses well."""

import math

import pytest
import torch

from persimmon_lab.checks import nb06_prediction as checks
from tests.checks.verdicts import assert_no_answers, assert_right, assert_told


def cut_spectrum(weight, bias, inputs, rank):
    u, s, v = torch.linalg.svd(weight, full_matrices=False)
    return u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]


def cut_to_what_was_heard(weight, bias, inputs, rank):
    directions = torch.linalg.svd(inputs @ weight.T, full_matrices=False).Vh[:rank]
    return directions.T @ (directions @ weight)


def cut_in_double_precision(**case):
    return cut_to_what_was_heard(
        **{name: v.double() if name in ("weight", "inputs") else v for name, v in case.items()}
    )


def kept(answer):
    verdict = assert_right(checks.cheap_weight, answer)
    return int(repr(verdict).split("carries ")[1].split("%")[0])


def test_matrices_that_choose_well_are_right_and_told_how_well():
    by_what_was_heard = kept(cut_to_what_was_heard)
    assert 100 * checks.ENOUGH <= kept(cut_spectrum) < by_what_was_heard <= 100
    assert math.isclose(kept(cut_in_double_precision), by_what_was_heard, abs_tol=1)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda weight, **_: weight, "its rank is 256; asked for is 64"),
        (lambda weight, bias, inputs, rank: cut_spectrum(weight, bias, inputs, rank + 1), "its rank is 65"),
        (
            lambda weight, **_: torch.zeros_like(weight),
            f"in layer {checks.LAYERS[0]} the fifth of the neurons that it chooses carries",
        ),  # biases
        (lambda weight, bias, inputs, rank: -cut_spectrum(weight, bias, inputs, rank), "A choice at random"),
        (lambda weight, bias, inputs, rank: cut_spectrum(weight, bias, inputs, 16), "60% are asked for"),
        (lambda weight, **_: weight.T, "returned the shape (256, 1024); expected (1024, 256)"),
    ],
)
def test_matrices_that_cost_too_much_or_choose_badly_are_told_so(answer, told):
    assert_told(checks.cheap_weight, answer, told)


def test_what_is_kept_is_measured_by_hand():
    activations = torch.tensor([[1.0, 0, 0, 3, 0], [2.0, 2, 0, 0, 0]])
    scores = torch.tensor([[0.0, 0, 0, 1, 0], [0.0, 1, 0, 0, 0]])  # a fifth of five is one
    assert checks.kept_by(scores, activations) == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_an_answer_that_is_no_answer():
    assert_no_answers(checks.cheap_weight)
