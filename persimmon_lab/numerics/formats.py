"""What a number format can hold: how far it reaches, how finely it divides, and which integers it knows.

A float is sign, exponent and fraction. The exponent's bits set the range, the fraction's bits the resolution; float16
and bfloat16 split the same 16 bits differently.

Source: IEEE 754-2019, section 3.4; float8: Micikevicius et al. 2022, FP8 Formats for Deep Learning; tf32: NVIDIA's
A100 whitepaper, 2020.
"""

from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

CONTEXT = 16384  # positions of Persimmon-8B
FLOAT64_EXPONENT = 0x7FF0000000000000  # the exponent's bits of a float64


@dataclass(frozen=True)
class NumberFormat:
    """A binary floating-point format; every other number about it follows from its two widths.

    `infinities=False` is float8 e4m3's way: the top exponent holds numbers too, and only the last pattern is NaN.
    """

    name: str
    exponent_bits: int
    fraction_bits: int
    torch_dtype: torch.dtype | None
    infinities: bool = True

    @property
    def bits(self) -> int:
        """Sign, exponent and fraction; tf32's 19 are stored in 32."""
        return 1 + self.exponent_bits + self.fraction_bits

    @property
    def bias(self) -> int:
        return (1 << self.exponent_bits - 1) - 1

    @property
    def epsilon(self) -> float:
        """The step from 1 to the next number above it."""
        return 2.0**-self.fraction_bits

    @property
    def largest(self) -> float:
        if self.infinities:
            return 2.0**self.bias * (2 - self.epsilon)
        return 2.0 ** (self.bias + 1) * (2 - 2 * self.epsilon)

    @property
    def smallest_normal(self) -> float:
        """Below it the steps grow no finer, and numbers lose digits."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest number above 0; half of it, and less, rounds to 0."""
        return self.smallest_normal * self.epsilon


FORMATS = {
    format.name: format
    for format in (
        NumberFormat("float64", 11, 52, torch.float64),
        NumberFormat("float32", 8, 23, torch.float32),
        NumberFormat("tf32", 8, 10, None),
        NumberFormat("bfloat16", 8, 7, torch.bfloat16),
        NumberFormat("float16", 5, 10, torch.float16),
        NumberFormat("float8_e5m2", 5, 2, torch.float8_e5m2),
        NumberFormat("float8_e4m3", 4, 3, torch.float8_e4m3fn, infinities=False),
    )
}
_BY_DTYPE = {format.torch_dtype: format for format in FORMATS.values() if format.torch_dtype is not None}


def format_of(dtype: torch.dtype) -> NumberFormat:
    """The format of a torch dtype. Raises ValueError for one that is no floating-point format of the table."""
    if dtype not in _BY_DTYPE:
        raise ValueError(f"{dtype} is none of the formats {', '.join(FORMATS)}; give a floating-point dtype")
    return _BY_DTYPE[dtype]


def spacing(x: Float[Tensor, "*shape"], format: NumberFormat) -> Float[Tensor, "*shape"]:
    """The step between neighbours of the format around each x (its ulp), in float64: 2^(floor(log2 |x|) - fraction).

    At a power of two it is the step above it. Infinite for an infinite x, NaN for NaN.
    """
    wide = x.double()
    # Of a float64, the exponent's bits alone are the power of two at or below it: exact, where log2 is not.
    power = (wide.view(torch.int64) & FLOAT64_EXPONENT).view(torch.float64)
    step = power.clamp(min=format.smallest_normal) * format.epsilon
    return torch.where(wide.isnan(), wide, step)


def round_to(x: Float[Tensor, "*shape"], format: NumberFormat) -> Float[Tensor, "*shape"]:
    """Each x as the format holds it: the nearest number, of two equally near ones the one with an even last bit.

    Beyond the largest number (and half a step) x becomes infinite, or, where there are no infinities, stays at the
    largest. The result is float32, or float64 for a float64 x, and equals torch's cast of a float32 there and back.

    The trap: torch casts a float64 to 16 bits by way of float32 and so rounds twice; this rounds once. Up to
    version 2.11 it made float8 e4m3's overflow NaN.
    """
    wide = x.double()
    step = spacing(wide, format)
    # Dividing by a power of two is exact, so that torch.round, which is ties-to-even, decides on x itself.
    rounded = torch.where(wide.isfinite(), (wide / step).round() * step, wide)
    beyond = torch.full_like(wide, torch.inf if format.infinities else format.largest).copysign(wide)
    rounded = torch.where(rounded.abs() > format.largest, beyond, rounded)
    return rounded.to(torch.promote_types(x.dtype, torch.float32))


def distinct_integers(format: NumberFormat, below: int) -> int:
    """How many different numbers the integers 0 … below - 1 become. 1,025 of 16,384 in bfloat16: positions collide."""
    distinct: Tensor = round_to(torch.arange(below, dtype=torch.float64), format).unique()
    return distinct.numel()


def first_missing_integer(format: NumberFormat) -> int:
    """The smallest positive integer that the format rounds to another: 257 in bfloat16, 2,049 in float16."""
    return (1 << format.fraction_bits + 1) + 1


def table() -> pandas.DataFrame:
    """All formats side by side, one row format."""
    rows = [
        {
            "format": format.name,
            "bits": format.bits,
            "exponent bits": format.exponent_bits,
            "fraction bits": format.fraction_bits,
            "largest": format.largest,
            "smallest normal": format.smallest_normal,
            "smallest subnormal": format.smallest_subnormal,
            "epsilon": format.epsilon,
            "first missing integer": first_missing_integer(format),
            f"integers below {CONTEXT:,}": distinct_integers(format, CONTEXT),
        }
        for format in FORMATS.values()
    ]
    return pandas.DataFrame(rows).set_index("format")
