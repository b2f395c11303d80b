"""The table of tolerances stands to the formats as its comments say."""

import pytest
import torch

from persimmon_lab.numerics.formats import format_of, spacing
from persimmon_lab.numerics.tolerances import ANSWERS, ELEMENTS, ENGINES, NORMS, PRODUCTS, coarser


def steps(tolerance: float, dtype: torch.dtype, at: float) -> float:
    """How many steps of the format around a number the tolerance is."""
    return tolerance / float(spacing(torch.tensor(at, dtype=torch.float64), format_of(dtype)))


def test_elements_and_engines_in_steps_of_the_format():
    counted = {dtype: round(steps(tolerance, dtype, 5.0)) for dtype, tolerance in ELEMENTS.items()}
    assert counted[torch.float16] == counted[torch.bfloat16] == 2
    assert 90 < counted[torch.float32] < 120 and 10_000 < counted[torch.float64] < 12_000
    assert [round(steps(ENGINES[dtype], dtype, 5.0)) for dtype in (torch.float16, torch.bfloat16)] == [5, 5]


@pytest.mark.parametrize("tolerances", [ELEMENTS, NORMS, PRODUCTS, ENGINES])
def test_every_tolerance_is_above_the_rounding_of_its_format(tolerances):
    for dtype, tolerance in tolerances.items():
        assert tolerance > format_of(dtype).epsilon / 2


def test_an_answer_is_above_the_rounding_of_its_phases():
    assert steps(ANSWERS, torch.float32, 300.0) > 1


def test_the_coarser_dtype_counts():
    assert coarser(torch.float64, torch.bfloat16, NORMS) == coarser(torch.bfloat16, torch.float16, NORMS) == 5e-2
    assert coarser(torch.float32, torch.float32, NORMS) == 1e-5
    with pytest.raises(ValueError, match="no tolerance is known for torch.float8_e5m2, only for float64, float32"):
        coarser(torch.float32, torch.float8_e5m2, NORMS)
