"""Megatron's names for the tensors of a model, and how it shares them out, set against ours.

A release is one file per rank. Pipeline stages follow each other through the model and number their layers from 0;
the tensor-parallel ranks of a stage each hold a part of the large tensors and a copy of the small ones.

Source: adept-inference `checkpointing.py`, `model/{transformer,language_model,gpt_model}.py`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import Source

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INVERSE_FREQUENCIES = "self_attn.rotary_emb.inv_freq"
# The dimension along which tensor-parallel ranks share a tensor out; every rank has the others whole.
SHARED_OUT = {
    "query_key_value.weight": 0,
    "query_key_value.bias": 0,
    "dense.weight": 1,
    "dense_h_to_4h.weight": 0,
    "dense_h_to_4h.bias": 0,
    "dense_4h_to_h.weight": 1,
    "embed_tokens.weight": 0,
    "lm_head.weight": 0,
}
Stage: TypeAlias = int
Rank: TypeAlias = int


def shared_dimension(name: str) -> int | None:
    """The dimension along which ranks share out the tensor of this name; None where each has all of it."""
    return SHARED_OUT.get(".".join(name.split(".")[-2:]))


def gather(archives: Mapping[tuple[Stage, Rank], dict[str, Any]]) -> dict[str, list[Source]]:
    """Every tensor under our name: what each tensor-parallel rank holds of it, in the order of ranks.

    Layers are numbered through all stages. Interleaved schedules give a stage several pieces of the model (`model0`,
    `model1`), and go through all stages' first pieces before any second one. Whatever else the files hold is left.

    Raises CheckpointError where the ranks of a stage do not hold the same tensors, or a tensor is there twice.
    """
    ranks = sorted({rank for _, rank in archives})
    chunks = {index: _chunks(archive, index) for index, archive in archives.items()}
    if len(counts := {len(pieces) for pieces in chunks.values()}) > 1:
        raise CheckpointError(f"the ranks hold different numbers of pieces of the model: {sorted(counts)}")
    gathered: dict[str, list[Source]] = {}
    first_layer = 0
    for turn in range(max(counts)):
        for stage in sorted({stage for stage, _ in archives}):
            by_rank = [dict(_tensors(chunks[stage, rank][turn])) for rank in ranks]
            _check_same_names(stage, by_rank)
            for path in by_rank[0]:
                name = our_name(path, first_layer)
                if name in gathered:
                    raise CheckpointError(f"the release holds {name} twice, the second time in stage {stage} as {path}")
                gathered[name] = [tensors[path] for tensors in by_rank]
            first_layer += 1 + max((int(match[1]) for path in by_rank[0] if (match := _LAYER.search(path))), default=-1)
    return gathered


def our_name(path: str, first_layer: int = 0) -> str:
    """'language_model.encoder.layers.2.self_attention.dense.bias' as 'model.layers.2.self_attn.dense.bias'.

    Knows the older names as well: `transformer` for `encoder`, `attention` for `self_attention`, the word embeddings
    without `embedding`. A name that is none of these comes back with `model.` before it, to be found unexpected.
    """
    path = re.sub(r"^(language_model\.)?((encoder|transformer|embedding)\.)?", "", path)
    if path == "word_embeddings.weight":
        return EMBEDDING
    if path == "word_embeddings_for_head.weight":
        return HEAD
    path = _LAYER.sub(lambda match: f"layers.{int(match[1]) + first_layer}.", path)
    return "model." + re.sub(r"\.(self_)?attention\.", ".self_attn.", path)


def their_name(name: str) -> tuple[str, ...]:
    """Where Megatron keeps the tensor of our name: the keys from `model` on, outermost first."""
    if name == HEAD:
        return "word_embeddings_for_head", "weight"
    if name == EMBEDDING:
        return "language_model", "embedding", "word_embeddings", "weight"
    return "language_model", "encoder", name.removeprefix("model.").replace(".self_attn.", ".self_attention.")


_LAYER = re.compile(r"^(?:.*\.)?\blayers\.(\d+)\.")


def _chunks(archive: dict[str, Any], index: tuple[Stage, Rank]) -> list[dict[str, Any]]:
    """The pieces of the model in one rank's file: `model`, or `model0`, `model1` and so on."""
    names = ["model"] if "model" in archive else [name for name in archive if re.fullmatch(r"model\d+", str(name))]
    pieces = [archive[name] for name in sorted(names, key=lambda name: int(name.removeprefix("model") or 0))]
    if not pieces or not all(isinstance(piece, dict) for piece in pieces):
        raise CheckpointError(
            f"pipeline stage {index[0]}, tensor rank {index[1]} holds no model, but {', '.join(map(str, archive))}; "
            "expected a Megatron checkpoint with an entry `model`"
        )
    return pieces


def _tensors(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Source]]:
    """The tensors of nested dictionaries, with their keys joined by dots."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{key}.")
        elif isinstance(value, Source):
            yield f"{prefix}{key}", value


def _check_same_names(stage: Stage, by_rank: list[dict[str, Source]]) -> None:
    for rank, tensors in enumerate(by_rank):
        if missing := sorted(by_rank[0].keys() ^ tensors.keys()):
            raise CheckpointError(
                f"tensor ranks 0 and {rank} of pipeline stage {stage} hold different tensors: only one of them has "
                + ", ".join(missing)
            )
