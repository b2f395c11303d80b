"""Several documents in one row, none of which sees another: short ones then cost what they are long."""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from persimmon_lab.finetuning.encoding import Encoded
from persimmon_lab.losses import IGNORED

FILLER = 0  # the id at places that no document has; nothing sees or learns it


class Packed(NamedTuple):
    """Rows for the model, each (row position): `model(input_ids, position_ids=position_ids, use_cache=False)`.

    Positions begin again at 0 with every document, which is how the model knows where one ends (`inputs.documents_of`);
    with a mask or a cache it would let them see each other. Labels stand at their own positions, and the first one of
    every document is -100: what would predict it is the document before. What is left of a row is one more document
    that is not learned.
    """

    input_ids: Int[Tensor, "row position"]
    position_ids: Int[Tensor, "row position"]
    labels: Int[Tensor, "row position"]

    @property
    def targets(self) -> Int[Tensor, "row position"]:
        """The labels where they are predicted, one place earlier, as `linear_cross_entropy` takes them."""
        return torch.nn.functional.pad(self.labels[:, 1:], (0, 1), value=IGNORED)

    @property
    def target_count(self) -> int:
        """How many labels count."""
        return int((self.labels != IGNORED).sum())

    def to(self, device: torch.device) -> "Packed":
        return Packed(*(tensor.to(device) for tensor in self))


def pack(encoded: Sequence[Encoded], length: int) -> Packed:
    """All documents in as few rows of at most `length` as filling them in order gives; see `fill_rows`.

    The rows are as long as the fullest. Raises ValueError for a document that is longer than `length`, and where there
    is none.
    """
    rows = fill_rows([len(document.input_ids) for document in encoded], length)
    return lay_out([[encoded[index] for index in row] for row in rows])


def fill_rows(lengths: Sequence[int], length: int) -> list[list[int]]:
    """Which documents share a row: each goes, in its turn, to the row that it fills best, or begins a new one.

    Raises ValueError for a document that is longer than `length`.
    """
    rows: list[list[int]] = []
    open_rows: list[tuple[int, int]] = []  # (places left, which row), the fullest first
    for index, needed in enumerate(lengths):
        if needed > length:
            raise ValueError(
                f"document {index} has {needed} tokens and a row {length}; encode it with max_length={length}"
            )
        where = bisect.bisect_left(open_rows, (needed, -1))
        if where < len(open_rows):
            left, row = open_rows.pop(where)
            rows[row].append(index)
        else:
            left, row = length, len(rows)
            rows.append([index])
        bisect.insort(open_rows, (left - needed, row))
    return rows


def lay_out(rows: Sequence[Sequence[Encoded]]) -> Packed:
    """Rows of documents as tensors, filled up to the longest row. Raises ValueError where there are none."""
    if not rows:
        raise ValueError("no documents to pack; give one or more")
    widest = max(sum(len(document.input_ids) for document in row) for row in rows)
    shape = len(rows), widest
    packed = Packed(torch.full(shape, FILLER), torch.empty(shape, dtype=torch.int64), torch.full(shape, IGNORED))
    for row, documents in enumerate(rows):
        start = 0
        for document in documents:
            stop = start + len(document.input_ids)
            packed.input_ids[row, start:stop] = torch.tensor(document.input_ids)
            packed.labels[row, start:stop] = torch.tensor(document.labels)
            packed.labels[row, start] = IGNORED
            packed.position_ids[row, start:stop] = torch.arange(stop - start)
            start = stop
        packed.position_ids[row, start:] = torch.arange(widest - start)
    return packed
