"""One file of weights, read bite by bite: safetensors, or torch's own format."""

import math
import pickle
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import BITE, bytes_of, checksum_of, copy, rows_of
from persimmon_lab.field_checks import parsed

CHECKSUMS = "crc32"
SAFETENSORS_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8",
}  # fmt: skip
MAPPED_BYTES = 2**21  # of a pickle file, before its map is made again


class WeightFile:
    """One file of tensors, read bite by bite straight into memory of their own.

    Nothing that `read` returns stays mapped to the file: whoever overwrites or truncates it later can neither change
    the model nor crash it. What `mapped` returns does. Threads may read one file together.
    """

    def __init__(self, path: Path, shapes: dict[str, tuple[int, ...]], dtypes: dict[str, torch.dtype | str]) -> None:
        self.path = path
        self.shapes = shapes
        self.dtypes = dtypes
        self.checksums: dict[str, int] = {}

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of a tensor. CheckpointError where torch has none for it, whose name `dtypes` then has."""
        dtype = self.dtypes[name]
        if isinstance(dtype, str):
            raise CheckpointError(f"{self.path}: {name} is stored as {dtype}, which this package does not read")
        return dtype

    def read(
        self, name: str, *, dtype: torch.dtype, device: torch.device | str, verify: bool = True
    ) -> Float[Tensor, "..."]:
        """One tensor, converted and moved.

        Raises CheckpointError when the file has shrunk, or when `verify` is set and the bytes differ from the checksum
        stored beside them.
        """
        target = torch.empty(self.shapes[name], dtype=dtype, device=device)
        stored = self.dtype_of(name)
        as_it_is = target.is_cpu and dtype == stored
        rows = rows_of(self.shapes[name], BITE)
        # One bite for the whole tensor: one each would leave holes between the tensors that stay.
        bite = (min(rows, self.shapes[name][0]), *self.shapes[name][1:])
        landing = target if as_it_is else torch.empty(bite, dtype=stored, device="cpu")
        # The pieces come first, so that zip also asks for the one after the last, which checks the sum.
        for piece, into in zip(self.pieces(name, rows, verify, landing), target.split(rows)):
            if not as_it_is:
                copy(piece, into)
        return target

    def mapped(self, name: str) -> Float[Tensor, "..."]:
        """One tensor as it is stored, on the CPU, which takes memory only as it is used and gives it back when others
        need it; writing into it does not reach the file.

        The trap: who overwrites the file in place changes the tensor, and who shortens it ends the process at the next
        use. A file that is put in its place, as `save_pretrained` does, leaves it alone.
        """
        raise NotImplementedError

    def pieces(
        self, name: str, rows: int, verify: bool = True, landing: Shaped[Tensor, "..."] | None = None
    ) -> Iterator[Shaped[Tensor, "..."]]:
        """One tensor's rows in order, at most `rows` at a time, as they are stored.

        Each piece has memory of its own, or that of `landing`, which has room for all rows or for one piece; then the
        next overwrites it. Raises CheckpointError as `read` does, the one for other bytes after the last piece.
        """
        length, *width = self.shapes[name]
        checksum = 0
        for start in range(0, length, rows):
            count = min(rows, length - start)
            if landing is None:
                piece = torch.empty((count, *width), dtype=self.dtype_of(name), device="cpu")
            else:
                piece = landing[start : start + count] if len(landing) == length else landing[:count]
            self._fill(piece, name, start)
            if verify and name in self.checksums:
                checksum = checksum_of(piece, checksum)
            yield piece
        if verify:
            self.compare(name, checksum)

    def compare(self, name: str, checksum: int) -> None:
        """CheckpointError where a tensor's bytes have another checksum than the one that was stored with them."""
        if checksum != self.checksums.get(name, checksum):
            raise CheckpointError(
                f"{self.path}: the bytes of {name} are not the ones that were saved (their CRC-32 differs); copy or "
                "download the file again, or pass verify=False to look at what is left"
            )

    def _fill(self, landing: Shaped[Tensor, "..."], name: str, start: int) -> None:
        """Copy the rows of a tensor from row `start` on, as many as `landing` has."""
        raise NotImplementedError


