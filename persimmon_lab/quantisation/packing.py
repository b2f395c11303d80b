"""How codes of four bits lie in memory: two to a byte, in the order that this machine's product wants them.

On disk a byte holds two neighbours of a row, the first in its low half: `to_pairs`. torch's product on a CPU takes
blocks of rows instead, in which a byte holds one input of two rows. How many rows a block has, and which of them share
a byte, depends on the processor and is written nowhere but in its code, so `torch_layout` looks at what torch makes of
codes that tell their rows.
"""

import functools
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import UInt8
from torch import Tensor

Codes = UInt8[Tensor, "output input"]
Pairs = UInt8[Tensor, "output pair"]
Blocks = UInt8[Tensor, "block input byte"]

ROWS = 64  # a whole number of blocks in every layout
NIBBLE = 16  # codes of four bits


def to_pairs(codes: Codes) -> Pairs:
    """Two neighbours of a row to a byte, the first in the low half."""
    low, high = rearrange(codes, "output (pair two) -> two output pair", two=2)
    pairs: Pairs = low | high << 4
    return pairs


def from_pairs(pairs: Pairs) -> Codes:
    return rearrange([pairs & NIBBLE - 1, pairs >> 4], "two output pair -> output (pair two)")


@dataclass(frozen=True)
class Layout:
    """Blocks of `rows` rows. In each block and for each input, byte j holds the codes of row `order[j]`, in its low
    half, and of row `order[rows // 2 + j]`."""

    rows: int
    order: tuple[int, ...]

    def pack(self, codes: Codes) -> Blocks:
        """Whole blocks of codes."""
        blocks = rearrange(codes, "(block row) input -> block input row", row=self.rows)
        low, high = rearrange(blocks[:, :, list(self.order)], "block input (two byte) -> two block input byte", two=2)
        packed: Blocks = low | high << 4
        return packed

    def halves(self, blocks: Blocks) -> UInt8[Tensor, "block input row"]:
        """The codes of each block, its rows in the order of `order`."""
        return torch.cat((blocks & NIBBLE - 1, blocks >> 4), dim=-1)

    def unpack(self, blocks: Blocks) -> Codes:
        """What `pack` was given."""
        codes = self.halves(blocks)[:, :, list(self.places)]
        return rearrange(codes, "block input row -> (block row) input")

    @property
    def places(self) -> tuple[int, ...]:
        """Where each row of a block stands in `order`."""
        return tuple(self.order.index(row) for row in range(self.rows))


PORTABLE = Layout(32, tuple(range(32)))
"""Where torch has no product of its own; it has the same shape on every machine."""


@functools.cache
def torch_layout() -> Layout | None:
    """The layout of torch's int4 product on this processor; None where torch has none, or one of another kind."""
    rows = rearrange(torch.arange(ROWS), "row -> row 1").expand(-1, 32)
    try:
        units, sixteens = (_packed_by_torch(digit) for digit in (rows % NIBBLE, rows // NIBBLE))
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    for size in (64, 32, 16):
        first = slice(0, size // 2)  # the bytes of the first block's first input
        halves = [
            (units.flatten()[first] >> shift & NIBBLE - 1) + NIBBLE * (sixteens.flatten()[first] >> shift & NIBBLE - 1)
            for shift in (0, 4)
        ]
        layout = Layout(size, tuple(torch.cat(halves).tolist()))
        if sorted(layout.order) == list(range(size)) and _is_what_torch_packs(layout):
            return layout
    return None


def layout_here() -> Layout:
    """The layout in which weights are kept on this machine."""
    return torch_layout() or PORTABLE


def _is_what_torch_packs(layout: Layout) -> bool:
    codes = torch.randint(NIBBLE, (2 * ROWS, 64), generator=torch.Generator().manual_seed(0))
    return torch.equal(_packed_by_torch(codes).flatten(), layout.pack(codes.to(torch.uint8)).flatten())


def _packed_by_torch(codes: Tensor) -> Tensor:
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32).contiguous(), 1)
    return packed
