"""Which files a release of Adept's has: its ranks, its tokenizer, its iteration."""

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from persimmon_lab.checkpoints.adept.window import Window
from persimmon_lab.checkpoints.errors import CheckpointError, CheckpointNotFoundError

__all__ = ["Release", "Window", "find_release"]

RANK = re.compile(r"(?:(.*)/)?(iter_(\d+)|release)/mp_rank_(\d+)(?:_(\d+))?/(model_optim_rng|model_rng)\.pt")
TRACKER, TOKENIZER = "latest_checkpointed_iteration.txt", "adept_vocab.model"


@dataclass(frozen=True)
class Release:
    """A release as it lies on disk. `ranks` has every (pipeline stage, tensor rank), none missing."""

    source: Path
    iteration: int | None
    ranks: dict[tuple[int, int], Window]
    tokenizer: bytes | None


def find_release(path: str | Path) -> Release:
    """The parts of a release: from its folder, an iter_* folder, a tar, or one .pt file."""
    source = Path(path).expanduser()
    if not source.exists():
        raise CheckpointNotFoundError(f"there is no {source}")
    if source.is_dir():
        root = source.parent if re.fullmatch(r"iter_\d+|release", source.name) else source
        found = [file for depth in ("*", "*/*", "*/*/*", "*/*/*/*") for file in root.glob(depth) if file.is_file()]
        if root != source:
            found = [file for file in found if source in file.parents or file.name == TOKENIZER]
        files = {file.relative_to(root).as_posix(): Window.whole(file) for file in found}
    elif tarfile.is_tarfile(source):
        with tarfile.open(source, "r:") as tar:
            files = {
                PurePosixPath(member.name).as_posix(): Window(
                    source, member.offset_data, member.size, f"{source}:{member.name}"
                )
                for member in tar
                if member.isreg()
            }
    else:
        files = {source.name: Window.whole(source)}
    return _assemble(source, files)


def _assemble(source: Path, files: dict[str, Window]) -> Release:
    matches = [match for name in files if (match := RANK.fullmatch(name))]
    tokenizer = next((window for name, window in files.items() if PurePosixPath(name).name == TOKENIZER), None)
    vocabulary = tokenizer.open().read() if tokenizer else None
    if not matches:
        single = [window for name, window in files.items() if name.endswith(".pt") or window.path == source]
        if len(single) != 1:
            raise CheckpointNotFoundError(f"{source} holds no model_optim_rng.pt")
        return Release(source, None, {(0, 0): single[0]}, vocabulary)
    folders = {match[2] for match in matches}
    if len(folders) > 1:
        tracker = next(window for name, window in files.items() if PurePosixPath(name).name == TRACKER)
        text = tracker.open().read().decode().strip()
        chosen = text if text == "release" else f"iter_{int(text):07d}"
        matches = [match for match in matches if match[2] == chosen]
    ranks = {(int(match[5] or 0), int(match[4])): files[match[0]] for match in matches}
    stages, tensors = (1 + max(index) for index in zip(*ranks))
    missing = {(stage, rank) for stage in range(stages) for rank in range(tensors)} - set(ranks)
    if missing:
        raise CheckpointError(f"{source} lacks ranks {sorted(missing)}")
    iteration = matches[0][3]
    return Release(source, int(iteration) if iteration else None, ranks, vocabulary)
