"""A safetensors file written in one pass, from tensors that need not be in memory."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jaxtyping import Shaped
from torch import Tensor

from persimmon_lab.checkpoints.tensor_streams import BITE, Source, as_source, bytes_of, checksum_of, rows_of
from persimmon_lab.checkpoints.weight_files import CHECKSUMS, SAFETENSORS_DTYPES

WIDEST_CHECKSUM = 2**32 - 1
Progress = Callable[[int], None]


def unheard(count: int) -> None:
    """Progress that nobody watches."""


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Source | Shaped[Tensor, "..."]],
    progress: Progress = unheard,
) -> None:
    """Write tensors, a few rows at a time, with the CRC-32 of each in the file's metadata.

    `progress` is told the number of bytes of each piece. The same tensors give the same bytes, which safetensors' own
    writer does not promise for two entries of metadata.
    """
    sources = {name: as_source(tensor) for name, tensor in tensors.items()}
    # Wide numbers first, so that each lies at a multiple of its size.
    names = sorted(sources, key=lambda name: -sources[name].dtype.itemsize)
    # The checksums are known at the end and stand at the beginning, where room is left for the longest.
    width = len(_header(sources, names, dict.fromkeys(names, WIDEST_CHECKSUM)))
    width += -width % 8
    with path.open("wb") as file:
        file.write(bytes(8 + width))
        checksums = {name: _write_pieces(file, name, sources[name], progress) for name in names}
        file.seek(0)
        file.write(width.to_bytes(8, "little") + _header(sources, names, checksums).ljust(width))


def _header(sources: Mapping[str, Source], names: list[str], checksums: dict[str, int]) -> bytes:
    # transformers insists on "format".
    header: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt", CHECKSUMS: json.dumps(checksums)}}
    end = 0
    for name in names:
        source = sources[name]
        start, end = end, end + source.nbytes
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[source.dtype],
            "shape": list(source.shape),
            "data_offsets": [start, end],
        }
    return json.dumps(header, separators=(",", ":")).encode()


def _write_pieces(file: BinaryIO, name: str, source: Source, progress: Progress) -> int:
    """Append a source to a file; returns the CRC-32 of its bytes."""
    checksum = written = 0
    for piece in source.pieces(rows_of(source.shape, BITE)):
        data = bytes_of(piece)
        checksum = checksum_of(piece, checksum)
        written += file.write(data)
        progress(len(data))
    if written != source.nbytes:
        raise ValueError(f"{name} of shape {source.shape} gave {written:,} bytes instead of {source.nbytes:,}")
    return checksum
