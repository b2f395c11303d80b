"""The marks of notebook 06 accept right answers, written here another way, and name what is wrong with wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab.checks import neurons as checks

TWO_STEPS = {
    "squared_relu_derivative": checks.squared_relu_derivative,
    "skip_silent": checks.same_numbers,
    "highest_preactivation": checks.highest_preactivation,
}
ASKED = {
    "squared_relu_derivative": checks.squared_relu_derivative,
    "skip_silent": checks.skip_silent,
    "highest_preactivation": checks.highest_preactivation,
}
MISTAKES = [(name, message) for name, exercise in TWO_STEPS.items() for message in exercise.mistakes]


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
    verdict = check(answer)
    assert verdict, verdict
    assert repr(verdict).startswith("✓ right: ")


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
    verdict = check(answer)
    assert not verdict
    assert told in repr(verdict)


@pytest.mark.parametrize(("name", "message"), MISTAKES)
def test_every_named_mistake_is_recognised_as_itself(name, message):
    verdict = ASKED[name](TWO_STEPS[name].mistakes[message])
    assert not verdict
    assert repr(verdict) == f"✗ not yet: {message}"


@pytest.mark.parametrize("check", [*ASKED.values(), checks.cheap_weight])
def test_an_answer_that_is_no_answer(check):
    def stops(**_):
        raise KeyError("weight")

    def gives(value):
        return lambda **_: value

    assert repr(check(gives(None))).startswith("○ not answered yet")
    assert repr(check(gives(...))).startswith("○ not answered yet")
    assert "stopped with KeyError: 'weight' (given " in repr(check(stops))
    assert "returned a str" in repr(check(gives("1.0")))
    assert "shape (3, 1, 4, 1, 5); expected (" in repr(check(gives(torch.zeros(3, 1, 4, 1, 5))))
    assert not any(map(check, (gives(None), stops, gives(1.0), gives(torch.zeros(())))))


def test_no_input_gets_a_neuron_of_the_shipped_model_higher():
    inputs = torch.randn(2000, 256, generator=torch.Generator().manual_seed(0)) * 30
    for case in list(checks.norms_and_weights())[-2:]:
        normed = F.layer_norm(inputs, (256,), case["norm_weight"], case["norm_bias"])
        reached = (normed @ case["weight"].T + case["bias"]).amax(dim=0)
        assert (reached < checks.highest(**case)).all()
        assert (reached > case["bias"]).all()


# The open exercise: any matrix of rank 64 that chooses well


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


@pytest.mark.parametrize("answer", [cut_spectrum, cut_to_what_was_heard, cut_in_double_precision])
def test_matrices_that_choose_well_are_right_and_told_how_well(answer):
    verdict = checks.cheap_weight(answer)
    assert verdict, verdict
    kept = int(repr(verdict).split("carries ")[1].split("%")[0])
    assert math.isclose(kept, 73 if answer is cut_spectrum else 89, abs_tol=2)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda weight, **_: weight, "its rank is 256; asked for is 64"),
        (lambda weight, bias, inputs, rank: cut_spectrum(weight, bias, inputs, rank + 1), "its rank is 65"),
        (
            lambda weight, **_: torch.zeros_like(weight),
            "in layer 1 the fifth of the neurons that it chooses carries 25%",
        ),  # biases
        (lambda weight, bias, inputs, rank: -cut_spectrum(weight, bias, inputs, rank), "A choice at random"),
        (lambda weight, bias, inputs, rank: cut_spectrum(weight, bias, inputs, 16), "60% are asked for"),
        (lambda weight, **_: weight.T, "returned the shape (256, 1024); expected (1024, 256)"),
    ],
)
def test_matrices_that_cost_too_much_or_choose_badly_are_told_so(answer, told):
    verdict = checks.cheap_weight(answer)
    assert not verdict
    assert told in repr(verdict)


def test_what_is_kept_is_measured_by_hand():
    activations = torch.tensor([[1.0, 0, 0, 3, 0], [2.0, 2, 0, 0, 0]])
    scores = torch.tensor([[0.0, 0, 0, 1, 0], [0.0, 1, 0, 0, 0]])  # a fifth of five is one
    assert checks.kept_by(scores, activations) == pytest.approx((3 / 4 + 2 / 4) / 2)
