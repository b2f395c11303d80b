"""Where each code lies, written out."""

import pytest
import torch

from persimmon_lab.quantisation import packing
from persimmon_lab.quantisation.packing import PORTABLE, Layout, from_pairs, layout_here, to_pairs, torch_layout

SHUFFLED = Layout(64, tuple(torch.randperm(64, generator=torch.Generator().manual_seed(3)).tolist()))


def codes(rows: int = 128, columns: int = 64) -> torch.Tensor:
    return torch.randint(16, (rows, columns), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def test_the_first_of_a_pair_is_the_low_half():
    assert to_pairs(torch.tensor([[1, 2, 15, 0]], dtype=torch.uint8)).tolist() == [[0x21, 0x0F]]
    assert torch.equal(from_pairs(to_pairs(codes())), codes())


@pytest.mark.parametrize("layout", [PORTABLE, SHUFFLED, layout_here()], ids=["portable", "shuffled", "here"])
def test_layouts_give_back_what_they_took(layout):
    packed = layout.pack(codes())
    assert packed.shape == (128 // layout.rows, 64, layout.rows // 2)
    assert torch.equal(layout.unpack(packed), codes())


@pytest.mark.parametrize("layout", [PORTABLE, SHUFFLED], ids=["portable", "shuffled"])
def test_each_code_is_where_the_layout_says(layout):
    given, packed, half = codes(), layout.pack(codes()), layout.rows // 2
    for block, column, byte in [(0, 0, 0), (0, 3, 5), (1, 63, half - 1), (1, 7, 2)]:
        both = int(packed[block, column, byte])
        rows = [block * layout.rows + layout.order[byte], block * layout.rows + layout.order[half + byte]]
        assert [both & 15, both >> 4] == given[rows, column].tolist()


@pytest.mark.skipif(torch_layout() is None, reason="torch has no int4 product for this processor")
def test_it_is_the_layout_that_torch_makes():
    given = codes(192, 96)
    by_torch = torch.ops.aten._convert_weight_to_int4pack_for_cpu(given.to(torch.int32), 1)
    assert torch.equal(torch_layout().pack(given).flatten(), by_torch.flatten())


def test_a_layout_that_is_not_understood_is_not_used(monkeypatch):
    """A processor whose blocks hold something else gets the portable layout, and with it emulation."""
    monkeypatch.setattr(packing, "_packed_by_torch", lambda codes: codes.to(torch.uint8))
    torch_layout.cache_clear()
    try:
        assert torch_layout() is None
        assert layout_here() is PORTABLE
    finally:
        torch_layout.cache_clear()
