"""What a module path means: which layer it lies in, what the module computes, and the axes of its tensors.

    model.layers.3.self_attn.dense    layer 3, a linear map, from (batch position (head channel)) to (… hidden)

The taps that hooks listen to are such modules; docs/taps.md is this table with shapes. An activation is called by the
path of the module that makes it, or by PATH:input for what the module is given. transformers' model has most of these
names too.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from persimmon_lab.config import PersimmonConfig

Axes = tuple[str, ...]

INPUT = ":input"  # ends the name of what a module is given
LAYER = "layers.N"  # stands for the path of any decoder layer
LOGITS = "lm_head"  # the module that makes them
RESIDUAL, SQUARED_RELU = "residual stream", "squared ReLU"  # two operations that are looked for by name

STREAM = ("batch", "position", "hidden")
FUSED = ("batch", "position", "(head three channel)")
MERGED = ("batch", "position", "(head channel)")
HEADS = ("batch", "head", "position", "channel")
SCORES = ("batch", "head", "query", "key")
NEURONS = ("batch", "position", "mlp")


class Part(NamedTuple):
    """One kind of module: what it does, from which axes to which; None where ids go in, which are no activation."""

    operation: str
    input_axes: Axes | None
    output_axes: Axes


PARTS: Mapping[str, Part] = {  # by the last part of a path
    "embed_tokens": Part("embedding", None, STREAM),
    LAYER: Part(RESIDUAL, STREAM, STREAM),
    "input_layernorm": Part("LayerNorm", STREAM, STREAM),
    "self_attn": Part("attention", STREAM, STREAM),
    "query_key_value": Part("linear map", STREAM, FUSED),
    "q_layernorm": Part("LayerNorm", HEADS, HEADS),
    "k_layernorm": Part("LayerNorm", HEADS, HEADS),
    "rotated_query": Part("rotation", HEADS, HEADS),
    "rotated_key": Part("rotation", HEADS, HEADS),
    "value": Part("value", HEADS, HEADS),
    "scores": Part("scores", SCORES, SCORES),
    "pattern": Part("softmax", SCORES, SCORES),
    "head_output": Part("mean of the values", HEADS, HEADS),
    "dense": Part("linear map", MERGED, STREAM),
    "post_attention_layernorm": Part("LayerNorm", STREAM, STREAM),
    "mlp": Part("MLP", STREAM, STREAM),
    "dense_h_to_4h": Part("linear map", STREAM, NEURONS),
    "activations": Part("activation", NEURONS, NEURONS),
    "dense_4h_to_h": Part("linear map", NEURONS, STREAM),
    "dropout": Part("dropout", STREAM, STREAM),
    "final_layernorm": Part("LayerNorm", STREAM, STREAM),
    LOGITS: Part("logits", STREAM, ("batch", "position", "vocab")),
    "score": Part("score", ("batch", "hidden"), ("batch", "label")),
}

_LAYER = re.compile(r"(?:^|(?<=\.))layers\.(\d+)(?=$|[.:])")


def layer_of(path: str) -> int | None:
    """The number of the decoder layer that a module or a parameter belongs to; None outside the layers."""
    match = _LAYER.search(path)
    return int(match[1]) if match else None


def within_layer(path: str) -> str:
    """What a path is called within its layer: "mlp.activations", "" for the layer itself; outside, as it is."""
    match = _LAYER.search(path)
    return path[match.end() :].removeprefix(".") if match else path


def any_layer(path: str, number: str = "N") -> str:
    """The path with `number` for that of its layer, equal for all modules of one kind: "model.layers.N.mlp"."""
    return _LAYER.sub(f"layers.{number}", path)


def part_at(path: str) -> Part | None:
    """The kind of module at a path; None for one that this package's models do not have."""
    return PARTS.get(LAYER if layer_of(path) is not None and not within_layer(path) else path.rpartition(".")[2])


def operation_of(path: str, hidden_act: str = "") -> str:
    """What the module at a path computes, in words; `hidden_act` names the activation. An unknown module: its name."""
    name, part = path.rpartition(".")[2], part_at(path)
    if name == "activations":
        return SQUARED_RELU if hidden_act == "relu2" else f"activation {hidden_act}".strip()
    return part.operation if part is not None else name


def axes_of(name: str) -> Axes | None:
    """The axes of an activation of this package's models; None for a name that they do not have.

    The trap: transformers' model has some of the names with the axes in another order, as its query and key are
    normalised before the heads move ahead of the positions.
    """
    part = part_at(name.removesuffix(INPUT))
    if part is None:
        return None
    return part.input_axes if name.endswith(INPUT) else part.output_axes


def axis_sizes(config: PersimmonConfig, batch: int, positions: int, past: int = 0) -> dict[str, int]:
    """How long each axis is in a forward pass over `positions` new positions, after `past` that are in the cache."""
    return {
        "batch": batch,
        "position": positions,
        "query": positions,
        "key": past + positions,
        "head": config.num_attention_heads,
        "channel": config.head_dim,
        "hidden": config.hidden_size,
        "(head channel)": config.hidden_size,
        "(head three channel)": 3 * config.hidden_size,
        "mlp": config.intermediate_size,
        "vocab": config.vocab_size,
        "label": config.num_labels,
    }
