"""A row of words that comes again, up to a word that the first copy knows. Nothing but looking back answers it.

Words of the vocabulary of `words`, none twice in a row, so that each one's follower is unambiguous. It is the lesson of
`training/drills` in text; a row is drawn by chance, and those held out are a share of all by their hash.
"""

import numpy as np

from persimmon_lab.training.skills.skill import Instance, Skill, begins, drawn_until, is_held_out, pick
from persimmon_lab.training.skills.words import PLURALS

NAME = "copying"
HELD_OUT = 0.5
PERIODS = (4, 8, 16)
NOUNS = tuple(PLURALS)


class Copying(Skill):
    """The group is the period: how many words lie between a word and its copy."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        period = pick(generator, PERIODS)

        def row() -> list[str]:
            return [NOUNS[index] for index in generator.permutation(len(NOUNS))[:period]]

        words = drawn_until(row, lambda drawn: is_held_out(NAME, " ".join(drawn), HELD_OUT) == held_out)
        copied = int(generator.integers(1, period))  # words of the copy that stand there already
        prompt = " ".join([*words, *words[:copied]])
        after = "".join(f" {word}" for word in words[copied + 1 :])
        return Instance(prompt, words[copied], f" {words[copied]}", after, f"{period} words")

    def is_right(self, instance: Instance, continuation: str) -> bool:
        """The very next word."""
        return begins(continuation, [instance.answer])
