"""Adept's two public tars, recognised by their bytes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from persimmon_lab.checkpoints.errors import CheckpointError

# By md5, from the README of github.com/persimmon-ai-labs/adept-inference.
PUBLISHED = {
    "cd0320cba9efad9ccd18e9ec4d16ae1b": "8b_base_model_release.tar",
    "663aeace07269c44e90f4e8bcd07f32a": "8b_chat_model_release.tar",
}
BITE = 2**22  # bytes


def md5_of(path: Path, progress: Callable[[int], object] | None = None) -> str:
    """The md5 of a file, as md5sum prints it; `progress` is told of every few MB how many bytes they were."""
    digest, bite = hashlib.md5(usedforsecurity=False), bytearray(BITE)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(bite):
            digest.update(memoryview(bite)[:count])
            if progress:
                progress(count)
    return digest.hexdigest()


def recognise(path: Path, progress: Callable[[int], object] | None = None) -> str | None:
    """The name under which Adept published a tar; None for any other file, and for folders. Reads the whole tar.

    Raises CheckpointError when a tar has one of the public names but not its bytes.
    """
    path = path.expanduser()
    if not path.is_file() or path.suffix != ".tar":
        return None
    md5 = md5_of(path, progress)
    for expected, name in PUBLISHED.items():
        if path.name == name and md5 != expected:
            raise CheckpointError(
                f"{path} is called like the release that Adept published, but its md5 is {md5} and not {expected}: "
                "the download is damaged or incomplete, so download it again (or give another tar another name)"
            )
    return PUBLISHED.get(md5)
