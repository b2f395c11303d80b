"""Tensors that are still in their file."""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

import torch
from jaxtyping import Shaped
from torch import Tensor

from persimmon_lab.adept.window import Window
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import bytes_of, checksum_of, read

BITE = 2**20  # bytes read at a time where only their checksum is wanted


class Sealed:
    """What a pickle may hold but not change: its BUILD instruction could set any attribute."""

    __slots__ = ()

    def __setstate__(self, state: object) -> NoReturn:
        raise TypeError(f"a pickle may not set the state of {type(self).__name__}")


@dataclass(eq=False)
class Storage(Sealed):
    """A run of bytes in an archive, which one tensor or several look at.

    Where it starts in the window, and its CRC-32 (a zip archive has one), are known once the archive's directory was
    read.
    """

    window: Window
    key: str
    dtype: torch.dtype
    nbytes: int
    location: str
    start: int = 0
    checksum: int | None = None

    @property
    def entry(self) -> str:
        return f"storage {self.key} of {self.window.name}"

    def fill(self, file: io.BufferedReader, landing: Shaped[Tensor, "..."]) -> None:
        """Read on in the file, straight into a tensor's memory."""
        if file.readinto(bytes_of(landing)) != landing.nbytes:
            raise CheckpointError(f"{self.window.name} became shorter while it was read")

    def compare(self, checksum: int) -> None:
        if self.checksum not in (None, checksum):
            raise CheckpointError(
                f"{self.entry} is damaged: its bytes are not the ones that were saved (their CRC-32 differs); "
                "copy or download the file again"
            )

    def verify(self) -> None:
        """Compare all its bytes with their checksum, in a pass of its own."""
        if self.checksum is None:
            return
        for _ in StoredTensor(self, torch.uint8, (self.nbytes,), (1,), 0).pieces(BITE):
            pass
        self.checksum = None  # once is enough


@dataclass(frozen=True, eq=False)
class StoredTensor(Sealed):
    """A tensor of an archive, not yet read: a view of a storage, `offset` and `strides` counted in elements."""

    source: Storage
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def storage(self) -> tuple[str, str]:
        """The same for all tensors that look at the same bytes, as tied ones do."""
        return self.source.window.name, self.source.key

    @property
    def location(self) -> str:
        """The device it was saved from, such as "cuda:0"."""
        return self.source.location

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether the elements lie in the order of their indices, without gaps; where there are none, they do."""
        if 0 in self.shape:
            return True
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides)):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True

    def pieces(self, rows: int) -> Iterator[Shaped[Tensor, "..."]]:
        """All rows (along the first axis) in order, at most `rows` at a time, each piece in memory of its own.

        Raises CheckpointError when the bytes differ from their checksum: before the first piece where the tensor is a
        part of its storage, else after the last one.
        """
        covers = self.contiguous and self.nbytes == self.source.nbytes
        if not covers:
            self.source.verify()
        if not self.contiguous:
            yield from self._gather().split(rows)
            return
        height, *width = self.shape or (1,)
        checksum = 0
        with self.source.window.open() as file:
            file.seek(self.source.start + self.offset * self.dtype.itemsize)
            for start in range(0, height, rows):
                piece = torch.empty(min(rows, height - start), *width, dtype=self.dtype, device="cpu")
                self.source.fill(file, piece)
                if covers:
                    checksum = checksum_of(piece, checksum)
                yield piece
        if covers:
            self.source.compare(checksum)

    def read(self) -> Shaped[Tensor, "..."]:
        """All of it, in memory of its own."""
        return read(self)

    def _gather(self) -> Shaped[Tensor, "..."]:
        """Collect a tensor whose elements lie in another order than their indices, such as a transposed one."""
        reach = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))
        stretch = torch.empty(reach, dtype=self.dtype, device="cpu")
        with self.source.window.open() as file:
            file.seek(self.source.start + self.offset * self.dtype.itemsize)
            self.source.fill(file, stretch)
        return torch.as_strided(stretch, self.shape, self.strides).contiguous()
