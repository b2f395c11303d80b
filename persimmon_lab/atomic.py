"""Files that are there whole or not at all: written under a temporary name, flushed to the disk, renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to. When the block ends it becomes `path`; when it fails nothing is left of it, and
    an older `path` stays as it was."""
    temporary = path.with_name(path.name + ".partial")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Give `path` this content; a reader sees the old file or the new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
