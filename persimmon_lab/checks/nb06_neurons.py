"""Marks for notebook 06, Neurons that stay silent: their function, their cost and their reach."""

import functools
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, agree, verdict
from persimmon_lab.checks.reads import watched
from persimmon_lab.mini import load_mini
from persimmon_lab.mlp import squared_relu
from persimmon_lab.trace.capture import capture

Vector = Float[Tensor, "mlp"]
READ = "the king gave seven golden rings to Hannah, the king gave seven golden rings to Hannah"


@functools.cache
def heard(text: str) -> tuple[Float[Tensor, "layer token hidden"], Float[Tensor, "layer token mlp"]]:
    """What goes into the MLPs of the shipped model, and their neurons, while it reads a text."""
    model, tokenizer = load_mini()
    names = ("post_attention_layernorm", "mlp.activations")
    trace = capture(model, tokenizer(text, return_tensors="pt").input_ids, only=names)
    inputs, neurons = (rearrange(trace.stacked(name), "layer 1 token width -> layer token width") for name in names)
    return inputs, neurons


# Easy: squared_relu_derivative


def points() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    yield {"x": torch.tensor([-300.0, -2.0, -1e-3, 0.0, 1e-3, 0.5, 2.0, 300.0])}
    yield {"x": torch.randn(2, 5, 7, generator=generator)}
    yield {"x": heard(READ)[0][0]}


squared_relu_derivative = Exercise(
    reference=lambda x: 2 * F.relu(x),
    cases=points,
    axes=("batch", "position", "mlp"),
    praise="2·relu(x): it grows with the neuron, and at 0 it is 0 from both sides",
    mistakes={
        "this is ReLU's derivative, a step; the square in front of it brings down a 2·relu(x)": lambda x: (x > 0).to(
            x.dtype
        ),
        "this is 2x everywhere; a silent neuron does not move, so left of 0 the derivative is 0": lambda x: 2 * x,
        "the factor 2 of the square is missing": lambda x: F.relu(x),
        "this is the function itself": lambda x: squared_relu(x),
        "this is relu's step times 2; the square's own derivative, 2·relu(x), still holds x": lambda x: (
            2 * (x > 0).to(x.dtype)
        ),
    },
)


# Medium: skip_silent


def down(
    activations: Float[Tensor, "token mlp"], weight: Float[Tensor, "hidden mlp"], bias: Float[Tensor, "hidden"]
) -> Float[Tensor, "token hidden"]:
    return einsum(activations, weight, "token mlp, hidden mlp -> token hidden") + bias


def some_activations(tokens: int, neurons: int, awake: float, generator: torch.Generator) -> Float[Tensor, "token mlp"]:
    """Squared ReLU's output with a share of neurons awake, from the very weak to the strong."""
    sizes = 10 ** torch.empty(tokens, neurons).uniform_(-4, 1, generator=generator)
    return sizes * (torch.rand(tokens, neurons, generator=generator) < awake)


def activations_and_weights() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(1)
    for tokens, neurons, hidden, awake in ((1, 12, 4, 0.5), (3, 40, 8, 0.2), (5, 64, 16, 0.1), (2, 16, 3, 0.0)):
        weight = torch.randn(hidden, neurons, generator=generator)
        # Weak activations meet large weights, so that dropping them shows.
        yield {
            "activations": some_activations(tokens, neurons, awake, generator),
            "weight": 30 * weight,
            "bias": torch.randn(hidden, generator=generator),
        }
    parameters = load_mini()[0].state_dict()
    for layer in (1, 6):
        way_down = f"model.layers.{layer}.mlp.dense_4h_to_h"
        yield {
            "activations": heard(READ)[1][layer, :4],
            "weight": parameters[f"{way_down}.weight"],
            "bias": parameters[f"{way_down}.bias"],
        }


def only(choose: Callable[[Bool[Tensor, "token mlp"]], Bool[Tensor, "mlp"]]) -> Callable[..., Tensor]:
    """The way down through the neurons that a rule chooses for all tokens."""
    return lambda activations, weight, bias: down(activations * choose(activations != 0), weight, bias)


def above(threshold: float) -> Callable[..., Tensor]:
    return lambda activations, weight, bias: down(activations * (activations > threshold), weight, bias)


same_numbers = Exercise(
    reference=down,
    cases=activations_and_weights,
    axes=("token", "hidden"),
    praise="the numbers are those of the dense product",
    mistakes={
        "the bias is missing; it belongs to no neuron, so it stays however many are silent": (
            lambda activations, weight, bias: down(activations, weight, torch.zeros_like(bias))
        ),
        "it keeps the neurons that every token needs; the batch needs those that any of them needs": only(
            lambda awake: awake.all(dim=0)
        ),
        "it takes the first token's neurons for all tokens; each has its own, and the batch needs them all": only(
            lambda awake: awake[0]
        ),
    }
    | {
        f"it drops activations up to {threshold}; that is an approximation. Exactly zero is what costs nothing": above(
            threshold
        )
        for threshold in (0.001, 0.01, 0.1, 1.0)
    },
)


