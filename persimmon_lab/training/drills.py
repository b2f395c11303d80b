"""Copying drills: rows in which something comes twice, so that the model must learn to look back and copy.

Natural text repeats itself rarely within 256 tokens; a share of such rows lets induction heads form early (Olsson et
al. 2022, "In-context learning and induction heads").
"""

import math

import numpy as np
from jaxtyping import Integer

Stream = Integer[np.ndarray, "_token"]  # a name with _ may stand for a different length each time


def repetition(generator: np.random.Generator, length: int, source: Stream) -> Stream:
    """The first tokens of `source`, again and again until the row is full; in every other row with a gap between.

    The period is drawn evenly on a logarithmic scale, from 3 to a third of the row: short periods are the easy first
    lessons, and since it changes from row to row, the model cannot learn to copy from a fixed distance.
    """
    size = round(math.exp(generator.uniform(math.log(3), math.log(length // 3))))
    gap = int(generator.integers(0, size // 2 + 1)) if generator.random() < 0.5 else 0
    block, between = source[:size], source[size : size + gap]
    row = np.concatenate([block, between])
    while len(row) < length:
        row = np.concatenate([row, block, generator.permutation(between.copy())])
    return row[:length]


def quotation(generator: np.random.Generator, length: int, source: Stream) -> Stream:
    """A stretch of real text that, after a while, quotes a passage of itself word for word, and then goes on."""
    row = source[:length].copy()
    size = int(generator.integers(length // 8, length // 3))
    start = int(generator.integers(0, length // 3))
    target = int(generator.integers(start + size, length - size + 1))
    row[target : target + size] = row[start : start + size]
    return row


def drill(generator: np.random.Generator, length: int, text: Stream, first: int, vocabulary: int) -> Stream:
    """One row: random pieces (`first` ... `vocabulary` - 1), shuffled text or plain text that repeat; or a quotation.

    Nothing but the earlier copy predicts a random piece. Text, shuffled or not, is made of the pieces that the model
    knows best, where copying is learned first.
    """
    kind = generator.choice(["random", "shuffled", "text", "quotation"], p=[0.35, 0.3, 0.2, 0.15])
    if kind == "quotation":
        return quotation(generator, length, text)
    if kind == "random":
        return repetition(generator, length, generator.integers(first, vocabulary, size=length))
    if kind == "shuffled":
        text = generator.permutation(text.copy())  # a stream is mapped read-only, and permutation asks to write
    return repetition(generator, length, text)
