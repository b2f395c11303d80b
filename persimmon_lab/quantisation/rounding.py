"""Weights rounded to whole numbers: eight bits by output row, four bits in groups along the input.

A rounded weight is `code * scale`, or `(code - 8) * scale + zero` in four bits. Scales and zeros are rounded to the
model's dtype first and the codes are chosen for those, so that what is stored is what computes.
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int8, UInt8
from torch import Tensor

GROUP = 32  # neighbours along the input that share a scale and a zero in four bits
LARGEST = 127  # of the codes in eight bits, which run from -127
MIDDLE = 8  # of the codes in four bits, which run from 0 to 15: the one that stands for a group's zero

Matrix = Float[Tensor, "output input"]
Groups = Float[Tensor, "output group"]


def int8_scales(weight: Matrix) -> Float[Tensor, "output"]:
    """What one step of int8 is worth in each output row: its largest magnitude over 127. A row of zeros gets 1."""
    least, most = torch.aminmax(weight, dim=1)
    return _or_one(torch.maximum(most, -least) / LARGEST)


def round_int8(weight: Matrix, dtype: torch.dtype) -> tuple[Int8[Tensor, "output input"], Float[Tensor, "output"]]:
    """Codes from -127 to 127 and each output row's scale in `dtype`.

    Raises ValueError for a weight that is not finite, which a code would hide.
    """
    weight = _wide(weight)
    exact = int8_scales(weight)
    _check_finite(exact)
    scales = _or_one(exact.to(dtype))
    steps = weight / rearrange(scales, "output -> output 1").to(weight.dtype)
    return steps.round_().clamp_(-LARGEST, LARGEST).to(torch.int8), scales


def round_int4(weight: Matrix, dtype: torch.dtype) -> tuple[UInt8[Tensor, "output input"], Groups, Groups]:
    """Codes from 0 to 15, and the scale and the zero of each group of 32 inputs of a row, in `dtype`.

    The codes span what the group has, from its smallest to its largest weight. A group of equal weights has scale 1 and
    them as its zero. Raises ValueError for rows that are no whole number of groups, and where one is not finite.
    """
    check_groups(weight.shape[1])
    groups = rearrange(_wide(weight), "output (group neighbour) -> output group neighbour", neighbour=GROUP)
    least, most = torch.aminmax(groups, dim=-1)
    _check_finite(most - least)
    scales = _or_one(((most - least) / (2 * MIDDLE - 1)).to(dtype))
    wide = scales.to(groups.dtype)
    zeros = torch.where(most > least, least + MIDDLE * wide, least).to(dtype)
    steps = (groups - _each(zeros, groups)).div_(_each(scales, groups))
    codes = steps.round_().add_(MIDDLE).clamp_(0, 2 * MIDDLE - 1).to(torch.uint8)
    return rearrange(codes, "output group neighbour -> output (group neighbour)"), scales, zeros


def int8_values(codes: Int8[Tensor, "output input"], scales: Float[Tensor, "output"], dtype: torch.dtype) -> Matrix:
    """The weights that codes stand for, computed in `dtype`."""
    return codes.to(dtype) * rearrange(scales, "output -> output 1").to(dtype)


def int4_values(codes: UInt8[Tensor, "output input"], scales: Groups, zeros: Groups, dtype: torch.dtype) -> Matrix:
    """The weights that codes stand for, computed in `dtype`."""
    groups = rearrange(codes, "output (group neighbour) -> output group neighbour", neighbour=GROUP)
    steps = groups.to(dtype) - MIDDLE
    values = steps * _each(scales, steps) + _each(zeros, steps)
    return rearrange(values, "output group neighbour -> output (group neighbour)")


def check_groups(width: int) -> None:
    """ValueError for rows of a width that groups do not divide."""
    if width % GROUP:
        raise ValueError(f"rows of {width} weights are no whole number of groups of {GROUP}: take int8")


def _each(of_groups: Groups, like: Float[Tensor, "output group neighbour"]) -> Float[Tensor, "output group 1"]:
    return rearrange(of_groups, "output group -> output group 1").to(like.dtype)


def _wide(weight: Matrix) -> Matrix:
    """In float32 at least."""
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def _check_finite(extremes: Float[Tensor, "*shape"]) -> None:
    """ValueError where the extremes of some weights are not finite, which they are not if one of those is not."""
    if not bool(extremes.isfinite().all()):
        raise ValueError("a weight is NaN or infinite, and no whole number stands for that")


def _or_one(scales: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A scale of 0, of equal weights or too small for its dtype, becomes 1."""
    return torch.where(scales == 0, torch.ones_like(scales), scales)
