"""The marks of notebook 11 accept right answers, written here another way, and name what is wrong with wrong ones."""

import math

import pytest
import torch

from persimmon_lab.checks import nb11_precision as checks
from persimmon_lab.numerics.islands import smallest_island
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told


def by_neighbours(weights, fraction_bits):
    """Counts patterns instead of bits: the next float32 number above, coarsened to fewer fraction bits."""
    above = torch.nextafter(weights.abs(), torch.tensor(torch.inf)) - weights.abs()
    return above * 2.0 ** (23 - fraction_bits) / 2


def test_half_a_step_found_another_way_is_right():
    assert_right(checks.half_step, by_neighbours)


def test_the_reference_is_what_torch_rounds_away():
    for dtype, bits in ((torch.bfloat16, 7), (torch.float16, 10)):
        weights = next(checks.weight_cases())["weights"]
        held = weights.to(dtype)
        half = checks.half_a_step(held.float(), bits) * held.float().sign()
        assert torch.equal((held.float() + 0.999 * half).to(dtype), held)
        assert (((held.float() + 1.001 * half).to(dtype)) != held).all()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda weights, fraction_bits: 2 * by_neighbours(weights, fraction_bits), "the whole step"),
        (lambda weights, fraction_bits: weights.abs() / 2 ** (fraction_bits + 1), "go down to the power of two first"),
        (lambda weights, fraction_bits: torch.ones(8) / 2 ** (fraction_bits + 1), "grows with the weight"),
        (lambda weights, fraction_bits: by_neighbours(weights, fraction_bits + 1), "one bit too many"),
        (
            lambda weights, fraction_bits: by_neighbours(weights, fraction_bits) * weights.sign(),
            "the numbers are not, in 3 of 3 cases; for example weight 5, the answer is -2 and should be 2: off by",
        ),
        (lambda weights, fraction_bits: 2.0 ** (weights.log2().floor() - fraction_bits - 1), "not finite"),
        (lambda weights, fraction_bits: None, "not answered yet"),
    ],
)
def test_a_wrong_half_step_is_told_what_is_wrong(answer, told):
    assert_told(checks.half_step, answer, told)


@pytest.mark.parametrize("message", checks.half_step.mistakes)
def test_every_named_mistake_is_recognised_as_itself(message):
    assert_recognised(checks.half_step, message)


# Loss scale


def below_the_ceiling(gradients):
    """As large as the squares allow, with a factor of 4 to spare."""
    return 2.0 ** math.floor(math.log2((65504 / 0.001) ** 0.5 / gradients.abs().max().item() / 4))


def above_the_floor(gradients):
    """As small as 99.5% of the squares allow."""
    found = gradients[gradients != 0].abs()
    return 2.0 ** math.ceil(math.log2((2.0**-25 / 0.001) ** 0.5 / found.quantile(0.005).item()))


@pytest.mark.parametrize("answer", [below_the_ceiling, above_the_floor])
def test_any_scale_that_fits_is_right(answer):
    assert_right(checks.loss_scale, answer)


@pytest.mark.parametrize("case", list(checks.gradient_cases()), ids=["like the model's", "small", "large"])
def test_a_right_scale_keeps_adamw_in_float16_normalised(case):
    """AdamW itself, on float16 weights, with the scale of a right answer and without one."""
    found = case["gradients"]
    for scale, most in ((below_the_ceiling(found), 0.01), (above_the_floor(found), 0.01)):
        weight = torch.nn.Parameter(torch.zeros(len(found), dtype=torch.float16))
        optimiser = torch.optim.AdamW([weight], eps=1e-4)
        weight.grad = (found * scale).half()
        optimiser.step()
        second = optimiser.state[weight]["exp_avg_sq"]
        assert second.isfinite().all()
        assert ((second == 0) & (found != 0)).sum() <= most * len(found)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda gradients: 2.0**16, "of the gradients is still 0"),
        (lambda gradients: 2.0**20, "the largest gradient becomes "),
        (lambda gradients: 1.0, "of the gradients is still 0"),
        (lambda gradients: 1.0 / below_the_ceiling(gradients), "of the gradients is still 0"),
        (lambda gradients: 2.0 ** math.floor(math.log2(60000 / gradients.abs().max())), "AdamW stores 0.001 times its"),
        (
            lambda gradients: 2.0 ** math.ceil(math.log2(2.0**-24 / gradients[gradients != 0].abs().min())),
            "of the gradients is still 0",
        ),
        (lambda gradients: below_the_ceiling(gradients) * 0.9, "take a power of two"),
        (lambda gradients: -below_the_ceiling(gradients), "is positive"),
        (lambda gradients: 2.0 ** -round(math.log2(gradients.quantile(0.1))), "stopped with ValueError"),  # no abs
        (lambda gradients: torch.ones(3), "returned the shape (3,); expected ()"),
        (lambda gradients: ..., "not answered yet"),
    ],
)
def test_a_wrong_loss_scale_is_told_what_is_wrong(answer, told):
    assert_told(checks.loss_scale, answer, told)


# Islands


def overflowing_layers(model, ids):
    """From one float32 pass: the layers whose largest pre-activation reaches 256."""
    tops = {}

    def note(path):
        return lambda _module, _given, made: tops.update({path: float(made.max())})

    handles = [
        layer.mlp.dense_h_to_4h.register_forward_hook(note(f"model.layers.{index}.mlp"))
        for index, layer in enumerate(model.model.layers)
    ]
    with torch.no_grad():
        model(ids)
    for handle in handles:
        handle.remove()
    return [path for path, top in tops.items() if top >= 256]


def by_search(model, ids):
    return list(smallest_island(model, torch.float16, ids).islands)


@pytest.mark.parametrize("answer", [overflowing_layers, by_search])
def test_the_smallest_islands_are_right(answer):
    assert_right(checks.choose_islands, answer)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda model, ids: [], "in float32, model.layers.1.mlp.activations"),
        (lambda model, ids: ["*.mlp"], "weights in float32, where"),
        (lambda model, ids: ["model.layers.*"], "weights in float32, where"),
        (lambda model, ids: ["model"], "weights in float32, where"),
        (lambda model, ids: ["model.layers"], "an island is a module with the weights"),
        (lambda model, ids: [path.removesuffix(".mlp") for path in overflowing_layers(model, ids)], "are enough"),
        (lambda model, ids: overflowing_layers(model, ids)[:1], "in float32, model.layers.3.mlp.activations"),
        (lambda model, ids: ["model.layers.1.mlp"], "in float32, model.layers.0.mlp.activations"),
        (lambda model, ids: ["*.mlp.activations"], "an island is a module with the weights"),
        (lambda model, ids: ["*.mlp.dense_h_to_4h"], "squared ReLU of"),
        (lambda model, ids: ["*.self_attn"], "squared ReLU of"),
        (lambda model, ids: "model.layers.1.mlp", "return a list of module paths"),
        (lambda model, ids: model.nowhere, "stopped with AttributeError"),
        (lambda model, ids: None, "not answered yet"),
    ],
)
def test_wrong_islands_are_told_what_is_wrong(answer, told):
    assert_told(checks.choose_islands, answer, told)


@pytest.mark.parametrize("check", [checks.half_step, checks.loss_scale])
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


def test_an_answer_that_is_no_list_of_islands():
    assert_no_answers(checks.choose_islands, tensor=False)
