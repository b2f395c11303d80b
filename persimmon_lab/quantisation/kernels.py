"""torch's own products of rounded weights on a CPU, each compared once with the product of the numbers it stands for.

They are private operators, and in torch 2.13 vectorised for bfloat16 alone: in float32 and float16 they compute one
number at a time, slower than making numbers of the codes first.
"""

import functools
from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import BFloat16, Int8, UInt8
from torch import Tensor

from persimmon_lab.quantisation.packing import layout_here, torch_layout
from persimmon_lab.quantisation.rounding import GROUP, int4_values, int8_values

Rows = BFloat16[Tensor, "row input"]
Product = BFloat16[Tensor, "row output"]

ROUNDING = 2**-7  # of the largest sum: bfloat16 has eight bits, and a kernel may sum in another order


def int8_product(x: Rows, codes: Int8[Tensor, "output input"], scales: BFloat16[Tensor, "output"]) -> Product:
    product: Tensor = torch.ops.aten._weight_int8pack_mm(x, codes, scales)
    return product


def int4_product(
    x: Rows, codes: UInt8[Tensor, "block input byte"], scales: BFloat16[Tensor, "group padded 2"]
) -> BFloat16[Tensor, "row padded"]:
    """Codes as `packing.torch_layout` says, scales and zeros side by side; of all rows of the blocks."""
    pairs = rearrange(codes, "block input byte -> (block input byte)")
    packed = rearrange(pairs, "(output pair) -> output pair", output=scales.shape[1])  # how torch counts the bytes
    product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales)
    return product


@functools.cache
def has_int8_product() -> bool:
    """Whether torch has the product here, and it is right."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (96, 64), dtype=torch.int8, generator=generator)
    scales = (torch.rand(96, generator=generator) / 64).to(torch.bfloat16)
    return _agrees(lambda x: int8_product(x, codes, scales), int8_values(codes, scales, torch.float64))


@functools.cache
def has_int4_product() -> bool:
    """Whether torch has the product here, in a layout that is known, and it is right."""
    if torch_layout() is None:
        return False
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(16, (128, 2 * GROUP), generator=generator).to(torch.uint8)
    both = (torch.rand(2, 128, 2, generator=generator) / 8).to(torch.bfloat16)
    scales, zeros = rearrange(both, "group output two -> two output group")
    packed = layout_here().pack(codes)
    return _agrees(lambda x: int4_product(x, packed, both), int4_values(codes, scales, zeros, torch.float64))


def _agrees(product: Callable[[Tensor], Tensor], weight: Tensor) -> bool:
    """Whether a product of one row and of several is that with the weight, to the rounding of bfloat16."""
    x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    right = x.to(weight.dtype) @ rearrange(weight, "output input -> input output")
    tolerance = ROUNDING * right.abs().max()
    try:
        return all(bool((product(rows) - right[: len(rows)]).abs().max() <= tolerance) for rows in (x, x[:1]))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
