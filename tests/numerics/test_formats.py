"""What the table of formats says is what torch's own dtypes do."""

import math

import pytest
import torch

from persimmon_lab.numerics.formats import (
    FORMATS,
    distinct_integers,
    first_missing_integer,
    format_of,
    round_to,
    spacing,
    table,
)

IN_TORCH = [each for each in FORMATS.values() if each.torch_dtype is not None]
ROUNDED = [each for each in IN_TORCH if each.name != "float64"]
of_torch = pytest.mark.parametrize("format", IN_TORCH, ids=lambda each: each.name)
rounded = pytest.mark.parametrize("format", ROUNDED, ids=lambda each: each.name)


def patterns(dtype: torch.dtype) -> torch.Tensor:
    """Every number that a 16-bit dtype holds, in float32, infinities included."""
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).float()
    return numbers[~numbers.isnan()]


def any_float32(count: int = 300_000) -> torch.Tensor:
    """Random bits: every exponent comes up, subnormals and infinities too."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(-(2**31), 2**31, (count,), generator=generator).int().view(torch.float32)
    return numbers[~numbers.isnan()]


def is_same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    """To the bit; a zero has a sign."""
    return ours.dtype == theirs.dtype and torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


@of_torch
def test_limits_are_torchs(format):
    told = torch.finfo(format.torch_dtype)
    assert format.bits == told.bits
    assert format.largest == told.max
    assert format.epsilon == told.eps
    assert format.smallest_normal == told.smallest_normal
    assert format_of(format.torch_dtype) is format


@of_torch
def test_the_smallest_number_is_the_bit_pattern_one(format):
    signed = {8: torch.int8, 16: torch.int16, 32: torch.int32, 64: torch.int64}[format.bits]
    assert float(torch.tensor(1, dtype=signed).view(format.torch_dtype).double()) == format.smallest_subnormal


@rounded
@pytest.mark.parametrize("numbers", [patterns(torch.float16), patterns(torch.bfloat16), any_float32()],
                         ids=["every float16", "every bfloat16", "random float32"])  # fmt: skip
def test_rounding_is_torchs_cast(format, numbers):
    assert is_same(round_to(numbers, format), numbers.to(format.torch_dtype).float())


@rounded
def test_ties_go_to_the_even_neighbour(format):
    """Halfway between neighbours, of which one has an even last bit: the hardest inputs of a rounding."""
    held = round_to(any_float32(20_000), format)
    held = held[held.abs() < format.largest].double()
    halfway = held + spacing(held, format).copysign(held) / 2
    assert torch.equal(round_to(halfway, format), halfway.float().to(format.torch_dtype).double())


def test_tf32_is_float32_with_the_fraction_of_float16():
    numbers = any_float32()
    ours = round_to(numbers, FORMATS["tf32"])
    kept = numbers.abs().log2().floor().isfinite() & (numbers.abs() > 1e-30) & (numbers.abs() < 1e30)
    scale = torch.exp2(numbers[kept].double().abs().log2().floor())
    fraction = numbers[kept].double() / scale  # between 1 and 2: float16 rounds it to ten bits
    assert torch.equal(ours[kept].double(), fraction.half().double() * scale)
    assert torch.equal(ours.view(torch.int32) & 0x1FFF, torch.zeros_like(ours, dtype=torch.int32))
    assert round_to(torch.tensor(3.4028e38), FORMATS["tf32"]).isinf()


def test_a_float64_is_rounded_once():
    """Just above halfway between 1 and the next bfloat16. By way of float32 it becomes halfway, and then 1."""
    just_above = torch.tensor(1 + 2**-8 + 2**-40, dtype=torch.float64)
    assert float(round_to(just_above, FORMATS["bfloat16"])) == 1 + 2**-7
    assert float(just_above.bfloat16()) == 1


def test_float64_holds_every_float64():
    numbers = torch.tensor([math.pi, -5e-324, 1.7976931348623157e308, -0.0, math.inf], dtype=torch.float64)
    ours = round_to(numbers, FORMATS["float64"])
    assert torch.equal(ours.view(torch.int64), numbers.view(torch.int64))


def test_nan_stays_nan():
    for format in FORMATS.values():
        assert round_to(torch.tensor([math.nan, -math.nan]), format).isnan().all()
        assert spacing(torch.tensor(math.nan), format).isnan()


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3", "float8_e5m2"])
def test_spacing_is_the_distance_to_the_next_pattern(name):
    """Positive numbers in order of their bits are in order of size: subtract neighbours."""
    format = FORMATS[name]
    bits = 2 ** (format.bits - 1)
    signed = torch.int16 if format.bits == 16 else torch.int8
    numbers = torch.arange(bits).to(signed).view(format.torch_dtype).double()
    numbers = numbers[numbers <= format.largest]
    assert torch.equal(spacing(numbers[:-1], format), numbers[1:] - numbers[:-1])
    assert torch.equal(spacing(-numbers, format), spacing(numbers, format))


def test_integers_that_collide():
    """FACTS of Persimmon's positions, counted again by torch's cast."""
    integers = torch.arange(16384).float()
    for name, count, largest_group in (("bfloat16", 1025, 65), ("float16", 5121, 9)):
        assert distinct_integers(FORMATS[name], 16384) == count
        values, groups = integers.to(FORMATS[name].torch_dtype).unique(return_counts=True)
        assert len(values) == count
        # Halfway cases go to the even neighbour, which so gets one from either side.
        assert int(groups.max()) == largest_group
    assert distinct_integers(FORMATS["float32"], 16384) == 16384


@of_torch
def test_the_first_missing_integer(format):
    missing = first_missing_integer(format)
    held = torch.tensor([missing - 1, missing, missing + 1], dtype=torch.int64)
    survives = held.to(format.torch_dtype).double().long() == held
    assert survives.tolist() == [True, False, True]


def test_the_table_has_a_row_per_format():
    frame = table()
    assert list(frame.index) == list(FORMATS)
    assert frame.loc["bfloat16", ["bits", "exponent bits", "fraction bits"]].tolist() == [16, 8, 7]
    assert frame.loc["float16", "largest"] == 65504
    assert frame.loc["float16", "integers below 16,384"] == 5121
    assert frame.loc["float8_e4m3", "largest"] == 448


def test_integers_have_no_format():
    with pytest.raises(ValueError, match=r"torch.int32 is none of the formats float64, .*floating-point"):
        format_of(torch.int32)
