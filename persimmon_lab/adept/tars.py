"""A tar whose files are read where they lie; nothing is ever extracted."""

import io
import tarfile
from pathlib import Path, PurePosixPath

from persimmon_lab.adept.window import Window, hint
from persimmon_lab.checkpoints.errors import CheckpointError

SIGNATURE = slice(257, 262)  # of the first header: "ustar"
BLOCK = tarfile.BLOCKSIZE
LARGEST = 2**20  # bytes of a header; only long names make them longer than a block
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def is_tar(path: Path) -> bool:
    """Whether a file is an uncompressed tar, or is called one.

    Raises CheckpointError for a compressed file: its parts cannot be read where they lie.
    """
    with path.open("rb") as file:
        beginning = file.read(BLOCK)
    for signature, program in COMPRESSED.items():
        if beginning.startswith(signature):
            raise CheckpointError(
                f"{path} is compressed with {program}, so nothing in it can be read in place: unpack it first "
                f"(`tar -xf {path.name}`) and give the folder"
            )
    return path.suffix == ".tar" or beginning[SIGNATURE] == b"ustar"


def files_in_tar(path: Path) -> dict[str, Window]:
    """The files of a tar by their names in it.

    Raises CheckpointError when the tar is damaged or cut off, and when it holds anything that an honest release does
    not: names that lead out of its folder, links, devices, two files of one name.
    """
    files: dict[str, Window] = {}
    length = path.stat().st_size
    end = 0
    try:
        with _Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if fault := _fault(member):
                    raise CheckpointError(f"{path} is refused: {member.name!r} in it is {fault}. Nothing was extracted")
                end = member.offset_data + -(-member.size // BLOCK) * BLOCK
                name = PurePosixPath(member.name).as_posix()
                if member.isreg():
                    if name in files:
                        raise CheckpointError(f"{path} is refused: it has two files called {name!r}")
                    files[name] = Window(path, member.offset_data, member.size, f"{path}:{name}")
    except tarfile.TarError as error:
        raise CheckpointError(f"{path} is not a whole tar: {error}. {hint(Window.whole(path))}") from error
    # tarfile takes a damaged header for the end. The true end is a block of zeros.
    with path.open("rb") as whole:
        whole.seek(end)
        if whole.read(BLOCK) != bytes(BLOCK):
            raise CheckpointError(
                f"{path} is cut off or damaged after byte {end:,} of {length:,}, where the next file or the end of the "
                "tar should be: copy or download it again"
            )
    return files


class _Headers(io.FileIO):
    """A tar of which only headers are read, and none so long that it could be there to fill the memory."""

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        if not 0 <= size <= LARGEST:
            raise tarfile.ReadError(f"it has a header of {size:,} bytes")
        return super().read(size)


def _fault(member: tarfile.TarInfo) -> str:
    """What is wrong with a member; "" if nothing is."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or "\\" in member.name:
        return "a path that leads out of the folder"
    if member.issym() or member.islnk():
        return "a link"
    if not (member.isreg() or member.isdir()) or member.issparse():
        return "neither a plain file nor a folder"
    return ""
