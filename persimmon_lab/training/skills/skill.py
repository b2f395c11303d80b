"""What an instance of a skill is, how it is held out of training, and how a continuation is judged.

A skill is a function of numpy's generator and of nothing else: the same generator draws the same instance.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from persimmon_lab.training.readers import dialogue
from persimmon_lab.training.templates import as_typed

DONT_KNOW = "don't know"
END_OF_ANSWER = re.compile(r"\n|human:|\|ENDOFTEXT\|")

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Instance:
    """A prompt, the key that a right continuation says, and the continuation as it is taught.

    `after` follows in training text and is not asked for; `group` is a sub-kind reported alone; what says a key of
    `wrong` is not right, whatever else it says.
    """

    prompt: str
    answer: str
    said: str
    after: str = ""
    group: str = ""
    wrong: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole, as it is trained on."""
        return self.prompt + self.said + self.after


@runtime_checkable
class Skill(Protocol):
    name: str

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        """One instance: with `held_out` one that training never shows, else never such a one."""
        ...

    def is_right(self, instance: Instance, continuation: str) -> bool:
        return says(instance, continuation)


def is_held_out(skill: str, key: str, share: float) -> bool:
    """Whether this key of this skill belongs to the `share` that training never sees: a matter of its hash alone."""
    digest = hashlib.sha256(f"{skill}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def parted(skill: str, keys: Iterable[str], share: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(taught, held out) keys, each in the order given; `parted(...)[held_out]` are those to draw from."""
    sides: tuple[list[str], list[str]] = ([], [])
    for key in keys:
        sides[is_held_out(skill, key, share)].append(key)
    return tuple(sides[0]), tuple(sides[1])


def first_line(continuation: str) -> str:
    """What belongs to the answer: up to the end of the line, of the turn or of the text; one kind of apostrophe."""
    return END_OF_ANSWER.split(continuation, maxsplit=1)[0].replace("\u2019", "'")


def has_words(text: str, key: str) -> bool:
    """Whether the key stands in the text as whole words, in any case; 7 does not stand in 75, 7.5, 1,007 or -7.

    The case of a large letter or two counts: such keys are letters and symbols, and "he" is not helium.
    """
    flags = re.NOFLAG if len(key) <= 2 and key[0].isupper() else re.IGNORECASE
    return re.search(rf"(?<![\w-])(?<!\d[.,]){re.escape(key)}(?!\w)(?![.,-]\d)", text, flags) is not None


def says(instance: Instance, continuation: str) -> bool:
    """Whether the first line says the answer and nothing that is wrong."""
    line = first_line(continuation)
    return has_words(line, instance.answer) and not any(has_words(line, key) for key in instance.wrong)


def begins(continuation: str, words: Iterable[str]) -> bool:
    """Whether the first line begins with one of these, as a whole word: for text that goes on as it likes."""
    line = first_line(continuation)
    return any(re.match(rf" {re.escape(word)}(?!\w)", line) for word in words)


def asked(question: str, generator: np.random.Generator, held_out: bool) -> str:
    """A chat up to where the answer is due; in training the question comes as people type it, now and then."""
    return dialogue([question if held_out else as_typed(question, generator)]) + "\n\nadept:"


def pick(generator: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    return choices[int(generator.integers(len(choices)))]


def drawn_until(draw: Callable[[], Choice], fits: Callable[[Choice], bool]) -> Choice:
    """The first of what is drawn that fits."""
    while not fits(choice := draw()):
        pass
    return choice


def article(noun: str) -> str:
    """The noun with "a" or "an" before it, by its first letter."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def data(name: str) -> dict[str, Any]:
    """The TOML file of this name beside this module."""
    return tomllib.loads((files(__package__) / f"{name}.toml").read_text(encoding="utf-8"))
