"""Rounding against numpy, and what it may cost at the most."""

import numpy as np
import pytest
import torch

from persimmon_lab.quantisation.rounding import int4_values, int8_scales, int8_values, round_int4, round_int8
from tests.quantisation import in_numpy

ROWS, COLUMNS = 6, 96


def weights(seed: int = 0) -> torch.Tensor:
    """Float64, so that no rounding but the one under test comes in. Every row and every group is of another size, and
    none is centred on 0: a scale by the wrong axis or a zero of the wrong sign gives other numbers."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(ROWS, COLUMNS, dtype=torch.float64, generator=generator)
    weight *= torch.linspace(0.1, 3, ROWS, dtype=torch.float64)[:, None]
    return weight + torch.linspace(-1, 2, COLUMNS, dtype=torch.float64)


def test_int8_is_that_of_numpy():
    weight = weights()
    codes, scales = round_int8(weight, torch.float64)
    right_codes, right_scales = in_numpy.int8(weight.numpy())
    np.testing.assert_array_equal(codes.numpy(), right_codes)
    np.testing.assert_allclose(scales.numpy(), right_scales, rtol=1e-15)
    np.testing.assert_allclose(int8_values(codes, scales, torch.float64).numpy(), right_codes * right_scales[:, None])


def test_int4_is_that_of_numpy():
    weight = weights()
    codes, scales, zeros = round_int4(weight, torch.float64)
    right = in_numpy.int4(weight.numpy())
    np.testing.assert_array_equal(codes.numpy(), right[0])
    np.testing.assert_allclose(scales.numpy(), right[1], rtol=1e-15)
    np.testing.assert_allclose(zeros.numpy(), right[2], rtol=1e-12)
    values = int4_values(codes, scales, zeros, torch.float64)
    np.testing.assert_allclose(values.numpy(), in_numpy.int4_values(*right), rtol=1e-12)


def test_the_ends_are_kept():
    """The largest magnitude of a row has the last code, the least and the most of a group the first and the last."""
    weight = weights()
    codes, scales = round_int8(weight, torch.float64)
    assert codes.abs().amax(dim=1).tolist() == [127] * ROWS
    torch.testing.assert_close(int8_values(codes, scales, torch.float64).abs().amax(1), weight.abs().amax(1))
    codes, scales, zeros = round_int4(weight, torch.float64)
    groups, rounded = (t.unflatten(1, (-1, 32)) for t in (weight, int4_values(codes, scales, zeros, torch.float64)))
    assert codes.min() == 0
    assert codes.max() == 15
    torch.testing.assert_close(rounded.amin(-1), groups.amin(-1))
    torch.testing.assert_close(rounded.amax(-1), groups.amax(-1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_no_weight_moves_by_more_than_half_a_step(dtype):
    """And by the rounding of the scale at the ends, where the codes end: 8 bits of bfloat16."""
    weight = weights()
    slack = 1 + 256 * torch.finfo(dtype).eps
    codes, scales = round_int8(weight, dtype)
    moved = (int8_values(codes, scales, torch.float64) - weight).abs() / scales[:, None].double()
    assert moved.max() <= 0.5 * slack
    codes, scales, zeros = round_int4(weight, dtype)
    assert scales.dtype == zeros.dtype == dtype
    moved = (int4_values(codes, scales, zeros, torch.float64) - weight).abs().unflatten(1, (-1, 32))
    steps = moved / scales[..., None].double()
    assert steps.max() <= 0.5 + 16 * torch.finfo(dtype).eps
    assert steps.max() > 0.45  # else the steps are smaller than they need be


def test_codes_are_chosen_for_the_scales_that_are_stored():
    """In bfloat16 a scale is off by up to one part in 256, which 127 steps make half a step of: choosing the codes for
    the unrounded scale gives values that are further off."""
    weight = weights(1)
    codes, scales = round_int8(weight, torch.bfloat16)
    exact = (weight / int8_scales(weight)[:, None]).round().to(torch.int8)
    error, other = ((int8_values(c, scales, torch.float64) - weight).square().mean() for c in (codes, exact))
    assert error < 0.9 * other


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_equal_weights_are_exact(value):
    weight = torch.full((3, 64), value)
    codes, scales, zeros = round_int4(weight, torch.float32)
    assert torch.equal(int4_values(codes, scales, zeros, torch.float32), weight)
    codes, scales = round_int8(torch.zeros(3, 64), torch.float32)
    assert torch.equal(scales, torch.ones(3))
    assert not codes.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("round_weight", [round_int8, round_int4])
def test_what_is_not_finite_is_refused(value, round_weight):
    weight = torch.ones(2, 32)
    weight[1, 5] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        round_weight(weight, torch.float32)


def test_groups_have_to_fit():
    with pytest.raises(ValueError, match=r"rows of 48 weights are no whole number of groups of 32: take int8"):
        round_int4(torch.ones(2, 48), torch.float32)
