"""The floor that has read and understands nothing: a 5-gram of texts in which the skills are taught.

What it gets right needs no more than runs of five pieces. It has the shipped model's vocabulary, whichever model is
measured, so that the floor under all of them is the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np

from persimmon_lab.evaluation.likelihood import Likelihood, row_of
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.training.corpus import a_lesson
from persimmon_lab.training.ngram import BITS, NGram

LESSONS = 6_000  # about 250,000 pieces
SEED = 0
ORDER = 5


class FiveGram:
    """Counts of the pieces of some texts, each with the end of text before and after it."""

    def __init__(self, texts: Iterable[str], tokenizer: PersimmonTokenizer) -> None:
        self.tokenizer = tokenizer
        self.end = [tokenizer.eos_token_id] * (ORDER - 1)
        rows = [[*self.end, *tokenizer.encode(text, add_special_tokens=False), self.end[0]] for text in texts]
        self.counts = NGram(np.array([index for row in rows for index in row]), ORDER)

    def likelihood(self, prompt: str, continuation: str) -> Likelihood:
        """As a model's (`likelihood`), by interpolated Kneser-Ney."""
        ids, shared = row_of(self.tokenizer, prompt, continuation)
        bits = self.counts.log2_probabilities(np.array([*self.end, *ids]))
        value = float(bits[shared:].sum()) * float(np.log(2))
        return Likelihood(value, len(ids) - shared, len(continuation.encode()))

    def continuation(self, prompt: str, new_tokens: int) -> str:
        """At each step what most often followed the longest run before it that is known; up to the end of a text."""
        ids = [*self.end, *self.tokenizer.encode(prompt)]
        start = len(ids)
        while len(ids) < start + new_tokens and (len(ids) == start or ids[-1] != self.end[0]):
            ids.append(self._next(ids))
        # Decoded alone, a continuation would lose the space that it begins with.
        before, whole = (self.tokenizer.decode(part, skip_special_tokens=True) for part in (ids[:start], ids))
        return whole[len(before) :]

    def _next(self, ids: Sequence[int]) -> int:
        for length in range(ORDER, 0, -1):
            table = self.counts.tables[length - 1]
            context = 0
            for index in ids[len(ids) - length + 1 :] if length > 1 else ():
                context = (context << BITS) | index
            low, high = np.searchsorted(table.keys, [context << BITS, (context + 1) << BITS])
            if high > low:
                best = table.keys[low + int(table.counts[low:high].argmax())]
                return int(best) & ((1 << BITS) - 1)
        raise ValueError("the 5-gram has counted no text")


def lessons(count: int = LESSONS, seed: int = SEED) -> Iterator[str]:
    """Texts that teach the skills, as training draws them: nothing that is held out."""
    generator = np.random.default_rng(seed)
    return (a_lesson(generator) for _ in range(count))


@cache
def taught_texts() -> tuple[str, ...]:
    """LESSONS lessons, drawn once."""
    return tuple(lessons())


@cache
def taught_five_gram() -> FiveGram:
    """The 5-gram of `taught_texts`; made once, in a few seconds."""
    return FiveGram(taught_texts(), PersimmonTokenizer.from_pretrained(MINI))