class SafetensorsFile(WeightFile):
    """A safetensors file: 8 bytes of length, a JSON header, and the tensors' bytes end to end."""

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt"):  # checks that the header is whole and fits the file
                pass
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = parsed(file.read(length))
            checksums = parsed(header.pop("__metadata__", {}).get(CHECKSUMS, "{}"))
        except (SafetensorError, ValueError) as error:
            raise CheckpointError(f"{path} is not a whole safetensors file: {error}. {_hint(path)}") from error
        named = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        super().__init__(
            path, shapes, {name: named.get(entry["dtype"], entry["dtype"]) for name, entry in header.items()}
        )
        self.checksums = checksums
        self._offsets = {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items()}

    def mapped(self, name: str) -> Float[Tensor, "..."]:
        with safe_open(self.path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    def _fill(self, landing: Shaped[Tensor, "..."], name: str, start: int) -> None:
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._offsets[name] + start * landing[0].nbytes)
            if file.readinto(bytes_of(landing)) != landing.nbytes:
                raise CheckpointError(f"{self.path} became shorter while it was read")


class PickleFile(WeightFile):
    """A file of `torch.save`, opened with `weights_only`: a pickle that would run code is refused, not run.

    torch reads it through a memory map, whose pages count as this process's memory as long as the map lives; so it is
    dropped and made again after a few per cent of the file.
    """

    def __init__(self, path: Path) -> None:
        self._tensors = _map_pickle(path)
        self._touched = 0
        self._turn = threading.Lock()
        shapes = {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}
        super().__init__(path, shapes, {name: tensor.dtype for name, tensor in self._tensors.items()})

    def mapped(self, name: str) -> Float[Tensor, "..."]:
        return self._tensors[name]

    def _fill(self, landing: Shaped[Tensor, "..."], name: str, start: int) -> None:
        with self._turn:
            if self._touched > max(self.path.stat().st_size // 32, MAPPED_BYTES):
                self._tensors.clear()  # and with the tensors the map, before there is another
                self._tensors = _map_pickle(self.path)
                self._touched = 0
            copy(self._tensors[name][start : start + len(landing)], landing)
            self._touched += landing.nbytes


@dataclass(frozen=True)
class FileTensor:
    """One tensor of a file, as a source."""

    file: WeightFile
    name: str
    verify: bool = True

    @property
    def shape(self) -> tuple[int, ...]:
        return self.file.shapes[self.name]

    @property
    def dtype(self) -> torch.dtype:
        return self.file.dtype_of(self.name)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def pieces(self, rows: int) -> Iterator[Shaped[Tensor, "..."]]:
        return self.file.pieces(self.name, rows, self.verify)


def _map_pickle(path: Path) -> dict[str, Shaped[Tensor, "..."]]:
    try:
        tensors = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is not a plain archive of tensors and may carry code, which was not run. "
            f"{_hint(path)}. torch says: {str(error).splitlines()[0]}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is not a whole file of torch.save: {error}. {_hint(path)}") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{path} holds something other than a dictionary of tensors; save a state_dict() instead")
    return dict(tensors)


def _hint(path: Path) -> str:
    """What a file that cannot be read most likely is."""
    with path.open("rb") as file:
        beginning = file.read(64).lstrip().lower()
    if not beginning:
        return "The file is empty: copy or download it again"
    if beginning.startswith(b"version https://git-lfs"):
        return "It is the pointer that git keeps for a large file: run `git lfs pull`"
    if beginning.startswith((b"<", b"{")):
        return "It is text, such as the error page of a failed download: download it again"
    if path.suffix == ".bin" and beginning.startswith(b"\x80"):
        return (
            "It is a bare pickle, which may carry code, so it is refused and was not run; if it is weights from before "
            "torch 1.6, save what torch.load(path, weights_only=True) gives again"
        )
    return f"It may be truncated or damaged ({path.stat().st_size:,} bytes here): copy or download it again"
