"""A configuration from a release: what its `args` say, checked against the tensors, or what the tensors show.

Everything goes by Megatron's names until the end, so that a message can be looked up in a training script.
Source: adept-inference `arguments.py`.
"""

from collections.abc import Mapping
from typing import Any

from persimmon_lab.adept.frequencies import Frequencies, base_of, faults
from persimmon_lab.adept.tensor_names import EMBEDDING, HEAD
from persimmon_lab.anatomy import layer_of
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import Source
from persimmon_lab.config import PersimmonConfig

NO_NORM, PER_LAYER = "none", "weights_per_layer"
# By accident, says Adept; with one rank, or ranks that agree, it is the same as PER_LAYER.
PER_RANK, PER_HEAD = "weights_per_tensor_parallel_rank_and_layer", "weights_per_attention_head_and_layer"
SIZES = ("num_layers", "hidden_size", "ffn_hidden_size", "padded_vocab_size")
COUNTS, FRACTIONS = (*SIZES, "num_attention_heads", "kv_channels", "seq_length"), ("rotary_pct", "rotary_emb_base")
# What Persimmon-8B has, assumed where neither args nor tensors tell.
ASSUMED = {
    "kv_channels": 64,
    "rotary_pct": 0.5,
    "rotary_emb_base": 25000,
    "seq_length": 16384,
    "layernorm_epsilon": 1e-5,
    "pos_emb": "rotary",
    "sq_relu": True,
    "apply_residual_connection_post_layernorm": False,
}
SWITCHES = ("sq_relu", "apply_residual_connection_post_layernorm", "bias_gelu_fusion", "untie_embeddings")
# Numbers of ranks, and what is smaller than args say when some are missing. A release may have been shared out anew
# under its old args, which does no harm.
PARALLEL = {"tensor_model_parallel_size": "padded_vocab_size", "pipeline_model_parallel_size": "num_layers"}
DEFINING = (*SIZES, "num_attention_heads", "qk_layernorm", *ASSUMED, *SWITCHES, *PARALLEL)


def read_settings(
    args: list[Mapping[str, Any]],
    tensors: Mapping[str, Source],
    frequencies: Mapping[str, Frequencies],
    ranks: tuple[int, int],
) -> tuple[PersimmonConfig, list[str]]:
    """The configuration of a release, without token ids, and what was assumed for it, in sentences.

    `args` are those of every file that has some. `tensors` go by our names, `ranks` are the numbers of pipeline stages
    and tensor ranks.

    Raises CheckpointError that lists all in which args and tensors disagree, and all that Persimmon cannot be.
    """
    from_args = _values_in_args(args[0] if args else {})
    from_tensors = _values_of_tensors(tensors, ranks)
    values = from_tensors | from_args
    if unknown := [key for key in SIZES if key not in values]:
        raise CheckpointError(f"neither args nor tensors tell {', '.join(unknown)}; there are {', '.join(tensors)}")
    values = _completed(values, frequencies)
    assumed = {key: value for key, value in ASSUMED.items() if key not in values}
    values |= assumed
    values.setdefault("num_attention_heads", values["hidden_size"] // values["kv_channels"])
    errors = _contradictions(args, from_args, from_tensors) + _strangers(values, tensors)
    errors += faults(frequencies, values["kv_channels"], values["rotary_pct"], values["rotary_emb_base"])
    if errors:
        raise CheckpointError("this release cannot be converted:\n  " + "\n  ".join(errors))
    notes = [] if args else ["there are no args: sizes are those of the tensors"]
    if assumed:
        listed = ", ".join(f"{key} {value}" for key, value in assumed.items())
        notes.append(f"not in the release, so assumed as in Persimmon-8B: {listed}")
    config = _config(values)
    if config.hidden_dropout:
        notes.append(
            f"hidden_dropout {config.hidden_dropout} falls after the MLP alone here; Megatron's also on embeddings and "
            "attention"
        )
    return config, notes


def _config(values: Mapping[str, Any]) -> PersimmonConfig:
    try:
        return PersimmonConfig(
            vocab_size=values["padded_vocab_size"],
            hidden_size=values["hidden_size"],
            intermediate_size=values["ffn_hidden_size"],
            num_hidden_layers=values["num_layers"],
            num_attention_heads=values["num_attention_heads"],
            max_position_embeddings=values["seq_length"],
            initializer_range=float(values.get("init_method_std", PersimmonConfig.initializer_range)),
            layer_norm_eps=float(values["layernorm_epsilon"]),
            tie_word_embeddings=not values["untie_embeddings"],
            rope_theta=float(values["rotary_emb_base"]),
            qk_layernorm=values["qk_layernorm"] != NO_NORM,
            hidden_dropout=float(values.get("hidden_dropout", 0.0)),
            attention_dropout=float(values.get("attention_dropout", 0.0)),
            partial_rotary_factor=float(values["rotary_pct"]),
            architectures=["PersimmonForCausalLM"],
        )
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"the args of this release describe no Persimmon model: {error}") from error


