"""Where a release of Adept's is recognised, in a folder or a tar, and which files it has: ranks, tokenizer, iteration.

Megatron writes `<release>/iter_0001000/mp_rank_<tensor rank>[_<pipeline stage>]/model_optim_rng.pt`, or, where the
optimizer is distributed, `model_rng.pt` there and `optim.pt` in further folders, whose names end in one more number.
"""

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from persimmon_lab.adept.tars import files_in_tar, is_tar
from persimmon_lab.adept.window import Window
from persimmon_lab.checkpoints.errors import CheckpointError, CheckpointNotFoundError

__all__ = ["Release", "Window", "find_release"]

ITERATION = r"iter_\d+|release"  # Megatron's "release" has no number
RANK = r"mp_rank_(?P<rank>\d+)(?:_(?P<stage>\d+))?"
PLACE = re.compile(rf"(?P<top>(?:.+?/)??)(?:(?P<iteration>{ITERATION})/)?{RANK}/(?:model_optim_rng|model_rng)\.pt")
TRACKER, TOKENIZER = "latest_checkpointed_iteration.txt", "adept_vocab.model"
LARGEST = 2**27  # bytes of what lies beside the ranks; Adept's tokenizer has a few million
DEPTHS = ("", "*/", "*/*/", "*/*/*/")  # down to the ranks of a release that lies in a folder of its own


@dataclass(frozen=True)
class Release:
    """A release as it lies on disk: where every (pipeline stage, tensor rank) is, from (0, 0) on, none missing."""

    source: Path
    iteration: int | None
    ranks: dict[tuple[int, int], Window]
    tokenizer: bytes | None


def find_release(path: str | os.PathLike[str]) -> Release:
    """The parts of a release: from its folder, the folder of an iteration, its tar, or a .pt file.

    Of several iterations it takes the one that latest_checkpointed_iteration.txt names. One rank of several leads to
    all of its iteration.

    Raises CheckpointNotFoundError when there is no checkpoint, CheckpointError when it is incomplete, ambiguous, or a
    tar that an honest release would not be.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise CheckpointNotFoundError(f"there is no {source}; give the folder of a release, its tar, or a .pt file")
    if source.is_file() and is_tar(source):
        files = files_in_tar(source)
    else:
        folder, patterns = _where(Path(os.path.abspath(source)))  # absolute, so that "." has a name too
        paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
        files = {path.relative_to(folder).as_posix(): Window.whole(path) for path in sorted(paths)}
    matches = [match for name in files if (match := PLACE.fullmatch(name))]
    if not matches:
        return _without_ranks(source, files)
    top = _top(source, matches)
    iteration = _choose(source, {match["iteration"] for match in matches}, files.get(top + TRACKER))
    matches = [match for match in matches if match["iteration"] == iteration]
    number = None if iteration is None or iteration == "release" else int(iteration.removeprefix("iter_"))
    return Release(source, number, _complete(source, matches, files), _tokenizer_in(files, top + TOKENIZER))


def _where(path: Path) -> tuple[Path, list[str]]:
    """The folder to look in, and what for, when this file or folder was given."""
    if PLACE.fullmatch(f"{path.parent.name}/{path.name}"):
        path = path.parent
    if re.fullmatch(RANK, path.name):
        path = path.parent
    name = glob.escape(path.name)
    if path.is_file():
        return path.parent, [name, TOKENIZER]
    if re.fullmatch(ITERATION, path.name) and any(path.glob("mp_rank_*")):  # else a whole release called "release"
        return path.parent, [f"{name}/*/*.pt", TOKENIZER]
    return path, [depth + name for depth in DEPTHS for name in ("*.pt", TRACKER, TOKENIZER)]


def _without_ranks(source: Path, files: dict[str, Window]) -> Release:
    """A checkpoint that is a single file, whatever its name."""
    candidates = [PurePosixPath(name) for name in files if name.endswith(".pt") or name == source.name]
    single = [name for name in candidates if not name.name.startswith(".")]  # such as the shadows that macOS packs
    if len(single) > 1:
        raise CheckpointError(
            f"{source} holds several .pt files ({_some(single)}), and none is where Megatron puts it, which is "
            "iter_*/mp_rank_*/model_optim_rng.pt; give one of them"
        )
    if not single and source.is_dir() and any(source.glob("*.safetensors")):
        raise CheckpointError(f"{source} is converted already; give it to from_pretrained")
    if not single:
        raise CheckpointNotFoundError(
            f"{source} holds no checkpoint of Adept's, which is a file iter_*/mp_rank_*/model_optim_rng.pt"
        )
    tokenizer = _tokenizer_in(files, single[0].with_name(TOKENIZER).as_posix())
    return Release(source, None, {(0, 0): files[single[0].as_posix()]}, tokenizer)


def _top(source: Path, matches: list[re.Match[str]]) -> str:
    tops: set[str] = {match["top"] for match in matches}
    if len(tops) > 1:
        raise CheckpointError(f"{source} holds {len(tops)} releases ({_some(tops)}); give one of them")
    return tops.pop()


def _choose(source: Path, iterations: set[str | None], tracker: Window | None) -> str | None:
    """The name of the iteration to read; None where the ranks lie in no folder of an iteration."""
    if iterations == {None}:
        return None
    if tracker is None:
        if len(iterations) > 1:
            raise CheckpointError(
                f"{source} holds {len(iterations)} iterations ({_some(iterations)}), and no {TRACKER} says which one "
                "is meant; give the folder of one"
            )
        return next(iter(iterations))
    text = _read(tracker).decode(errors="replace").strip()
    iteration = f"iter_{int(text):07d}" if text.isdecimal() else text
    if iteration not in iterations:
        raise CheckpointError(
            f"{tracker.name} says {text!r}, but of that iteration there is nothing; there is {_some(iterations)}. Copy "
            "or download what is missing, or give the folder of one that is there"
        )
    return iteration


def _complete(source: Path, matches: list[re.Match[str]], files: dict[str, Window]) -> dict[tuple[int, int], Window]:
    """The file of every rank, in order; raises CheckpointError when two claim to be the same one, or one is missing."""
    staged = matches[0]["stage"] is not None
    ranks: dict[tuple[int, int], Window] = {}
    for match in matches:
        index = (int(match["stage"] or 0), int(match["rank"]))
        if index in ranks or (match["stage"] is not None) != staged:
            raise CheckpointError(
                f"{source} mixes the files of two runs: {_some(match[0] for match in matches)}. Take those of one away"
            )
        ranks[index] = files[match[0]]
    stages, tensor_ranks = (range(1 + max(numbers)) for numbers in zip(*ranks))
    every = ((stage, rank) for stage in stages for rank in tensor_ranks)
    missing = next((index for index in every if index not in ranks), None)
    if missing:
        stage, rank = missing
        name = f"mp_rank_{rank:02d}_{stage:03d}" if staged else f"mp_rank_{rank:02d}"
        raise CheckpointError(
            f"{source} is incomplete: there is no {name}, but {_some(match[0] for match in matches)}. All ranks "
            "together are the model: copy or download the missing ones"
        )
    return dict(sorted(ranks.items()))


def _tokenizer_in(files: Mapping[str, Window], name: str) -> bytes | None:
    return _read(files[name]) if name in files else None


def _read(window: Window) -> bytes:
    """The bytes of a small file."""
    if window.length > LARGEST:
        raise CheckpointError(f"{window.name} has {window.length:,} bytes, so it is not what its name says")
    with window.open() as file:
        return file.read()


def _some(names: Iterable[object]) -> str:
    """A few names for a message."""
    listed = sorted(map(str, names))
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
