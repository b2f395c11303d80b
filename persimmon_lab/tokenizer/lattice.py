"""Every way to cut a text into pieces, as a graph, and what can be asked of it.

The positions in a text are nodes. Each piece of the vocabulary that matches is an arc over the characters it covers,
with its log-probability. A segmentation is a path from one end to the other, and its log-probability the sum over its
arcs: Unigram takes pieces as drawn one by one, each without a look at the others.

    best path        sentencepiece's segmentation               max over paths of the sum of scores
    n best paths     its runners-up
    log_total        the text itself, however it is cut         log of the sum over paths of exp(sum of scores)
    probabilities    how likely each arc is, given the text

sentencepiece does the first in C++, and `PersimmonTokenizer` uses that. This is the same in plain Python, to the same
ids, for whoever wants to see what else a text could have been. `Unigram` in `unigram` makes lattices.

Source: Kudo 2018, "Subword Regularization", section 3; sentencepiece's unigram_model.cc, EncodeOptimized.
"""

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from heapq import nlargest


@dataclass(frozen=True)
class Arc:
    """A piece over the characters `text[start:end]` of its lattice.

    Several `ids` where a character outside the vocabulary falls back to its UTF-8 bytes; the score is then that of the
    unknown piece, once, however many bytes there are.
    """

    start: int
    end: int
    text: str
    score: float
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Segmentation:
    """A path through a lattice; `score` is its log-probability."""

    arcs: tuple[Arc, ...]
    score: float

    @property
    def ids(self) -> list[int]:
        return [token_id for arc in self.arcs for token_id in arc.ids]

    @property
    def pieces(self) -> list[str]:
        return [arc.text for arc in self.arcs]


class Lattice:
    """The arcs over one text, and the paths through them. Arcs are in the order of their starts, then of their ends.

    ValueError where an arc leaves the text, or is empty.
    """

    def __init__(self, text: str, arcs: Iterable[Arc]) -> None:
        self.text = text
        self.arcs = tuple(sorted(arcs, key=lambda arc: (arc.start, arc.end)))
        self._ending: list[list[int]] = [[] for _ in range(len(text) + 1)]
        for index, arc in enumerate(self.arcs):
            if not 0 <= arc.start < arc.end <= len(text):
                raise ValueError(
                    f"an arc from {arc.start} to {arc.end} has no place in a text of {len(text)} characters"
                )
            self._ending[arc.end].append(index)

    def best(self) -> Segmentation:
        """The most probable path (Viterbi). Of two that are equally probable the one whose last pieces are longer.

        ValueError where no path leads through the text.
        """
        return self.n_best(1)[0]

    def n_best(self, count: int) -> list[Segmentation]:
        """The `count` most probable paths, or all there are, the best first.

        At each position the best `count` ways to get there are kept, each as its score, its last arc and its rank among
        the ways to where that arc starts. ValueError for a count below 1, or where no path leads through the text.

        Trap: scores are rounded to float32 at every position, as sentencepiece does it. Paths that tie exactly may
        differ in the last bit of a sum; with more digits another one of them would win.
        """
        if count < 1:
            raise ValueError(f"count={count}: ask for at least one segmentation")
        ways: list[list[tuple[float, int, int]]] = [[(0.0, -1, 0)]]
        for arcs in self._ending[1:]:
            reached = [
                (float32(score + self.arcs[index].score), index, rank)
                for index in arcs
                for rank, (score, _, _) in enumerate(ways[self.arcs[index].start])
            ]
            ways.append(nlargest(count, reached, key=lambda way: way[0]))  # those that tie in the order of their starts
        if not ways[-1]:
            raise ValueError(f"no pieces of this vocabulary lead from one end of {self.text!r:.80} to the other")
        return [self._walk_back(ways, rank) for rank in range(len(ways[-1]))]

    def _walk_back(self, ways: list[list[tuple[float, int, int]]], rank: int) -> Segmentation:
        total, *_ = ways[-1][rank]
        position = len(self.text)
        arcs: list[Arc] = []
        while position > 0:
            _, index, rank = ways[position][rank]
            arcs.append(self.arcs[index])
            position = arcs[-1].start
        return Segmentation(tuple(reversed(arcs)), total)

    def count(self) -> int:
        """How many paths there are."""
        counts = [1]
        for arcs in self._ending[1:]:
            counts.append(sum(counts[self.arcs[index].start] for index in arcs))
        return counts[-1]

    @cached_property
    def log_total(self) -> float:
        """The log of the sum of the probabilities of all paths; -inf where there is none."""
        return self._log_before[-1]

    def probabilities(self) -> list[float]:
        """Of each arc: the share of the total probability in the paths that use it (forward times backward)."""
        if self.log_total == -math.inf:
            return [0.0] * len(self.arcs)
        before, after = self._log_before, self._log_after
        return [math.exp(before[arc.start] + arc.score + after[arc.end] - self.log_total) for arc in self.arcs]

    def joints(self) -> list[int]:
        """The positions, both ends included, that no arc crosses: every path goes through each of them.

        Between two joints a text is cut without regard to the rest of it, so paths multiply and probabilities too.
        """
        crossed: set[int] = set()
        for arc in self.arcs:
            crossed.update(range(arc.start + 1, arc.end))
        return [position for position in range(len(self.text) + 1) if position not in crossed]

    def part(self, start: int, end: int) -> "Lattice":
        """The lattice over `text[start:end]` alone: the arcs within, counted from `start`."""
        inside = [arc for arc in self.arcs if start <= arc.start and arc.end <= end]
        moved = [Arc(arc.start - start, arc.end - start, arc.text, arc.score, arc.ids) for arc in inside]
        return Lattice(self.text[start:end], moved)

    @cached_property
    def _log_before(self) -> list[float]:
        sums = [0.0]
        for arcs in self._ending[1:]:
            sums.append(log_sum(sums[self.arcs[index].start] + self.arcs[index].score for index in arcs))
        return sums

    @cached_property
    def _log_after(self) -> list[float]:
        starting: list[list[Arc]] = [[] for _ in self._ending]
        for arc in self.arcs:
            starting[arc.start].append(arc)
        sums = [0.0] * len(starting)
        for position in range(len(self.text) - 1, -1, -1):
            sums[position] = log_sum(sums[arc.end] + arc.score for arc in starting[position])
        return sums


def log_sum(scores: Iterable[float]) -> float:
    """log(sum(exp(scores))), without leaving the range of a float; -inf of nothing."""
    scores = list(scores)
    highest = max(scores, default=-math.inf)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(score - highest) for score in scores))


def float32(value: float) -> float:
    """The float32 next to `value`."""
    rounded: float
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return rounded
