"""Parts that are put together as they are read give the tensor that they were cut from, and nothing goes unchecked."""

import pytest
import torch
from torch import Tensor

from persimmon_lab.adept.merging import Finite, Merged, merge, same_bits, unequal_copies
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import InMemory, read

COLUMNS, ROWS = "model.layers.0.mlp.dense_h_to_4h.weight", "model.layers.0.mlp.dense_4h_to_h.weight"
ALIKE = "model.layers.0.mlp.dense_4h_to_h.bias"


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def sources(tensor: Tensor, sizes: list[int], dimension: int) -> list[InMemory]:
    return [InMemory(part) for part in tensor.split(sizes, dimension)]


class Checked(InMemory):
    """A source that says, when its pieces were all taken, that it was damaged."""

    def pieces(self, rows):
        yield from super().pieces(rows)
        raise CheckpointError("damaged")


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
@pytest.mark.parametrize(("name", "dimension", "sizes"), [(COLUMNS, 0, [5, 5, 1]), (ROWS, 1, [2, 4, 1])])
def test_parts_give_the_whole(rows, name, dimension, sizes):
    tensor = drawn(11, 7, dtype=torch.bfloat16)
    merged = merge(name, sources(tensor, sizes, dimension))
    pieces = list(merged.pieces(rows))
    assert torch.equal(torch.cat(pieces), tensor)
    assert max(map(len, pieces)) <= rows
    assert (merged.shape, merged.dtype, merged.nbytes) == ((11, 7), torch.bfloat16, tensor.nbytes)


@pytest.mark.parametrize(("name", "dimension"), [(COLUMNS, 0), (ROWS, 1)])
@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_every_part_is_read_to_its_end(name, dimension, damaged):
    parts = sources(drawn(6, 6), [2, 2, 2], dimension)
    parts[damaged] = Checked(parts[damaged].tensor)
    with pytest.raises(CheckpointError, match="damaged"):
        read(merge(name, parts))


def test_an_only_part_and_copies_stay_what_they_are():
    one, other = InMemory(drawn(3)), InMemory(drawn(3))
    assert merge(COLUMNS, [one]) is one
    assert merge(ALIKE, [one, other]) is one


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (COLUMNS, [drawn(2, 3), drawn(2, 4)]),
        (ROWS, [drawn(2, 3), drawn(1, 3)]),
        (COLUMNS, [drawn(2, 3), drawn(2, 3).half()]),
        (COLUMNS, [drawn(2, 3), drawn(2)]),
        (ALIKE, [drawn(2), drawn(3)]),
    ],
)
def test_parts_that_do_not_fit(name, parts):
    with pytest.raises(CheckpointError, match=rf"the ranks' parts of {name} do not fit together: \(2,.* torch.float32"):
        merge(name, [InMemory(part) for part in parts])


# To the bit


def test_same_bits():
    """Whatever the pieces that the two come in; shapes and dtypes count, and so does the sign of zero."""
    tensor = drawn(11, 3)
    for cut in ([11], [1, 10], [4, 4, 3], [10, 1]):
        assert same_bits(InMemory(tensor), Merged(sources(tensor, cut, 0), 0))
        assert same_bits(Merged(sources(tensor, cut, 0), 0), Merged(sources(tensor, [3, 8], 0), 0))
    for row in range(11):
        other = tensor.clone()
        other[row, 1] = torch.nextafter(other[row, 1], torch.tensor(9.0))
        assert not same_bits(InMemory(tensor), Merged(sources(other, [4, 4, 3], 0), 0))
    assert not same_bits(InMemory(tensor), InMemory(tensor.double()))
    assert not same_bits(InMemory(tensor.half()), InMemory(tensor.half().view(torch.bfloat16)))
    assert not same_bits(InMemory(tensor), InMemory(tensor.T.contiguous()))
    assert not same_bits(InMemory(torch.tensor([0.0])), InMemory(torch.tensor([-0.0])))
    assert same_bits(InMemory(torch.tensor([torch.nan])), InMemory(torch.tensor([torch.nan])))


def test_same_bits_reads_both_to_their_end(monkeypatch):
    monkeypatch.setattr("persimmon_lab.adept.merging.BITE", 6)
    tensor = drawn(8, 3)
    for pair in ([InMemory(tensor), Checked(tensor)], [Checked(tensor), InMemory(tensor)]):
        with pytest.raises(CheckpointError, match="damaged"):
            same_bits(*pair)


def test_copies_that_differ_are_named_with_their_ranks():
    same, other = InMemory(drawn(4)), InMemory(drawn(4) + 1)
    shared_out = {COLUMNS: [same, other], ROWS: [same, other]}
    assert unequal_copies({ALIKE: [same, same]} | shared_out) == []
    assert unequal_copies({ALIKE: [same, same, other, same], "model.final_layernorm.bias": [same, other]}) == [
        f"{ALIKE} (tensor ranks 0 and 2)", "model.final_layernorm.bias (tensor ranks 0 and 1)"
    ]  # fmt: skip


# Finite


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("row", [0, 50, 99])
def test_numbers_that_are_not_finite(dtype, value, row):
    tensor = drawn(100, 700, dtype=dtype)
    assert torch.equal(read(Finite("x", InMemory(tensor), dtype)), tensor)
    tensor[row, 699] = value
    with pytest.raises(CheckpointError, match="model.x holds numbers that are not finite"):
        read(Finite("model.x", InMemory(tensor), dtype))


@pytest.mark.parametrize("value", [65520.0, -1e5])
def test_numbers_that_do_not_fit(value):
    """65519 still rounds to float16's largest, 65504; 65520 does not."""
    tensor = drawn(10, 10)
    tensor[4, 4] = 65519.0
    fits = Finite("model.x", InMemory(tensor), torch.float16)
    assert (read(fits).max(), fits.nbytes) == (65504, 200)
    tensor[4, 4] = value
    with pytest.raises(
        CheckpointError, match=rf"model.x does not fit into torch.float16, .* 65504: it reaches {abs(value):g}"
    ):
        read(fits)


def test_conversion_rounds_as_torch_does():
    tensor = drawn(300, 300, dtype=torch.float64)
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert torch.equal(read(Finite("x", InMemory(tensor), dtype)), tensor.to(dtype))
