"""A checkpoint in transformers' layout written anew: as a release like Adept's, or in another dtype or other shards."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from persimmon_lab.adept.convert import write_checkpoint
from persimmon_lab.adept.destination import check_room
from persimmon_lab.adept.megatron_args import NO_NORM, PER_LAYER
from persimmon_lab.adept.merging import Finite
from persimmon_lab.adept.open_release import model_shapes
from persimmon_lab.adept.release import TOKENIZER, TRACKER
from persimmon_lab.adept.tensor_names import EMBEDDING, INVERSE_FREQUENCIES, shared_dimension, their_name
from persimmon_lab.atomic import filling
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.matching import HEADS, check_fit, check_tied
from persimmon_lab.checkpoints.safetensors_writer import Progress, unheard
from persimmon_lab.checkpoints.saving import finish_save
from persimmon_lab.checkpoints.settings import read_config, read_generation_config
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.checkpoints.tensor_streams import Source, read
from persimmon_lab.checkpoints.weight_files import FileTensor
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.rotary import inverse_frequencies
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.files import VOCAB_FILE

ITERATION = 1  # Megatron refuses to load iteration 0


def open_checkpoint(folder: Path) -> tuple[PersimmonConfig, dict[str, Source]]:
    """The configuration of a causal language model, and its tensors still in their files, in the model's order."""
    finish_save(folder)
    config, files = read_config(folder), open_weights(folder)
    needed = model_shapes(config)
    check_fit(folder, "PersimmonForCausalLM", needed, {name: name for name in needed}, files)
    check_tied(folder, HEADS[:1] if config.tie_word_embeddings else (), files)
    return config, {name: FileTensor(files[name], name) for name in needed}


def export_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
    progress: Progress = unheard,
) -> None:
    """Write a checkpoint in another dtype, or cut into other shards, a few megabytes at a time.

    Raises CheckpointError for a checkpoint that is damaged, or has a number that `dtype` cannot hold, and OSError when
    the disk is too small. Then, and after an interruption, `out` is as it was.
    """
    folder = Path(checkpoint).expanduser()
    config, stored = open_checkpoint(folder)
    tensors = {name: Finite(name, tensor, dtype or tensor.dtype) for name, tensor in stored.items()}
    config = replace(config, torch_dtype=dtype_name(tensors[EMBEDDING].dtype))
    write_checkpoint(Path(out).expanduser(), config, tensors, _tokenizer_in(folder), read_generation_config(folder),
                     max_shard_size, progress)  # fmt: skip


def export_release(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    tensor_parallel: int = 1,
    progress: Progress = unheard,
) -> None:
    """Write a release as Adept's code reads it, shared out among `tensor_parallel` ranks.

    Holds the tensors of one rank in memory. Raises CheckpointError for what a release cannot say, or when the ranks
    cannot share it out evenly, and OSError when the disk is too small; `out` must be a new folder.
    """
    folder, out = Path(checkpoint).expanduser(), Path(out).expanduser()
    config, stored = open_checkpoint(folder)
    tensors = {name: Finite(name, tensor, dtype or tensor.dtype) for name, tensor in stored.items()}
    _check_expressible(config, tensor_parallel)
    check_room(out, sum(tensor.nbytes for tensor in tensors.values()))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is there already; a release is written to a new or an empty folder")
    args = _args(config, tensors[EMBEDDING].dtype, tensor_parallel)
    with filling(out) as staging:
        for rank in range(tensor_parallel):
            folder_of_rank = staging / f"iter_{ITERATION:07d}" / f"mp_rank_{rank:02d}"
            folder_of_rank.mkdir(parents=True)
            state = _state(config, tensors, rank, tensor_parallel, progress)
            contents = {"args": args, "checkpoint_version": 3.0, "iteration": ITERATION, "model": state}
            torch.save(contents, folder_of_rank / "model_optim_rng.pt")
        (staging / TRACKER).write_text(str(ITERATION), encoding="utf-8")
        if (tokenizer := _tokenizer_in(folder)) is not None:
            model = tokenizer.sp_model
            pieces = [f"{model.id_to_piece(i)}\t{model.get_score(i):g}\n" for i in range(len(tokenizer))]
            (staging / TOKENIZER).write_bytes(model.serialized_model_proto())
            (staging / TOKENIZER).with_suffix(".vocab").write_text("".join(pieces), encoding="utf-8")


