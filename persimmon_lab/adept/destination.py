"""Where a checkpoint may be written: not over other things, and not where there is no room."""

import errno
import shutil
from pathlib import Path

from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.saving import FINISHED, UNFINISHED, finish_save
from persimmon_lab.checkpoints.settings import read_config

BESIDES_WEIGHTS = 2**24  # bytes: the tokenizer's files, headers, config.json


def check_destination(out: Path) -> None:
    """Refuse a folder that holds anything but a checkpoint of this kind, which would be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise CheckpointError(f"{out} is a file; give the name of a folder to write")
    finish_save(out)
    names = sorted(entry.name for entry in out.iterdir() if entry.name not in (UNFINISHED, FINISHED))
    if names and not _is_checkpoint(out):
        raise CheckpointError(
            f"{out} holds {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}, which is no Persimmon "
            "checkpoint that could be replaced; give a new or an empty folder"
        )


def check_room(out: Path, nbytes: int) -> None:
    """Raises OSError with the numbers when the disk cannot take this many bytes of weights."""
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    needed, free = nbytes + BESIDES_WEIGHTS, shutil.disk_usage(existing).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{out} would take {needed:,} bytes, but its disk has {free:,} free, {needed - free:,} too few; "
            "nothing was written",
        )


def _is_checkpoint(folder: Path) -> bool:
    try:
        return bool(read_config(folder, rounded_too=True))
    except CheckpointError:
        return False
