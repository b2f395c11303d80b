"""How far two computations of the same thing may lie apart: the one table of tolerances, by what is compared and dtype.

Each is a few times what rounding alone was seen to do and a fraction of what a bug does; `numerics.noise` measures the
former.
"""

from collections.abc import Mapping

import torch

from persimmon_lab.dtypes import dtype_name
from persimmon_lab.numerics.formats import format_of

Tolerances = Mapping[torch.dtype, float]

# Two tensors number by number, as an absolute difference, where the largest numbers lie between 4 and 8: two steps of
# the format there in 16 bits; in float32 a hundred and in float64 ten thousand, as no bug is that small.
ELEMENTS: Tolerances = {
    torch.float64: 1e-11,
    torch.float32: 5e-5,
    torch.float16: 2.0**-7,
    torch.bfloat16: 2.0**-4,
}

# What a module makes, as ||difference|| / ||reference||, after some tens of layers, each of which adds its roundings.
# So in 16 bits small bugs are within it (an epsilon of 1e-4 for 1e-5, rounded positions): compare in float32 first.
NORMS: Tolerances = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 5e-2,
}

# A matrix product of some hundreds of terms, the largest error over the largest entry: a few times the rounding of what
# goes in (4e-3 in bfloat16, 5e-4 in float16); in float32 that of the sums. TF32, which rounds to 5e-4, is beyond it.
PRODUCTS: Tolerances = {
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}

# The logits of one model through two engines, as an absolute difference: the same sums in another order and, in 16
# bits, roundings at other places, so about five steps of the format between 4 and 8.
ENGINES: Tolerances = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.float16: 0.02,
    torch.bfloat16: 0.15,
}

# An answer to an exercise, relative and absolute: float32 phases of a few hundred radians are off by 3e-5. A wrong
# answer is off by far more.
ANSWERS = 1e-4


def coarser(one: torch.dtype, other: torch.dtype, tolerances: Tolerances) -> float:
    """The tolerance of the dtype that rounds more. Raises ValueError for one that the table does not have."""
    dtype = max(one, other, key=lambda dtype: format_of(dtype).epsilon)
    if dtype not in tolerances:
        known = ", ".join(dtype_name(known) for known in tolerances)
        raise ValueError(f"no tolerance is known for {dtype}, only for {known}; give one as tolerance=")
    return tolerances[dtype]
