"""Some bytes of a file, read where they lie."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Window:
    """A stretch of a file that is read as a file of its own: all of a `.pt`, or a `.pt` inside an uncompressed tar.

    `name` is what messages call it. Plain reads, no memory map, so that nothing read stays with the process.
    """

    path: Path
    start: int
    length: int
    name: str

    @classmethod
    def whole(cls, path: Path) -> Self:
        return cls(path, 0, path.stat().st_size, str(path))

    def open(self) -> io.BufferedReader:
        """A seekable file that begins at the window's start and ends at its end."""
        return io.BufferedReader(_Stretch(self))


class _Stretch(io.RawIOBase):
    def __init__(self, window: Window) -> None:
        self._file = window.path.open("rb", buffering=0)
        self._start = window.start
        self._length = window.length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError(f"cannot seek to {base + offset}, before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:  # Python 3.12 has a name for what has memory: collections.abc.Buffer
        left = max(0, self._length - self._position)
        self._file.seek(self._start + self._position)
        count = self._file.readinto(memoryview(buffer)[:left])
        self._position += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def hint(window: Window) -> str:
    """What a file that cannot be read most likely is, and what to do about it."""
    with window.open() as file:
        beginning = file.read(64)
    if not beginning:
        return "The file is empty: copy or download it again"
    if beginning.startswith(b"version https://git-lfs"):
        return "It is the pointer that git keeps for a large file: run `git lfs pull`"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in beginning):
        return "It is text, such as the error page of a failed download: download it again"
    return f"It may be truncated or damaged ({window.length:,} bytes here): copy or download it again"