def _tokenizer_in(folder: Path) -> PersimmonTokenizer | None:
    return PersimmonTokenizer.from_pretrained(folder) if (folder / VOCAB_FILE).exists() else None


def _check_expressible(config: PersimmonConfig, tensor_parallel: int) -> None:
    wrong = []
    if config.rope_scaling is not None:
        wrong.append(f"rope_scaling is {config.rope_scaling}")
    if config.hidden_act != "relu2":
        wrong.append(f"hidden_act is {config.hidden_act!r}, not squared ReLU")
    for name in ("num_attention_heads", "intermediate_size", "vocab_size"):
        if tensor_parallel < 1 or getattr(config, name) % tensor_parallel:
            wrong.append(f"{name} {getattr(config, name)} cannot be shared out among {tensor_parallel} tensor ranks")
    if wrong:
        raise CheckpointError("Adept's layout cannot hold this model: " + "; ".join(wrong))


def _args(config: PersimmonConfig, dtype: torch.dtype, tensor_parallel: int) -> argparse.Namespace:
    """What Megatron compares with its own command line when it loads a model, and a converter reads."""
    return argparse.Namespace(
        num_layers=config.num_hidden_layers,
        encoder_num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        ffn_hidden_size=config.intermediate_size,
        num_attention_heads=config.num_attention_heads,
        kv_channels=config.head_dim,
        seq_length=config.max_position_embeddings,
        max_position_embeddings=config.max_position_embeddings,
        pos_emb="rotary",
        rotary_pct=config.partial_rotary_factor,
        rotary_emb_base=int(config.rope_theta) if config.rope_theta.is_integer() else config.rope_theta,
        layernorm_epsilon=config.layer_norm_eps,
        apply_residual_connection_post_layernorm=False,
        qk_layernorm=PER_LAYER if config.qk_layernorm else NO_NORM,
        sq_relu=True,
        bias_gelu_fusion=False,
        untie_embeddings=not config.tie_word_embeddings,
        padded_vocab_size=config.vocab_size,
        init_method_std=config.initializer_range,
        hidden_dropout=config.hidden_dropout,
        attention_dropout=config.attention_dropout,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        tokenizer_type="SentencePiece",
        tensor_model_parallel_size=tensor_parallel,
        pipeline_model_parallel_size=1,
    )


def _state(
    config: PersimmonConfig, tensors: Mapping[str, Source], rank: int, ranks: int, progress: Progress
) -> dict[str, Any]:
    """The entry `model` of one rank's file."""
    state: dict[str, Any] = {}
    for name, tensor in tensors.items():
        part = _part(read(tensor), shared_dimension(name), rank, ranks)
        _put(state, their_name(name), part)
        progress(part.nbytes)
    frequencies = inverse_frequencies(config.rotary_dim, config.rope_theta).to(tensors[EMBEDDING].dtype)
    for layer in range(config.num_hidden_layers):
        _put(state, their_name(f"model.layers.{layer}.{INVERSE_FREQUENCIES}"), frequencies.clone())
    return state


def _part(tensor: Shaped[Tensor, "..."], dimension: int | None, rank: int, ranks: int) -> Shaped[Tensor, "..."]:
    # A view would be saved with all of the storage it looks at.
    return tensor if dimension is None or ranks == 1 else tensor.chunk(ranks, dimension)[rank].clone()


def _put(tree: dict[str, Any], path: tuple[str, ...], tensor: Shaped[Tensor, "..."]) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = tensor
