"""A matrix of rounded weights, where a module has its `weight`: how it lies in memory and files, and its products."""

import math
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from persimmon_lab.quantisation.kernels import has_int4_product, has_int8_product, int4_product, int8_product
from persimmon_lab.quantisation.packing import ROWS, from_pairs, layout_here, to_pairs
from persimmon_lab.quantisation.rounding import (
    GROUP,
    MIDDLE,
    Matrix,
    check_groups,
    int8_values,
    round_int4,
    round_int8,
)

Rows = Float[Tensor, "row input"]
Product = Float[Tensor, "row output"]
FileRows = UInt8[Tensor, "output byte"]

PIECE = 2**21  # weights turned into numbers at a time, where they are multiplied as such
KERNEL_ROWS = 16  # of x up to which torch's own product is used; more share what it takes to make numbers of the codes


class RoundedWeight(nn.Module):
    """Rounded weights of a shape (output, input) that stand where a parameter would, as `linear.weight`.

    They multiply (`product`), are looked up (`rows`) and given as numbers (`dequantized`); what else is done to a
    weight is an AttributeError or a TypeError. `dtype` is that of the scales and of what is multiplied; `.to(dtype)`
    rounds the scales to another one. Each format has two ways to multiply: torch's own product for it, on a CPU in
    bfloat16, where this machine has it, and else as numbers, a piece at a time, which is emulation and slower.
    """

    format: ClassVar[str]
    scales: Tensor
    requires_grad = False

    def __init__(self, outputs: int, inputs: int, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__()
        self.outputs = outputs
        self.inputs = inputs

    @classmethod
    def row_bytes(cls, inputs: int, dtype: torch.dtype) -> int:
        """Bytes of a row in a file: codes, then scales and zeros in `dtype`."""
        raise NotImplementedError

    @classmethod
    def inputs_of(cls, row_bytes: int, dtype: torch.dtype) -> int:
        """The width of a row that has so many bytes."""
        raise NotImplementedError

    @classmethod
    def check_inputs(cls, inputs: int) -> None:
        """Raises ValueError for a width that the format does not take."""

    @classmethod
    def round(cls, weight: Matrix, dtype: torch.dtype) -> FileRows:
        """Rows of weights as a file has them, with scales in `dtype`. Raises ValueError for what is not finite."""
        raise NotImplementedError

    def fill(self, start: int, rows: FileRows) -> None:
        """Take rows of a file for those from `start` on, a multiple of ROWS, as are all but the last rows' number."""
        raise NotImplementedError

    def file_rows(self, start: int, end: int) -> FileRows:
        """What `fill` took, `start` as there."""
        raise NotImplementedError

    def rows(self, ids: Int[Tensor, "row"]) -> Rows:
        """Some rows as numbers, in `dtype`."""
        raise NotImplementedError

    @property
    def has_kernel(self) -> bool:
        """Whether torch has its own product for these weights where they are."""
        raise NotImplementedError

    @property
    def shape(self) -> torch.Size:
        return torch.Size((self.outputs, self.inputs))

    @property
    def dtype(self) -> torch.dtype:
        return self.scales.dtype

    @property
    def device(self) -> torch.device:
        return self.scales.device

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers())

    def numel(self) -> int:
        return self.outputs * self.inputs

    def product(self, x: Rows) -> Product:
        """`x @ weight.T` in the dtype of x, which has to be that of the scales. Without gradients: see `modules`."""
        if x.dtype != self.dtype:
            raise TypeError(
                f"the input is {x.dtype}, and these {self.format} weights compute in {self.dtype}: load the model with "
                f"torch_dtype={x.dtype}, and leave autocast off"
            )
        if self.has_kernel and 0 < len(x) <= KERNEL_ROWS:
            return self._by_kernel(x.contiguous())
        wide = _computed_in(x)
        rows = x.to(wide)
        product = x.new_empty(len(x), self.outputs)
        for start, end in self._pieces():
            product[:, start:end] = rows @ rearrange(self._values(start, end, wide), "output input -> input output")
        return product

    def transposed_product(self, gradient: Product) -> Rows:
        """`gradient @ weight`: what a gradient becomes on its way back."""
        wide = _computed_in(gradient)
        total = gradient.new_zeros(len(gradient), self.inputs, dtype=wide)
        for start, end in self._pieces():
            total += gradient[:, start:end].to(wide) @ self._values(start, end, wide)
        return total.to(gradient.dtype)

    def dequantized(self) -> Matrix:
        """All weights as numbers, in `dtype`: as large as they were before the rounding."""
        weight = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for start, end in self._pieces():
            weight[start:end] = self._values(start, end, torch.promote_types(self.dtype, torch.float32))
        return weight

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Whole blocks of rows, PIECE weights or so at a time."""
        step = max(1, PIECE // (self.inputs * ROWS)) * ROWS
        return ((start, min(start + step, self.outputs)) for start in range(0, self.outputs, step))

    def _values(self, start: int, end: int, dtype: torch.dtype) -> Matrix:
        """Rows as numbers; `start` is a multiple of ROWS."""
        raise NotImplementedError

    def _by_kernel(self, x: Rows) -> Product:
        raise NotImplementedError

    def extra_repr(self) -> str:
        how = "torch's own product" if self.has_kernel else "emulated, a piece at a time"
        return f"{self.outputs}, {self.inputs}, {self.format}, {str(self.dtype).removeprefix('torch.')}, {how}"

    def forward(self, *inputs: Any) -> NoReturn:
        raise TypeError(f"these are {self.format} weights and no layer; call the module that they are the weight of")

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(
                f"{self.format} weights have no {name!r}: they multiply, and dequantized() gives them as a tensor; to "
                "train, change or resize them load the model without quantize"
            ) from None


class Int8Weight(RoundedWeight):
    """A code of eight bits for each weight, and a scale for each output row."""

    read_by_fast_engine = True
    format = "int8"
    codes: Tensor

    def __init__(self, outputs: int, inputs: int, dtype: torch.dtype, device: torch.device | str) -> None:
        super().__init__(outputs, inputs, dtype, device)
        self.register_buffer("codes", torch.empty(outputs, inputs, dtype=torch.int8, device=device))
        self.register_buffer("scales", torch.empty(outputs, dtype=dtype, device=device))

    @classmethod
    def row_bytes(cls, inputs: int, dtype: torch.dtype) -> int:
        return inputs + dtype.itemsize

    @classmethod
    def inputs_of(cls, row_bytes: int, dtype: torch.dtype) -> int:
        return row_bytes - dtype.itemsize

    @classmethod
    def round(cls, weight: Matrix, dtype: torch.dtype) -> FileRows:
        codes, scales = round_int8(weight, dtype)
        return torch.cat((codes.view(torch.uint8), _bytes(rearrange(scales, "output -> output 1"))), dim=1)

    def fill(self, start: int, rows: FileRows) -> None:
        codes, scales = rows.split((self.inputs, self.scales.itemsize), dim=1)
        self.codes[start : start + len(rows)] = codes.contiguous().view(torch.int8)
        self.scales[start : start + len(rows)] = _numbers(scales, self.dtype)[:, 0]

    def file_rows(self, start: int, end: int) -> FileRows:
        scales = rearrange(self.scales[start:end], "output -> output 1")
        return torch.cat((self.codes[start:end].view(torch.uint8), _bytes(scales)), dim=1)

    def rows(self, ids: Int[Tensor, "row"]) -> Rows:
        wide = torch.promote_types(self.dtype, torch.float32)
        return int8_values(self.codes[ids], self.scales[ids], wide).to(self.dtype)

    @property
    def has_kernel(self) -> bool:
        return self.codes.is_cpu and self.dtype == torch.bfloat16 and has_int8_product()

    def _values(self, start: int, end: int, dtype: torch.dtype) -> Matrix:
        return int8_values(self.codes[start:end], self.scales[start:end], dtype)

    def _by_kernel(self, x: Rows) -> Product:
        return int8_product(x, self.codes, self.scales)


class Int4Weight(RoundedWeight):
    """A code of four bits for each weight, and a scale and a zero for each group of 32 inputs of a row.

    `codes` lie as torch's product on this machine wants them, padded to whole blocks: (block, input, byte); `scales`
    hold both numbers of a group: (group, output, scale or zero).
    """

    read_by_fast_engine = True
    format = "int4"
    codes: Tensor

    def __init__(self, outputs: int, inputs: int, dtype: torch.dtype, device: torch.device | str) -> None:
        self.check_inputs(inputs)
        super().__init__(outputs, inputs, dtype, device)
        self.layout = layout_here()
        blocks = math.ceil(outputs / ROWS) * (ROWS // self.layout.rows)
        shape = blocks, inputs, self.layout.rows // 2
        self.register_buffer("codes", torch.empty(shape, dtype=torch.uint8, device=device))
        shape = inputs // GROUP, blocks * self.layout.rows, 2
        self.register_buffer("scales", torch.empty(shape, dtype=dtype, device=device))

    @classmethod
    def row_bytes(cls, inputs: int, dtype: torch.dtype) -> int:
        return inputs // GROUP * (GROUP // 2 + 2 * dtype.itemsize)

    @classmethod
    def inputs_of(cls, row_bytes: int, dtype: torch.dtype) -> int:
        return row_bytes // (GROUP // 2 + 2 * dtype.itemsize) * GROUP

    @classmethod
    def check_inputs(cls, inputs: int) -> None:
        check_groups(inputs)

    @classmethod
    def round(cls, weight: Matrix, dtype: torch.dtype) -> FileRows:
        codes, scales, zeros = round_int4(weight, dtype)
        return torch.cat((to_pairs(codes), _bytes(scales), _bytes(zeros)), dim=1)

    def fill(self, start: int, rows: FileRows) -> None:
        of_groups = self.inputs // GROUP * self.scales.itemsize
        pairs, scales, zeros = rows.split((self.inputs // 2, of_groups, of_groups), dim=1)
        count = math.ceil(len(rows) / ROWS) * ROWS
        codes = torch.full((count, self.inputs), MIDDLE, dtype=torch.uint8, device=rows.device)
        codes[: len(rows)] = from_pairs(pairs)
        first = start // self.layout.rows
        self.codes[first : first + count // self.layout.rows] = self.layout.pack(codes)
        both = torch.zeros(count, self.inputs // GROUP, 2, dtype=self.dtype, device=rows.device)
        both[: len(rows), :, 0], both[: len(rows), :, 1] = _numbers(scales, self.dtype), _numbers(zeros, self.dtype)
        self.scales[:, start : start + count] = rearrange(both, "output group two -> group output two")

    def file_rows(self, start: int, end: int) -> FileRows:
        scales, zeros = rearrange(self.scales[:, start:end], "group output two -> two output group")
        return torch.cat((to_pairs(self._codes(start, end)), _bytes(scales), _bytes(zeros)), dim=1)

    def rows(self, ids: Int[Tensor, "row"]) -> Rows:
        half = self.layout.rows // 2
        place = torch.tensor(self.layout.places, device=ids.device)[ids % self.layout.rows]
        pairs = self.codes[ids // self.layout.rows, :, place % half]
        codes = pairs >> rearrange(4 * (place // half), "row -> row 1").to(torch.uint8) & 2 * MIDDLE - 1
        both = self.scales[:, ids].to(torch.promote_types(self.dtype, torch.float32))
        scales, zeros = rearrange(both, "group row two -> two row group 1")
        groups = rearrange(codes.to(both.dtype), "row (group neighbour) -> row group neighbour", neighbour=GROUP)
        values = (groups - MIDDLE) * scales + zeros
        rows: Rows = rearrange(values, "row group neighbour -> row (group neighbour)").to(self.dtype)
        return rows

    @property
    def has_kernel(self) -> bool:
        return self.codes.is_cpu and self.dtype == torch.bfloat16 and has_int4_product()

    def _codes(self, start: int, end: int) -> UInt8[Tensor, "output input"]:
        first, last = start // self.layout.rows, math.ceil(end / self.layout.rows)
        return self.layout.unpack(self.codes[first:last])[: end - start]

    def _values(self, start: int, end: int, dtype: torch.dtype) -> Matrix:
        scales, zeros = rearrange(self.scales[:, start:end].to(dtype), "group output two -> two output group 1")
        pattern = "output (group neighbour) -> output group neighbour"
        groups = rearrange(self._codes(start, end).to(dtype), pattern, neighbour=GROUP)
        return rearrange(
            (groups - MIDDLE).mul_(scales).add_(zeros), "output group neighbour -> output (group neighbour)"
        )

    def _by_kernel(self, x: Rows) -> Product:
        return int4_product(x, self.codes, self.scales)[:, : self.outputs]

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["layout"] != layout_here():
            raise RuntimeError(
                "these int4 weights were pickled on a processor that lays them out otherwise; save_pretrained writes "
                "what every machine reads"
            )
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch gives it no types


FORMATS: dict[str, type[Int8Weight] | type[Int4Weight]] = {"int8": Int8Weight, "int4": Int4Weight}


def _computed_in(x: Tensor) -> torch.dtype:
    """What a product is computed in: float32 at least, but for bfloat16 where the processor multiplies it."""
    if x.dtype == torch.bfloat16 and (not x.is_cpu or torch.cpu._is_avx512_bf16_supported()):
        return x.dtype
    return torch.promote_types(x.dtype, torch.float32)


def _bytes(numbers: Float[Tensor, "output number"]) -> FileRows:
    return numbers.contiguous().view(torch.uint8)


def _numbers(rows: FileRows, dtype: torch.dtype) -> Float[Tensor, "output number"]:
    return rows.clone(memory_format=torch.contiguous_format).view(dtype)  # a slice may begin at an odd byte
