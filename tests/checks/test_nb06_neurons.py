"""The marks of notebook 06 accept right answers, written here another way, and name what is wrong with wrong ones."""

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab.checks import nb06_neurons as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {
    "squared_relu_derivative": checks.squared_relu_derivative,
    "skip_silent": checks.same_numbers,
    "highest_preactivation": checks.highest_preactivation,
}
ASKED = {
    "squared_relu_derivative": checks.squared_relu_derivative,
    "skip_silent": checks.skip_silent,
    "highest_preactivation": checks.highest_preactivation,
}


def by_autograd(x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad((x.clamp(min=0) ** 2).sum(), x)[0]


def neuron_by_neuron(activations, weight, bias):
    outputs = []
    for token in activations:
        output = bias.clone()
        for neuron in token.nonzero()[:, 0].tolist():
            output += token[neuron] * weight[:, neuron]
        outputs.append(output)
    return torch.stack(outputs)


def columns_of_the_union(activations, weight, bias):
    needed = activations.any(dim=0).nonzero()[:, 0]
    return F.linear(activations[:, needed], weight[:, needed], bias)


def by_the_worst_input(norm_weight, norm_bias, weight, bias):
    """Run LayerNorm on the input that each neuron would like best, large enough for epsilon to be nothing."""
    reach = []
    for neuron, row in enumerate(weight.double()):
        wish = 1e6 * (row * norm_weight)
        normed = F.layer_norm(wish, wish.shape, norm_weight.double(), norm_bias.double())
        reach.append(row @ normed + bias[neuron])
    return torch.stack(reach)


def zeros_multiplied(activations, weight, bias):
    return activations @ weight.T + bias


def masked_to_zero(activations, weight, bias):
    return (activations * (activations > 0)) @ (weight * (activations > 0).any(dim=0)).T + bias


def strongest_tenth(activations, weight, bias):
    kept = torch.zeros_like(activations)
    best = activations.topk(max(1, activations.shape[-1] // 10), dim=-1)
    return zeros_multiplied(kept.scatter(-1, best.indices, best.values), weight, bias)


def sum_of_absolute_values(norm_weight, norm_bias, weight, bias):
    return (weight * norm_weight).abs().sum(dim=-1) + weight @ norm_bias + bias


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.squared_relu_derivative, by_autograd),
        (checks.skip_silent, neuron_by_neuron),
        (checks.skip_silent, columns_of_the_union),
        (checks.highest_preactivation, by_the_worst_input),
    ],
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.squared_relu_derivative, lambda x: torch.heaviside(x, torch.tensor(0.0)), "ReLU's derivative, a step"),
        (checks.squared_relu_derivative, lambda x: torch.heaviside(x, torch.tensor(1.0)), "for example"),
        (checks.squared_relu_derivative, lambda x: x + x, "2x everywhere"),
        (checks.squared_relu_derivative, lambda x: x.clamp(min=0), "factor 2"),
        (checks.squared_relu_derivative, lambda x: 2 * x.abs(), "the numbers are not"),
        (checks.skip_silent, zeros_multiplied, "reads weights of neurons that no token needs"),
        (checks.skip_silent, masked_to_zero, "select the columns instead of multiplying by zero"),
        (checks.skip_silent, strongest_tenth, "the numbers are not"),
        (
            checks.skip_silent,
            lambda activations, weight, bias: columns_of_the_union(activations * (activations > 0.01), weight, bias),
            "up to 0.01",
        ),
        (
            checks.skip_silent,
            lambda activations, weight, bias: columns_of_the_union(activations, weight, torch.zeros_like(bias)),
            "bias is missing",
        ),
        (checks.highest_preactivation, sum_of_absolute_values, "the numbers are not"),
        (
            checks.highest_preactivation,
            lambda norm_weight, norm_bias, weight, bias: by_the_worst_input(
                norm_weight, torch.zeros_like(norm_bias), weight, bias
            ),
            "the norm's bias is missing",
        ),
        (
            checks.highest_preactivation,
            lambda norm_weight, norm_bias, weight, bias: by_the_worst_input(norm_weight, norm_bias, weight, 0 * bias),
            "the bias of the way up is missing",
        ),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, told):
    assert_told(check, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message, asked=ASKED[name])


@pytest.mark.parametrize("check", ASKED.values())
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


def test_no_input_gets_a_neuron_of_the_shipped_model_higher():
    inputs = torch.randn(2000, 256, generator=torch.Generator().manual_seed(0)) * 30
    for case in list(checks.norms_and_weights())[-2:]:
        normed = F.layer_norm(inputs, (256,), case["norm_weight"], case["norm_bias"])
        reached = (normed @ case["weight"].T + case["bias"]).amax(dim=0)
        assert (reached < checks.highest(**case)).all()
        assert (reached > case["bias"]).float().mean() > 0.99, "the inputs do reach far"
