"""Files and folders that are there whole or not at all: made under a temporary name, flushed to the disk, renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def place_for(given: object, name: str = "save_directory") -> Path:
    """The path to write to, HOME for `~`. `given` is checked before it is a Path, of which an empty one is "." and
    would fill the folder that one happens to stand in.

    Raises ValueError for an empty text and TypeError for what is no path, both with the argument's `name`.
    """
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"{name} is a {type(given).__name__}; give the path of a folder or a file")
    if not os.fspath(given).strip():
        raise ValueError(f'{name} is empty; name a folder, or give "." for the current one')
    return Path(given).expanduser()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to. When the block ends it becomes `path`; when it fails nothing is left of it, and
    an older `path` stays as it was."""
    temporary = path.with_name(path.name + ".partial")
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Give `path` this content; a reader sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def filling(folder: Path, temporary: Path | None = None) -> Iterator[Path]:
    """An empty folder to fill. When the block ends it becomes `folder`; when it fails nothing is left of it.

    `folder` must not be there yet, or be empty. Meanwhile it is called `temporary`, by default a hidden name beside it;
    what a process that was killed left under that name goes. OSError where `folder` holds something.
    """
    temporary = temporary or folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                _flush(path)
        if folder.exists():
            folder.rmdir()
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _flush(path: Path) -> None:
    """Wait until the disk has all of a file: a rename may reach it before what was written."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
