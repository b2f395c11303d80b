"""The two formats of torch.save, opened without reading the tensors."""

import io
import struct
import zipfile
import zlib

from persimmon_lab.checkpoints.adept.pickled import LARGEST, next_pickle, unpickle
from persimmon_lab.checkpoints.adept.stored import StoredTensor
from persimmon_lab.checkpoints.adept.window import Window, hint
from persimmon_lab.checkpoints.errors import CheckpointError

__all__ = ["StoredTensor", "read_archive"]

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then the lengths of the name and of the extra field
ZIP, PICKLE = b"PK\x03\x04", b"\x80"
MAGIC = 0x1950A86A20F9469CFC6C  # torch's own, before its format of 1.6


def read_archive(window: Window) -> dict:
    """What a file of torch.save holds: dicts, lists, numbers and strings, `StoredTensor`s and `Inert` placeholders.

    Only the pickle is read; the tensors stay in the file until they are asked for. Nothing that the pickle names is
    imported or called. Raises CheckpointError for a file that is damaged, names code or is something else.
    """
    with window.open() as file:
        beginning = file.read(4)
        if beginning == ZIP:
            contents = _read_zip(file, window)
        elif beginning.startswith(PICKLE):
            contents = _read_legacy(file, window)
        else:
            raise CheckpointError(f"{window.name} is not a file of torch.save. {hint(window)}")
    if not isinstance(contents, dict):
        raise CheckpointError(
            f"{window.name} holds {_kind(contents)} where Adept's checkpoints hold a dictionary with "
            "`model`, `args` and `iteration`"
        )
    return contents


def _kind(contents: object) -> str:
    return "one tensor" if isinstance(contents, StoredTensor) else f"one {type(contents).__name__}"


def _read_zip(file: io.BufferedReader, window: Window) -> object:
    try:
        entries = {entry.filename: entry for entry in zipfile.ZipFile(file).infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise CheckpointError(
            f"{window.name} is cut off or damaged: it begins as a zip archive of torch.save, but the directory that "
            f"belongs at its end cannot be read ({error}). {hint(window)}"
        ) from error
    (folder,) = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")] or [None]
    if folder is None:
        raise CheckpointError(f"{window.name} is a zip archive, but not one of torch.save: it holds no data.pkl")
    order = _read_entry(file, entries.get(f"{folder}byteorder"), window)
    if order not in (b"", b"little"):
        raise CheckpointError(f"{window.name} was saved on a big-endian machine; save it again on a little-endian one")
    data = _read_entry(file, entries[f"{folder}data.pkl"], window)
    contents, storages = unpickle(next_pickle(io.BytesIO(data), window), window)
    for storage in storages.values():
        entry = entries.get(f"{folder}data/{storage.key}")
        if entry is None or entry.file_size != storage.nbytes:
            found = "is not there" if entry is None else f"has {entry.file_size:,}"
            raise CheckpointError(
                f"{window.name} is damaged: {storage.key} should have {storage.nbytes:,} bytes, but {found}"
            )
        storage.start = _start(file, entry, window)
        # torch can be told to leave the checksums out; then all are 0, the pickle's as well.
        storage.checksum = entry.CRC if entries[f"{folder}data.pkl"].CRC else None
    return contents


def _read_entry(file: io.BufferedReader, entry: zipfile.ZipInfo | None, window: Window) -> bytes:
    if entry is None:
        return b""
    if entry.file_size > LARGEST:
        raise CheckpointError(f"{window.name}: {entry.filename} is {entry.file_size:,} bytes")
    file.seek(_start(file, entry, window))
    data = file.read(entry.file_size)
    if entry.CRC and zlib.crc32(data) != entry.CRC:
        raise CheckpointError(f"{window.name}: {entry.filename} is damaged (its CRC-32 differs)")
    return data


def _start(file: io.BufferedReader, entry: zipfile.ZipInfo, window: Window) -> int:
    """Where the bytes of an entry begin: after its own header, whose length the directory does not tell."""
    file.seek(entry.header_offset)
    signature, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size).ljust(LOCAL_HEADER.size))
    start = entry.header_offset + LOCAL_HEADER.size + name + extra
    if signature != ZIP or start + entry.file_size > window.length or entry.compress_type != zipfile.ZIP_STORED:
        raise CheckpointError(f"{window.name}: {entry.filename} is damaged or compressed")
    return start


def _read_legacy(file: io.BufferedReader, window: Window) -> object:
    """Five pickles (magic, version, machine, contents, keys), then each storage: how many elements, and they."""
    file.seek(0)
    stream = io.BytesIO(file.read(LARGEST))
    magic, _ = unpickle(next_pickle(stream, window), window)
    if magic != MAGIC:
        raise CheckpointError(f"{window.name} is a bare pickle, not a file of torch.save")
    unpickle(next_pickle(stream, window), window)
    machine, _ = unpickle(next_pickle(stream, window), window)
    if not machine["little_endian"]:
        raise CheckpointError(f"{window.name} was saved on a big-endian machine; save it again on a little-endian one")
    contents, storages = unpickle(next_pickle(stream, window), window)
    keys, _ = unpickle(next_pickle(stream, window), window)
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        file.seek(position)
        (elements,) = struct.unpack("<q", file.read(8).ljust(8))
        if elements * storage.dtype.itemsize != storage.nbytes or position + 8 + storage.nbytes > window.length:
            raise CheckpointError(f"{window.name} is cut off or damaged at {storage.entry}. {hint(window)}")
        storage.start = position + 8
        position = storage.start + storage.nbytes
    return contents
