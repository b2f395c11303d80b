"""Tensors as streams: a shape, a dtype, and the rows a few at a time, wherever they are kept."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor
from zlib_ng import zlib_ng  # the same sum as zlib's, four to seven times as fast

BITE = 2**19  # elements read or written at a time
# Elements converted at a time: at most this many, torch uses no threads, which would wait for each other at every bite
# (seven times slower where other processes run).
PIECE = 2**15


@runtime_checkable
class Source(Protocol):
    """A tensor that is read as it is used.

    `pieces(rows)` gives all rows in order, at most `rows` at a time, each piece in memory of its own on the CPU. The
    trap: what a source checks of its whole, such as a checksum, it can only tell once all pieces are taken, so take
    them all.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def nbytes(self) -> int: ...

    def pieces(self, rows: int) -> Iterator[Shaped[Tensor, "..."]]: ...


@dataclass(frozen=True)
class InMemory:
    """A tensor that is there, on any device, as a source."""

    tensor: Shaped[Tensor, "..."]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def nbytes(self) -> int:
        return self.tensor.nbytes

    def pieces(self, rows: int) -> Iterator[Shaped[Tensor, "..."]]:
        for piece in torch.atleast_1d(self.tensor.detach()).split(rows):
            yield piece.cpu()


def as_source(tensor: Source | Shaped[Tensor, "..."]) -> Source:
    return InMemory(tensor) if isinstance(tensor, Tensor) else tensor


def read(source: Source) -> Shaped[Tensor, "..."]:
    """All of a source at once, in memory of its own."""
    target = torch.empty(source.shape, dtype=source.dtype, device="cpu")
    start = 0
    for piece in source.pieces(rows_of(source.shape, BITE)):
        copy(piece, torch.atleast_1d(target)[start : start + len(piece)])
        start += len(piece)
    return target


def rows_of(shape: tuple[int, ...], elements: int) -> int:
    """How many rows of a tensor of this shape hold about this many elements; at least one."""
    return max(1, elements // max(1, math.prod(shape[1:])))


def copy(source: Shaped[Tensor, "..."], target: Shaped[Tensor, "..."]) -> None:
    """Copy, converting, to the CPU in pieces and to another device in one."""
    rows = rows_of(tuple(target.shape), PIECE) if target.is_cpu else len(target)
    for piece, into in zip(source.split(rows), target.split(rows)):
        into.copy_(piece)


def checksum_of(tensor: Shaped[Tensor, "..."], before: int = 0) -> int:
    """CRC-32 of a tensor's bytes, continued from `before`; finds damage, not malice."""
    return zlib_ng.crc32(bytes_of(tensor), before)


def bytes_of(tensor: Shaped[Tensor, "..."]) -> memoryview:
    """A tensor's memory as bytes: shared with a contiguous one on the CPU, else copied (numpy knows no bfloat16)."""
    return tensor.detach().cpu().flatten().view(torch.uint8).numpy().data
