"""Copying drills: rows in which something comes twice, so that the model must learn to look back and copy.

Natural text repeats itself rarely within 256 tokens; a few per cent of such rows are enough for induction heads to form
early (Olsson et al. 2022, "In-context learning and induction heads").
"""

import numpy as np
from jaxtyping import Integer

Stream = Integer[np.ndarray, "_token"]  # a name with _ may stand for a different length each time


def repeated_pieces(generator: np.random.Generator, length: int, first: int, vocabulary: int) -> Stream:
    """Random pieces, drawn from first ... vocabulary - 1, said again and again after a gap of other random pieces.

    Nothing but the earlier copy predicts the second one. The period changes from row to row, so that the model cannot
    learn to copy from a fixed distance.
    """
    block = generator.integers(first, vocabulary, size=generator.integers(8, max(9, length // 2)))
    gap = generator.integers(first, vocabulary, size=generator.integers(0, max(1, len(block) // 2)))
    row = np.concatenate([block, gap])
    while len(row) < length:
        row = np.concatenate([row, block, generator.permutation(gap)])
    return row[:length]


def quotation(generator: np.random.Generator, length: int, source: Stream) -> Stream:
    """A stretch of real text that, after a while, quotes a passage of itself word for word, and then goes on."""
    row = source[:length].copy()
    size = int(generator.integers(length // 8, length // 3))
    start = int(generator.integers(0, length // 3))
    target = int(generator.integers(start + size, length - size + 1))
    row[target : target + size] = row[start : start + size]
    return row
