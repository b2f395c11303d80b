"""What the tests of conversion share: releases that convert, and what a folder holds."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tests.adept.releases import build_release

TOKENIZER = Path(__file__).parents[1].joinpath("fixtures", "tokenizer", "tokenizer.model").read_bytes()
WITH_TOKENIZER = {"tokenizer": TOKENIZER, "vocab": 704}  # of 700 pieces, as padded as embeddings are
SILENT = {"apply_residual_connection_post_layernorm": False}  # so that args leave nothing to be assumed

# Every way in which Megatron may have written a model that can be converted.
VARIANTS = {
    "plain": {},
    "float32": {"dtype": torch.float32},
    "float16": {"dtype": torch.float16},
    "two tensor ranks": {"tensor_parallel": 2},
    "four tensor ranks": {"tensor_parallel": 4, "dtype": torch.float32},
    "three stages": {"pipeline": 3},
    "both": {"tensor_parallel": 2, "pipeline": 3},
    "interleaved": {"pipeline": 3, "layers": 6, "interleaved": True},
    "tied": {"tied": True},
    "tied across stages": {"tied": True, "pipeline": 3, "tensor_parallel": 2},
    "no qk-layernorm": {"qk_layernorm": "none"},
    "norms of the only rank": {"qk_layernorm": "weights_per_tensor_parallel_rank_and_layer"},
    "old names": {"old_names": True},
    "old format": {"legacy": True, "tensor_parallel": 2},
    "optimizer": {"optimizer": True},
    "distributed optimizer": {"distributed_optimizer": True, "tensor_parallel": 2},
}


def release(folder: Path, **options) -> dict[str, Tensor]:
    """A release that converts; returns its tensors whole, under our names."""
    whole = build_release(folder, **{"tokenizer": None} | options)
    # The builder stacks the norms of ranks and heads; that of an only rank is that of the layer.
    return {name: tensor[0] if "_layernorm" in name and tensor.ndim == 2 else tensor for name, tensor in whole.items()}


def stored(folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, whole or sharded, as safetensors reads them."""
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def same_tensors(ours: dict[str, Tensor], theirs: dict[str, Tensor]):
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder: the bytes of files, None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