def skip_silent(answer: Callable[..., Tensor]) -> Verdict:
    """The numbers first; then the weights of the neurons that no token needs become nan, and must not be read."""
    numbers_verdict = same_numbers(answer)
    praise = "the numbers of the dense product, and no weight of a silent neuron was read"
    return verdict(_check_unread, answer, praise) if numbers_verdict else numbers_verdict


def _check_unread(answer: Callable[..., object]) -> None:
    for case in activations_and_weights():
        silent = (case["activations"] == 0).all(dim=0)
        poisoned = case | {"weight": case["weight"].masked_fill(silent, torch.nan)}
        result, was_read = watched(answer, poisoned, "weight", silent, down(**case).shape)
        if not result.isfinite().all():
            raise Wrong(
                "the numbers are right, but it reads weights of neurons that no token needs: with nan in those "
                "columns, it returned numbers that are not finite (inf or nan). 0 · nan is nan: select the columns "
                "instead of multiplying by zero"
            )
        if was_read or not agree(result, down(**case)):
            raise Wrong(
                "the numbers are right, but it reads weights of neurons that no token needs: replacing or clearing a "
                "weight reads it as well. Select the columns that are needed, and multiply only those"
            )


# Medium: highest_preactivation

NORM = ("norm_weight", "norm_bias", "weight", "bias")


def highest(
    norm_weight: Float[Tensor, "hidden"],
    norm_bias: Float[Tensor, "hidden"],
    weight: Float[Tensor, "mlp hidden"],
    bias: Vector,
) -> Vector:
    """sqrt(hidden) |centred(w * gain)| + w . norm_bias + bias, by Cauchy and Schwarz.

    LayerNorm's result before its gain has mean 0 and at most the length sqrt(hidden), so it finds in w * gain only
    what is left after the mean is taken out, and can point no further along it than it is long.
    """
    centred = weight * norm_weight - (weight * norm_weight).mean(dim=-1, keepdim=True)
    length: Vector = math.sqrt(len(norm_weight)) * centred.norm(dim=-1)
    return length + weight @ norm_bias + bias


def norms_and_weights() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(2)
    for hidden, neurons in ((4, 3), (16, 20), (9, 5)):
        gain, shift = torch.randn(2, hidden, generator=generator)
        weight, bias = torch.randn(neurons, hidden, generator=generator), torch.randn(neurons, generator=generator)
        yield dict(zip(NORM, (gain, shift, weight + 0.3, bias)))
        yield dict(zip(NORM, (gain, shift, weight, bias - 50)))  # neurons that nothing wakes
    parameters = load_mini()[0].state_dict()
    for layer in (0, 7):
        parts = ("post_attention_layernorm.weight", "post_attention_layernorm.bias",
                 "mlp.dense_h_to_4h.weight", "mlp.dense_h_to_4h.bias")  # fmt: skip
        yield {name: parameters[f"model.layers.{layer}.{part}"] for name, part in zip(NORM, parts)}


def highest_without_centring(norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Vector) -> Vector:
    length: Vector = math.sqrt(len(norm_weight)) * (weight * norm_weight).norm(dim=-1)
    return length + weight @ norm_bias + bias


def highest_of_unit_length(norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Vector) -> Vector:
    shift = weight @ norm_bias + bias
    return (highest(norm_weight, norm_bias, weight, bias) - shift) / math.sqrt(len(norm_weight)) + shift


def highest_centred_before_the_gain(norm_weight: Tensor, norm_bias: Tensor, weight: Tensor, bias: Vector) -> Vector:
    centred = (weight - weight.mean(dim=-1, keepdim=True)) * norm_weight
    length: Vector = math.sqrt(len(norm_weight)) * centred.norm(dim=-1)
    return length + weight @ norm_bias + bias


highest_preactivation = Exercise(
    reference=highest,
    cases=norms_and_weights,
    axes=("mlp",),
    praise="no input whatever can get a neuron higher, and one input gets it there",
    mistakes={
        "it forgets that LayerNorm takes the mean out: the part of w·gain along (1, 1, …) meets nothing": (
            highest_without_centring
        ),
        "it takes the normalised vector for one of length 1; each channel has variance 1, so its length is "
        "sqrt(hidden)": highest_of_unit_length,
        "the mean is taken out of w before the gain; the gain comes after the mean was taken out of x, so centre "
        "w·gain": highest_centred_before_the_gain,
        "the norm's bias is missing; it goes through the weight": lambda norm_weight, norm_bias, weight, bias: highest(
            norm_weight, torch.zeros_like(norm_bias), weight, bias
        ),
        "the bias of the way up is missing": lambda norm_weight, norm_bias, weight, bias: highest(
            norm_weight, norm_bias, weight, torch.zeros_like(bias)
        ),
        "the norm's weight is missing: LayerNorm multiplies each channel by it": (
            lambda norm_weight, norm_bias, weight, bias: highest(torch.ones_like(norm_weight), norm_bias, weight, bias)
        ),
    },
)
