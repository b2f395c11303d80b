"""A release of Adept's as a checkpoint in transformers' layout, a few megabytes at a time."""

import os
from pathlib import Path

import torch

from persimmon_lab.checkpoints.adept.destination import check_destination, check_room
from persimmon_lab.checkpoints.adept.opening import OpenRelease, open_release
from persimmon_lab.checkpoints.safetensors_writer import Progress, unheard
from persimmon_lab.checkpoints.settings import default_generation_config
from persimmon_lab.checkpoints.writing import staged, write_weights


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    dtype: torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
    progress: Progress = unheard,
) -> OpenRelease:
    """Read a release (a folder, a tar or a .pt) and write it to `out`, as `save_pretrained` would.

    Tensors are stored as they are in the release, or in `dtype`. Holds a few pieces of a tensor in memory, whatever
    the size of the release. `progress` is told the number of bytes of each piece written.

    Raises CheckpointError for a release that is damaged, contradicts itself or is no Persimmon, and OSError when the
    disk is too small. Then, and after an interruption, `out` is as it was.
    """
    release = open_release(source, dtype)
    write(release, out, max_shard_size, progress)
    return release


def write(
    release: OpenRelease,
    out: str | os.PathLike,
    max_shard_size: int | str = "5GB",
    progress: Progress = unheard,
):
    """Write a checkpoint by way of a staging folder; raises as `convert` does."""
    out = Path(out).expanduser()
    check_destination(out)
    check_room(out, release.nbytes)
    with staged(out) as folder:
        write_weights(folder, release.tensors, max_shard_size, progress)
        release.config.save_pretrained(folder)
        default_generation_config(release.config).save_pretrained(folder)
        if release.tokenizer is not None:
            release.tokenizer.save_pretrained(folder)
