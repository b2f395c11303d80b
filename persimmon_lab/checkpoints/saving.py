"""Writing a checkpoint so that an interruption leaves the old one or the new one, never a mixture."""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from persimmon_lab.atomic import alone, filling
from persimmon_lab.checkpoints.safetensors_writer import Progress, unheard, write_safetensors
from persimmon_lab.checkpoints.shards import INDEX, WHOLE
from persimmon_lab.checkpoints.tensor_streams import Source
from persimmon_lab.field_checks import parsed

UNFINISHED, FINISHED = ".unfinished-save", ".finished-save"
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
OURS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """An empty folder to write into; when the block ends, its files replace those of the same name in `folder`.

    The commit is one rename, of the unfinished staging folder to a finished one. Before it, `folder` is untouched and
    an error removes what was written; after it, moving the files over can be repeated from any step, by the next
    `finish_save`. One writer per folder at a time.

    Raises OSError, saying that nothing changed, when the disk is full or the folder cannot be written.
    """
    created = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        finish_save(folder)
        with filling(folder / FINISHED, folder / UNFINISHED) as staging:
            yield staging
    except BaseException as error:
        if created:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            free = f"{shutil.disk_usage(existing).free:,} bytes free on its disk"
            raise OSError(
                error.errno, f"could not save to {folder} ({error}; {free}); what was there before is unchanged"
            ) from error
        raise
    finish_save(folder)


def finish_save(folder: Path) -> None:
    """Move the files of a finished save to their places; does nothing when there is none. Safe to repeat, and whoever
    comes while another does it waits."""
    finished = folder / FINISHED
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(alone(finished, wait=True))
        except FileNotFoundError:
            return
        if finished.is_dir():  # still, after the wait
            _move_up(finished, folder)


def _move_up(finished: Path, folder: Path) -> None:
    # The index, or the one file of weights, goes first and comes last: whoever looks in between finds no weights rather
    # than new ones beside old ones. Until it comes it also tells which shards are new.
    head = WHOLE
    shards: set[str] = set()
    if (finished / INDEX).exists():
        head = INDEX
        shards = set(parsed((finished / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    if (finished / head).exists():
        for file in folder.iterdir():
            if OURS.fullmatch(file.name) and file.name not in shards:
                file.unlink()
    for file in sorted(finished.iterdir(), key=lambda file: file.name == head):
        file.replace(folder / file.name)
    finished.rmdir()


def write_weights(
    folder: Path,
    tensors: Mapping[str, Source | Shaped[Tensor, "..."]],
    max_shard_size: int | str,
    progress: Progress = unheard,
) -> None:
    """`model.safetensors`, or numbered shards of at most `max_shard_size` bytes with their index.

    A tensor larger than a shard gets one to itself. `progress` is told the number of bytes of each piece written.
    """
    shards = split_into_shards({name: tensor.nbytes for name, tensor in tensors.items()}, parse_size(max_shard_size))
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [WHOLE]
    for file, shard in zip(names, shards):
        write_safetensors(folder / file, {name: tensors[name] for name in shard}, progress)
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
            "weight_map": {name: file for file, shard in zip(names, shards) for name in shard},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def split_into_shards(sizes: dict[str, int], most: int) -> list[list[str]]:
    """Names in order, cut into runs whose sizes sum to at most `most`; a larger one stands alone."""
    shards: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    return shards


def parse_size(size: int | str) -> int:
    """A number of bytes from a number or from text such as "5GB" (10^9 bytes) or "2GiB" (2^30)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(size).lower())
    if match is None or match[2].upper() not in UNITS or float(match[1]) == 0:
        raise ValueError(
            f'max_shard_size is {size!r}; give a number of bytes above 0, or text such as "5GB" or "200MB"'
        )
    return int(float(match[1]) * UNITS[match[2].upper()])
