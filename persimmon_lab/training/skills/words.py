"""Opposites, one direction of a pair apart from the other, and plurals.

Held out are questions about a word: of some pairs of opposites one word is never asked about, though it is the answer
when the other is asked; of some nouns the plural is never asked for. Plain sentences hold nothing back: they are where
the answer can be read.
"""

import numpy as np

from persimmon_lab.training.skills.skill import Instance, Skill, asked, data, is_held_out, parted, pick

NAME = "words"
HELD_OUT = 0.2
PLAIN = 0.5  # of what is taught comes as a sentence

DATA = data("words")
ASKS = {
    "opposite": (
        "What is the opposite of {word}?", "What's the opposite of {word}?", "Tell me the opposite of {word}.",
        "Opposite of {word}?", "Which word is the opposite of {word}?", "Do you know the opposite of {word}?",
        "What is the contrary of {word}?",
    ),
    "plural": (
        "What is the plural of {word}?", "What's the plural of {word}?", "Tell me the plural of {word}.",
        "Plural of {word}?", "What do you call more than one {word}?", "Do you know the plural of {word}?",
        "How do you say {word} in the plural?",
    ),
}  # fmt: skip
SAID = {
    "opposite": ("The opposite of {word} is {key}.",),
    "plural": ("The plural of {word} is {key}.", "One {word}, two {key}."),
}
SENTENCES = {
    "opposite": ("The opposite of {word} is", "Not {word} but", "Opposites are {word} and", "It is either {word} or"),
    "plural": ("The plural of {word} is", "One {word}, two", "First there was one {word}, then there were many"),
}


def regular_plural(noun: str) -> str:
    """The plural by the rules of spelling."""
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def plural(noun: str) -> str:
    """The plural, by the list of irregular ones, else by the rules."""
    return DATA["irregular"].get(noun) or regular_plural(noun)


def kept_apart(pair: list[str]) -> str | None:
    """The word of a pair of opposites that training never asks about; None for most pairs."""
    name = " ".join(pair)
    return pair[is_held_out(NAME, f"second of {name}", 0.5)] if is_held_out(NAME, name, HELD_OUT) else None


OPPOSITES = {one: other for pair in DATA["opposites"] for one, other in (pair, pair[::-1])}
PLURALS = {noun: plural(noun) for noun in (*DATA["irregular"], *DATA["regular"])}
_APART = set(map(kept_apart, DATA["opposites"]))
# (taught, held out) words to ask about
WORDS = {
    "opposite": (tuple(sorted(OPPOSITES.keys() - _APART)), tuple(sorted(OPPOSITES.keys() & _APART))),
    "plural": parted(NAME, PLURALS, HELD_OUT),
}


class Words(Skill):
    """Groups: opposite, regular plural, irregular plural."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        kind = pick(generator, tuple(WORDS))
        told = not held_out and generator.random() < PLAIN
        word = pick(generator, sum(WORDS[kind], ()) if told else WORDS[kind][held_out])
        key = (OPPOSITES if kind == "opposite" else PLURALS)[word]
        group = kind
        wrong: tuple[str, ...] = ()
        if kind == "plural":
            irregular = word in DATA["irregular"]
            group = "irregular plural" if irregular else "regular plural"
            wrong = (regular_plural(word),) if irregular else ()
        values = {"word": word, "key": key}
        if told:
            prompt = pick(generator, SENTENCES[kind]).format(**values)
            return Instance(prompt, key, f" {key}", ".", group, wrong)
        said = pick(generator, SAID[kind]).format(**values)
        prompt = asked(pick(generator, ASKS[kind]).format(**values), generator, held_out)
        return Instance(prompt, key, f" {said[0].upper()}{said[1:]}", group=group, wrong=wrong)
