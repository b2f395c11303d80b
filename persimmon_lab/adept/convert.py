"""A release of Adept's as a checkpoint in transformers' layout, a few megabytes at a time."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from persimmon_lab.adept.destination import check_destination, check_room
from persimmon_lab.adept.open_release import OpenRelease, open_release, rounded
from persimmon_lab.checkpoints.safetensors_writer import Progress, unheard
from persimmon_lab.checkpoints.saving import staged, write_weights
from persimmon_lab.checkpoints.settings import default_generation_config
from persimmon_lab.checkpoints.tensor_streams import Source
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.generation_config import GenerationConfig
from persimmon_lab.tokenizer import PersimmonTokenizer


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
    max_shard_size: int | str = "5GB",
    progress: Progress = unheard,
) -> OpenRelease:
    """Read a release (a folder, a tar or a .pt) and write it to `out`, as `save_pretrained` would.

    Tensors are stored as they are in the release, or in `dtype`; with `quantize`, "int8" or "int4", rounded from there
    to what `from_pretrained` makes of the checkpoint with the same word. Holds a few pieces of a tensor in memory,
    whatever the size of the release. `progress` is told the number of bytes of each piece written.

    Raises CheckpointError for a release that is damaged, contradicts itself or is no Persimmon, and OSError when the
    disk is too small. Then, and after an interruption, `out` is as it was.
    """
    release = open_release(source, dtype)
    if quantize is not None:
        release = rounded(release, quantize)
    write(release, out, max_shard_size, progress)
    return release


def write(
    release: OpenRelease,
    out: str | os.PathLike[str],
    max_shard_size: int | str = "5GB",
    progress: Progress = unheard,
) -> None:
    """Write an open release to a checkpoint; raises as `convert` does."""
    write_checkpoint(Path(out).expanduser(), release.config, release.tensors, release.tokenizer, None,
                     max_shard_size, progress)  # fmt: skip


def write_checkpoint(
    out: Path,
    config: PersimmonConfig,
    tensors: Mapping[str, Source],
    tokenizer: PersimmonTokenizer | None,
    generation_config: GenerationConfig | None,
    max_shard_size: int | str,
    progress: Progress,
) -> None:
    """All files of a checkpoint, by way of a staging folder, after a look whether they may and can be written."""
    check_destination(out)
    check_room(out, sum(tensor.nbytes for tensor in tensors.values()))
    with staged(out) as folder:
        write_weights(folder, tensors, max_shard_size, progress)
        config.save_pretrained(folder)
        (generation_config or default_generation_config(config)).save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
