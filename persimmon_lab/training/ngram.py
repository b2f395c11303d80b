"""A 5-gram model over the same pieces: the baseline that a language model has to beat.

Interpolated Kneser-Ney (Chen and Goodman 1999), with one discount per order:

    p_n(w | h) = max(c(h w) - d, 0) / c(h) + d N(h .) / c(h) p_(n-1)(w | h')

where the orders below the highest count in how many contexts an n-gram stands, not how often.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

BITS = 12  # a piece fits 12 bits (4,096 of them), five pieces fit an int64


class NGram:
    """Counts of a token stream, as sorted keys; `log2_probabilities` looks them up."""

    def __init__(self, stream: Integer[np.ndarray, "token"], order: int = 5) -> None:
        if len(stream) and int(stream.max()) >> BITS:
            raise ValueError(f"token {int(stream.max())} does not fit {BITS} bits; the keys pack {order} tokens each")
        self.order = order
        keys, counts = np.unique(pack(stream, order), return_counts=True)
        self.tables = [_table(keys, counts)]
        for shorter in range(order - 1, 0, -1):
            keys, counts = np.unique(keys & ((1 << BITS * shorter) - 1), return_counts=True)  # forget the first piece
            self.tables.insert(0, _table(keys, counts))

    def log2_probabilities(self, stream: Integer[np.ndarray, "token"]) -> Float[np.ndarray, "target"]:
        """log2 p of each token from the `order`-th of the stream on, given the `order` - 1 before it."""
        grams = pack(stream, self.order)
        probability = np.full(len(grams), 2.0**-BITS)
        for length, table in enumerate(self.tables, start=1):
            gram = grams & ((1 << BITS * length) - 1)
            count = _look_up(table.keys, table.counts, gram)
            total = _look_up(table.contexts, table.totals, gram >> BITS)
            kinds = _look_up(table.contexts, table.followers, gram >> BITS)
            seen = np.maximum(total, 1)
            here = np.maximum(count - table.discount, 0) / seen + table.discount * kinds / seen * probability
            probability = np.where(total > 0, here, probability)
        bits: Float[np.ndarray, target] = np.log2(probability)
        return bits


def pack(stream: Integer[np.ndarray, "token"], order: int) -> Integer[np.ndarray, "gram"]:
    """Each run of `order` tokens as one integer, the oldest in the highest bits."""
    tokens = np.asarray(stream, dtype=np.int64)
    if len(tokens) < order:
        raise ValueError(f"a stream of {len(tokens)} tokens has no run of {order}; give more text")
    keys = np.zeros(len(tokens) - order + 1, dtype=np.int64)
    for offset in range(order):
        keys = (keys << BITS) | tokens[offset : offset + len(keys)]
    return keys


class _Table(NamedTuple):
    """The n-grams of one length and how often each counts; their contexts, how often and before how many kinds."""

    keys: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    followers: np.ndarray
    discount: float


def _table(keys: np.ndarray, counts: np.ndarray) -> _Table:
    contexts, first, followers = np.unique(keys >> BITS, return_index=True, return_counts=True)
    totals = np.add.reduceat(counts, first)
    once, twice = (counts == 1).sum(), (counts == 2).sum()
    discount = once / (once + 2 * twice) if once else 0.5  # a tiny text without rare grams still leaves room for news
    return _Table(keys, counts, contexts, totals, followers, discount)


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where it is not among the sorted keys."""
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, values[index], 0)
