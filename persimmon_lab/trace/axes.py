"""What the axes of Persimmon's activations mean, and how long a run makes them."""

from collections.abc import Mapping

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.trace.names import INPUT

Axes = tuple[str, ...]

RESIDUAL = ("batch", "position", "hidden")
FUSED = ("batch", "position", "(head three channel)")
MERGED = ("batch", "position", "(head channel)")
HEADS = ("batch", "head", "position", "channel")
SCORES = ("batch", "head", "query", "key")
MLP = ("batch", "position", "mlp")

LAYER = "layers.N"
MADE: Mapping[str, Axes] = {  # by the last part of a path
    "embed_tokens": RESIDUAL,
    LAYER: RESIDUAL,
    "input_layernorm": RESIDUAL,
    "self_attn": RESIDUAL,
    "query_key_value": FUSED,
    "q_layernorm": HEADS,
    "k_layernorm": HEADS,
    "rotated_query": HEADS,
    "rotated_key": HEADS,
    "value": HEADS,
    "scores": SCORES,
    "pattern": SCORES,
    "head_output": HEADS,
    "dense": RESIDUAL,
    "post_attention_layernorm": RESIDUAL,
    "mlp": RESIDUAL,
    "dense_h_to_4h": MLP,
    "activations": MLP,
    "dense_4h_to_h": RESIDUAL,
    "dropout": RESIDUAL,
    "final_layernorm": RESIDUAL,
    "lm_head": ("batch", "position", "vocab"),
    "score": ("batch", "label"),
}
GIVEN: Mapping[str, Axes | None] = {  # the inputs that have other axes than the outputs
    "embed_tokens": None,  # token ids, no activation
    "query_key_value": RESIDUAL,
    "dense": MERGED,
    "dense_h_to_4h": RESIDUAL,
    "dense_4h_to_h": MLP,
    "lm_head": RESIDUAL,
    "score": ("batch", "hidden"),
}


def axes_of(name: str) -> Axes | None:
    """The axes of an activation of this package's models, in DESIGN's words; None for a name that they do not have.

    transformers' model has some of the names with the axes in another order: its query and key are normalised before
    the heads move ahead of the positions.
    """
    path = name.removesuffix(INPUT)
    parent, _, last = path.rpartition(".")
    part = LAYER if last.isdecimal() and parent.endswith("layers") else last
    return GIVEN.get(part, MADE.get(part)) if name.endswith(INPUT) else MADE.get(part)


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
