"""The two formats of torch.save, opened without reading the tensors.

Since torch 1.6 a file is a zip archive, uncompressed: `<name>/data.pkl` describes everything but the numbers, and
`<name>/data/<key>` holds the bytes of each storage. Before, it was a row of pickles followed by the storages.
"""

import io
import struct
import zipfile
import zlib
from collections import Counter
from typing import Any

from persimmon_lab.adept.pickled import LARGEST, next_pickle, unpickle
from persimmon_lab.adept.stored import Storage, StoredTensor
from persimmon_lab.adept.window import Window, hint
from persimmon_lab.checkpoints.errors import CheckpointError

__all__ = ["StoredTensor", "read_archive"]

ZIP, PICKLE = b"PK\x03\x04", b"\x80"
ENTRY_HEADER = struct.Struct("<4s22xHH")  # "PK\3\4", ..., the lengths of the name and of what follows it
MAGIC = 0x1950A86A20F9469CFC6C  # the first of the old format's pickles
COUNT = struct.Struct("<q")  # of a storage's elements, before each storage of the old format


def read_archive(window: Window) -> dict[str, Any]:
    """What a file of torch.save holds: dicts, lists, numbers and strings, `StoredTensor`s and `Inert` placeholders.

    Only the pickle is read; the tensors stay in the file until they are asked for. Nothing that the pickle names is
    imported or called. Raises CheckpointError for a file that is damaged, names code, or is something else.
    """
    with window.open() as file:
        beginning = file.read(len(ZIP))
        if beginning == ZIP:
            contents = _read_zip(file, window)
        elif beginning.startswith(PICKLE):
            contents = _read_row_of_pickles(file, window)
        else:
            raise CheckpointError(f"{window.name} is not a file of torch.save. {hint(window)}")
    if not isinstance(contents, dict):
        raise CheckpointError(
            f"{window.name} holds a {type(contents).__name__}; a checkpoint of Adept's is a dictionary with `model`, "
            "`args` and `iteration`"
        )
    return contents


def _read_zip(file: io.BufferedReader, window: Window) -> object:
    entries = _directory(file, window)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{window.name} is a zip archive, but not one of torch.save: {len(pickles)} data.pkl in it"
        )
    folder = pickles[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"  # not written before torch 2.1
    if order in entries and _read_entry(file, entries[order], window) != b"little":
        raise _big_endian(window)
    data = _read_entry(file, entries[pickles[0]], window)
    contents, storages = unpickle(next_pickle(io.BytesIO(data), window), window)
    for key, storage in storages.items():
        entry = entries.get(f"{folder}data/{key}")
        if entry is None or entry.file_size != storage.nbytes:
            there = "none" if entry is None else f"{entry.file_size:,}"
            raise CheckpointError(
                f"{storage.entry} should have {storage.nbytes:,} bytes; there are {there}. {hint(window)}"
            )
        storage.start = _start_of(file, entry, window)
        storage.checksum = entry.CRC or None  # torch can be told to leave checksums out; then they are 0
    return contents


def _directory(file: io.BufferedReader, window: Window) -> dict[str, zipfile.ZipInfo]:
    try:
        entries = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise CheckpointError(
            f"{window.name} begins as a file of torch.save, but the directory that belongs at its end cannot be read "
            f"({error}). {hint(window)}"
        ) from error
    name, count = max(Counter(entry.filename for entry in entries).items(), key=lambda item: item[1], default=("", 1))
    if count > 1:
        raise CheckpointError(f"{window.name} is refused: it has {count} entries called {name}")
    return {entry.filename: entry for entry in entries}


def _read_entry(file: io.BufferedReader, entry: zipfile.ZipInfo, window: Window) -> bytes:
    if entry.file_size > LARGEST:
        raise CheckpointError(
            f"{window.name} is refused: its {entry.filename} has {entry.file_size:,} bytes. It only describes the "
            f"tensors; more than {LARGEST:,} bytes are there to fill the memory"
        )
    file.seek(_start_of(file, entry, window))
    data = file.read(entry.file_size)
    if entry.CRC and zlib.crc32(data) != entry.CRC:
        raise CheckpointError(
            f"{entry.filename} of {window.name} is damaged: its bytes are not the ones that were saved (their CRC-32 "
            "differs); copy or download the file again"
        )
    return data


def _start_of(file: io.BufferedReader, entry: zipfile.ZipInfo, window: Window) -> int:
    """Where the bytes of an entry begin: after a header of its own, whose length the directory does not tell."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise CheckpointError(
            f"{window.name} was compressed after it was saved ({entry.filename}), so its tensors cannot be read one by "
            "one; unpack it and save it again with torch.save"
        )
    start, signature = entry.header_offset, b""
    if 0 <= start <= window.length:  # a damaged directory can say anything
        file.seek(start)
        signature, name, extra = ENTRY_HEADER.unpack(file.read(ENTRY_HEADER.size).ljust(ENTRY_HEADER.size))
        start += ENTRY_HEADER.size + name + extra
    if signature != ZIP:
        raise CheckpointError(f"{entry.filename} of {window.name} is not where its directory says. {hint(window)}")
    return start


def _read_row_of_pickles(file: io.BufferedReader, window: Window) -> object:
    """Magic number, version, machine, contents, keys; then each storage: how many elements, and their bytes."""
    file.seek(0)
    stream = io.BytesIO(file.read(LARGEST))
    magic, _ = unpickle(next_pickle(stream, window), window)
    if magic != MAGIC:
        raise CheckpointError(
            f"{window.name} is a bare pickle, not a file of torch.save; save it again with torch.save"
        )
    unpickle(next_pickle(stream, window), window)
    machine, _ = unpickle(next_pickle(stream, window), window)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise _big_endian(window)
    contents, storages = unpickle(next_pickle(stream, window), window)
    keys, _ = unpickle(next_pickle(stream, window), window)
    if keys != sorted(storages):
        raise CheckpointError(f"{window.name} describes other storages than it lists. {hint(window)}")
    position = stream.tell()
    for key in keys:
        position = _place(storages[key], file, position)
    return contents


def _place(storage: Storage, file: io.BufferedReader, position: int) -> int:
    """Say where a storage of the old format begins; returns where it ends."""
    file.seek(position)
    (elements,) = COUNT.unpack(file.read(COUNT.size).ljust(COUNT.size, b"\xff"))
    storage.start = position + COUNT.size
    end = storage.start + storage.nbytes
    if elements * storage.dtype.itemsize != storage.nbytes or end > storage.window.length:
        raise CheckpointError(
            f"{storage.entry} should end at byte {end:,}, and {storage.window.name} does not hold it there. "
            f"{hint(storage.window)}"
        )
    return end


def _big_endian(window: Window) -> CheckpointError:
    return CheckpointError(f"{window.name} was saved on a big-endian machine; save it again on a little-endian one")