def _values_in_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """What args say; a switch that is None is off, any other None says nothing."""
    switches = {key: bool(args[key]) for key in SWITCHES if key in args}
    values = {key: value for key, value in args.items() if value is not None} | switches
    kinds = dict.fromkeys(COUNTS, int) | dict.fromkeys(FRACTIONS, int | float)
    odd = [
        key for key, kind in kinds.items() if key in values and not (isinstance(values[key], kind) and values[key] > 0)
    ]
    if odd:
        raise CheckpointError(
            "args should have a number above 0 for " + ", ".join(f"{key}, not {values[key]!r}" for key in odd)
        )
    return values


def _values_of_tensors(tensors: Mapping[str, Source], ranks: tuple[int, int]) -> dict[str, Any]:
    """What the tensors say by their names and shapes."""

    def size(name: str, dimension: int) -> int | None:
        shape = tensors[name].shape if name in tensors else ()
        return shape[dimension] if dimension < len(shape) else None

    attention = "model.layers.0.self_attn"
    mode = NO_NORM
    if any(name.startswith(f"{attention}.q_layernorm.") for name in tensors):
        mode = PER_LAYER if f"{attention}.q_layernorm.weight" in tensors else PER_HEAD
    values = {
        "num_layers": len({layer for name in tensors if (layer := layer_of(name)) is not None}),
        "hidden_size": size(EMBEDDING, 1),
        "padded_vocab_size": size(EMBEDDING, 0),
        "ffn_hidden_size": size("model.layers.0.mlp.dense_h_to_4h.weight", 0),
        "kv_channels": size(f"{attention}.q_layernorm.weight", 0),
        "qk_layernorm": mode,
        "untie_embeddings": HEAD in tensors,
        "pipeline_model_parallel_size": ranks[0],
        "tensor_model_parallel_size": ranks[1],
    }
    return {key: value for key, value in values.items() if value is not None}


def _completed(values: dict[str, Any], frequencies: Mapping[str, Frequencies]) -> dict[str, Any]:
    """With what follows from the rest: the width of heads and the two settings of the rotation."""
    values = dict(values)
    first = next(iter(frequencies.values()), None)
    if "kv_channels" not in values and values.get("num_attention_heads"):
        values["kv_channels"] = max(1, values["hidden_size"] // values["num_attention_heads"])
    if first is not None and len(first):
        values.setdefault("kv_channels", round(2 * len(first) / values.get("rotary_pct", ASSUMED["rotary_pct"])))
        values.setdefault("rotary_pct", 2 * len(first) / values["kv_channels"])
        values.setdefault("rotary_emb_base", base_of(first))
    return values


def _contradictions(
    args: list[Mapping[str, Any]], from_args: Mapping[str, Any], from_tensors: Mapping[str, Any]
) -> list[str]:
    lines = [
        f"{key}: the args of one rank say {args[0].get(key)!r}, those of another {other.get(key)!r}"
        for other in args[1:]
        for key in DEFINING
        if other.get(key) != args[0].get(key)
    ]
    for key, in_tensors in from_tensors.items():
        in_args = from_args.get(key, in_tensors)
        is_the_same = in_args == PER_RANK and in_tensors == PER_LAYER
        # Where the head is another pipeline stage's, it has a copy of a tied embedding.
        is_a_copy = key == "untie_embeddings" and not in_args
        size = PARALLEL.get(key)
        if in_args != in_tensors and size and from_args.get(size) != from_tensors.get(size):
            lines.append(f"{key}: args say {in_args!r}, but there are {in_tensors!r}; files of other ranks are missing")
        elif in_args != in_tensors and not size and not is_the_same and not is_a_copy:
            lines.append(f"{key}: args say {in_args!r}, the tensors {in_tensors!r}")
    return lines


def _strangers(values: Mapping[str, Any], tensors: Mapping[str, Source]) -> list[str]:
    """What would be another model than Persimmon, as transformers and this package have it."""
    channels = values["kv_channels"]
    heads = values["num_attention_heads"]
    hidden = values["hidden_size"]
    reasons = {
        f"pos_emb is {values['pos_emb']!r}: Persimmon's positions are rotary": values["pos_emb"] != "rotary",
        "there is a table of learned positions: Persimmon's are rotary": any("position_emb" in n for n in tensors),
        "sq_relu is off: Persimmon's activation is the squared ReLU": not values["sq_relu"],
        "bias_gelu_fusion is on, which makes the activation GELU whatever sq_relu says": values.get("bias_gelu_fusion"),
        "apply_residual_connection_post_layernorm is on: Persimmon is pre-LayerNorm, its residual bypasses the norm": (
            values["apply_residual_connection_post_layernorm"]
        ),
        f"qk_layernorm is {PER_HEAD}: Persimmon has one query and one key norm for all heads of a layer": (
            values["qk_layernorm"] == PER_HEAD
        ),
        f"kv_channels {channels} x num_attention_heads {heads} is not hidden_size {hidden}, as in Persimmon it is": (
            channels * heads != hidden
        ),
    }
    return [reason for reason, applies in reasons.items() if applies]
