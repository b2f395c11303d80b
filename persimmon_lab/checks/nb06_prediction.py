"""Marks for notebook 06, Neurons that stay silent: a cheap prediction of which ones will be loud."""

from collections.abc import Callable
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.checks.marking import Verdict, Wrong, attempt, verdict
from persimmon_lab.checks.nb06_neurons import heard
from persimmon_lab.mini import load_mini

# Open: cheap_weight

EXAMPLES = """Shall I compare thee to a summer's day? Thou art more lovely and more temperate.
In the beginning God created the heaven and the earth. And the earth was without form, and void.
human: Do you have a dog?\n\nadept: I do not have a dog, but I have a cat.\n\nhuman: What is your cat called?
def largest(numbers):\n    result = numbers[0]\n    for number in numbers:\n        if number > result:\n"""
HELD_OUT = """human: Hello, how are you?\n\nadept: I am fine, thank you. I went to the park with my sister today.
Rough winds do shake the darling buds of May, and darkness was upon the face of the deep.\n"""
RANK = 64  # of 256: rank · (256 + 1024) multiplications where the way up needs 256 · 1024
CHOSEN = 0.2  # of the neurons, those that the prediction puts highest
ENOUGH = 0.6  # of a token's activation has to lie in them; the same neurons for every token reach a third
LAYERS = range(1, 7)  # where few neurons are awake


def kept_by(scores: Float[Tensor, "token mlp"], activations: Float[Tensor, "token mlp"]) -> float:
    """The part of the activation that lies in the neurons with the highest scores, mean over tokens."""
    chosen = scores.topk(round(CHOSEN * scores.shape[-1]), dim=-1).indices
    return float((activations.gather(-1, chosen).sum(dim=-1) / activations.sum(dim=-1)).mean())


def cheap_weight(answer: Callable[..., Float[Tensor, "mlp hidden"]]) -> Verdict:
    """Any matrix of low rank will do that tells, on a text it has not seen, which neurons will be loud.

    Source of the idea: Liu et al. 2023, Deja Vu, who train small predictors.
    """
    return verdict(
        _check_cheap, answer, lambda shares: f"the fifth that it chooses carries {fmean(shares):.0%} on a new text"
    )


def _check_cheap(answer: Callable[..., Float[Tensor, "mlp hidden"]]) -> list[float]:
    parameters = load_mini()[0].state_dict()
    shares = []
    for layer in LAYERS:
        weight, bias = (parameters[f"model.layers.{layer}.mlp.dense_h_to_4h.{part}"] for part in ("weight", "bias"))
        inputs = heard(EXAMPLES)[0][layer]
        unseen, activations = (part[layer] for part in heard(HELD_OUT))
        case = {"weight": weight, "bias": bias, "inputs": inputs, "rank": RANK}
        cheap = attempt(answer, case, weight.shape)
        spectrum = torch.linalg.svdvals(cheap.double())
        if spectrum[RANK] > 1e-4 * spectrum[0]:
            rank = int((spectrum > 1e-4 * spectrum[0]).sum())
            raise Wrong(
                f"its rank is {rank}; asked for is {RANK}, so that it costs a third of the way up (layer {layer})"
            )
        shares.append(kept_by(unseen @ cheap.mT.to(unseen.dtype) + bias, activations))
        if shares[-1] < ENOUGH:
            raise Wrong(
                f"in layer {layer} the fifth of the neurons that it chooses carries {shares[-1]:.0%} of the activation "
                f"on a new text; {ENOUGH:.0%} are asked for. A choice at random carries a fifth"
            )
    return shares
