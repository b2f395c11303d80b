"""Knobs that make a small model fail in half precision as a large one would, while it stays the same function.

A model of 256 channels stays far from float16's end. These copies compute, in exact arithmetic, what the original
computes (to the bit in float32, where the factor is a power of two and nothing leaves float32's range), by larger
numbers on the way. So whatever changes in a narrower format, the format did. Figures made with them must say so:
each knob has its sentence.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch

from persimmon_lab.fitting.choosing import check_room_for_copies
from persimmon_lab.model import PersimmonDecoderLayer
from persimmon_lab.pretrained import PersimmonPreTrainedModel
from persimmon_lab.trace.layers import decoder_layers


def chosen_layers(model: PersimmonPreTrainedModel, layers: Iterable[int] | None) -> list[PersimmonDecoderLayer]:
    """The decoder layers of those numbers, all by default. Raises ValueError for a number that is no layer."""
    every = decoder_layers(model)
    wanted = range(len(every)) if layers is None else list(layers)
    if outside := [index for index in wanted if not 0 <= index < len(every)]:
        raise ValueError(f"there is no layer {outside[0]}: the model's layers are 0 … {len(every) - 1}")
    return [every[index] for index in wanted]


def _check_factor(factor: int | float) -> None:
    if factor <= 0:
        raise ValueError(f"factor is {factor}; ReLU and LayerNorm keep their meaning under positive factors only")


@torch.no_grad()
def scale_mlp(
    model: PersimmonPreTrainedModel, factor: int | float, layers: Iterable[int] | None = None
) -> PersimmonPreTrainedModel:
    """A copy whose MLP pre-activations are `factor` times as large, and whose way down divides that out again.

    Squared ReLU is homogeneous of degree 2, relu(s x)^2 = s^2 relu(x)^2: `dense_h_to_4h` times s and the weight of
    `dense_4h_to_h` divided by s^2 is the same function. In float16 a pre-activation of 256 / s now overflows.

    Raises ValueError for another activation, a factor that is not positive, or a layer that is not there; MemoryError,
    before the copy, where there is no room for it.
    """
    _check_factor(factor)
    if model.config.hidden_act != "relu2":
        raise ValueError(f"hidden_act is {model.config.hidden_act!r}; only for 'relu2' is the scaled MLP the same")
    check_room_for_copies(model, [None], "scale_mlp")
    stressed = copy.deepcopy(model)
    for layer in chosen_layers(stressed, layers):
        layer.mlp.dense_h_to_4h.weight.mul_(factor)
        layer.mlp.dense_h_to_4h.bias.mul_(factor)
        layer.mlp.dense_4h_to_h.weight.div_(factor**2)
    return stressed


def what_scale_mlp_does(factor: int | float, layers: Iterable[int] | None = None) -> str:
    """For the caption of a figure."""
    return (
        f"stressed: MLP pre-activations of {_named(layers)} times {factor:g}, divided out on the way down; "
        "the same function in exact arithmetic"
    )


@torch.no_grad()
def scale_residual(model: PersimmonPreTrainedModel, factor: int | float) -> PersimmonPreTrainedModel:
    """A copy whose residual stream is `factor` times as large everywhere, which every LayerNorm divides out again.

    All that writes into the stream (the embedding, and in every layer the projections after attention and MLP) is
    multiplied, and the epsilon of the norms that read it by factor^2. Large factors overflow sums, small ones lose
    what is added.

    Raises ValueError for a factor that is not positive and for tied weights: their embedding also makes the logits;
    MemoryError, before the copy, where there is no room for it.
    """
    _check_factor(factor)
    if model.config.tie_word_embeddings:
        raise ValueError("the embedding is tied to lm_head; scaling it would scale the logits as well")
    check_room_for_copies(model, [None], "scale_residual")
    stressed = copy.deepcopy(model)
    body: Any = stressed.body
    body.embed_tokens.weight.mul_(factor)
    layers = decoder_layers(stressed)
    for layer in layers:
        for writer in (layer.self_attn.dense, layer.mlp.dense_4h_to_h):
            writer.weight.mul_(factor)
            writer.bias.mul_(factor)
    readers = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    for norm in (*readers, body.final_layernorm):
        norm.eps *= factor**2
    return stressed


def what_scale_residual_does(factor: int | float) -> str:
    """For the caption of a figure."""
    return (
        f"stressed: the residual stream times {factor:g}, divided out by the norms; "
        "the same function in exact arithmetic"
    )


def _named(layers: Iterable[int] | None) -> str:
    if layers is None:
        return "all layers"
    numbers = [str(index) for index in layers]
    return f"layer{'s' * (len(numbers) != 1)} {', '.join(numbers)}"
