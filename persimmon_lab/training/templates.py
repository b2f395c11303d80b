"""Small talk and very short stories of our own, written as templates with slots and expanded into conversations.

`smalltalk/*.toml` holds exchanges: wordings of what the human says, answers that fit each of them, and follow-ups that
fit each answer. `stories/*.toml` holds stories: for each sentence wordings of which any may follow any before it. A
slot such as {pet} is drawn once for a conversation or a story and keeps its value.
"""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np

from persimmon_lab.training.readers import dialogue

SLOT = re.compile(r"\{(\w+)\}")
OPENINGS, CLOSINGS = "greetings", "goodbyes"  # the files whose exchanges begin or end a conversation
TAKEN_UP = 0.8  # how often an answer is chosen that takes up a word of what was said, where there is one
COMMON = 0.03  # of all exchanges: a word in the answers of more of them says little
PLAIN = 0.2  # of what the human says comes as people type it: no capitals, or no stop at the end

Slots = Mapping[str, Sequence[str]]
Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Turn:
    """Wordings of what is said, and of what may be answered to any of them."""

    ask: tuple[str, ...]
    answer: tuple[str, ...]


@dataclass(frozen=True)
class Exchange(Turn):
    """A turn, the alternatives of which one may follow it, and the slots of its file."""

    then: tuple[Turn, ...]
    slots: Slots


@dataclass(frozen=True)
class Story:
    sentences: tuple[tuple[str, ...], ...]
    slots: Slots


@cache
def exchanges() -> Mapping[str, tuple[Exchange, ...]]:
    """The small talk by topic, which is the name of its file."""
    return {
        topic: tuple(
            Exchange(
                ask=tuple(entry["ask"]),
                answer=tuple(entry["answer"]),
                then=tuple(Turn(tuple(turn["ask"]), tuple(turn["answer"])) for turn in entry.get("then", ())),
                slots=content.get("slots", {}),
            )
            for entry in content["exchange"]
        )
        for topic, content in _read("smalltalk").items()
    }


@cache
def stories() -> tuple[Story, ...]:
    """All stories, file by file."""
    return tuple(
        Story(tuple(map(tuple, entry["sentences"])), content.get("slots", {}))
        for content in _read("stories").values()
        for entry in content["story"]
    )


def a_conversation(generator: np.random.Generator) -> str:
    """One to four exchanges in Adept's chat format: perhaps a greeting, topics with or without their follow-up, perhaps
    a goodbye; ends with an answer."""
    topics = exchanges()
    middle = [topic for topic in topics if topic not in (OPENINGS, CLOSINGS)]
    chosen = []
    if generator.random() < 0.25:
        chosen.append(OPENINGS)
    # Every exchange is as likely as any other, whichever file it stands in.
    sizes = np.array([len(topics[topic]) for topic in middle])
    chosen += list(generator.choice(middle, size=generator.choice([1, 1, 1, 2]), p=sizes / sizes.sum()))
    if generator.random() < 0.12:
        chosen.append(CLOSINGS)
    return dialogue([line for topic in chosen for line in said(_pick(generator, topics[str(topic)]), generator)])


def said(exchange: Exchange, generator: np.random.Generator) -> list[str]:
    """Question and answer, and in half of the cases one follow-up and its answer, with one value for each slot."""
    values = _values(exchange.slots, generator)
    turns: list[Turn] = [exchange]
    if exchange.then and generator.random() < 0.5:
        turns.append(_pick(generator, exchange.then))
    lines = []
    for turn in turns:
        ask = _pick(generator, turn.ask)
        lines.append(as_typed(fill(ask, values), generator))
        answers = taking_up(ask, turn.answer) if generator.random() < TAKEN_UP else turn.answer
        lines.append(fill(_pick(generator, answers), values))
    return lines


def taking_up(ask: str, answers: Sequence[str]) -> Sequence[str]:
    """The answers that share a word or a slot with what was said, which fit it more surely than the others; all of them
    where none does."""
    return [answer for answer in answers if telling(ask) & telling(answer)] or answers


@cache
def telling(text: str) -> frozenset[str]:
    """The beginnings of the words of a template that are not common, and its slots."""
    return _beginnings(text) - _common()


@cache
def _common() -> frozenset[str]:
    everything = [exchange for group in exchanges().values() for exchange in group]
    counts = Counter(word for exchange in everything for word in _beginnings(" ".join(exchange.answer)))
    return frozenset(word for word, count in counts.items() if count > COMMON * len(everything) and word[0] != "{")


def _beginnings(text: str) -> frozenset[str]:
    """The first five letters of each word of four or more, an s at its end apart; slots whole."""
    words = re.findall(r"[a-z']{4,}", SLOT.sub(" ", text.lower()))
    return frozenset(word.rstrip("s")[:5] for word in words) | frozenset(f"{{{slot}}}" for slot in SLOT.findall(text))


def a_story(generator: np.random.Generator) -> str:
    """One story, a sentence after the other."""
    story = _pick(generator, stories())
    values = _values(story.slots, generator)
    return " ".join(fill(_pick(generator, sentence), values) for sentence in story.sentences)


def as_typed(text: str, generator: np.random.Generator) -> str:
    """The text, or in a share of PLAIN cases in small letters, without its last stop, or both."""
    if generator.random() >= PLAIN:
        return text
    way = generator.integers(3)
    if way != 1 and text[-1] in ".?!":
        text = text[:-1]
    return text if way == 0 else text.lower()


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its slots filled, capitalised where a slot begins it."""
    text = SLOT.sub(lambda match: values[match[1]], template)
    return text[0].upper() + text[1:] if template.startswith("{") else text


def _values(slots: Slots, generator: np.random.Generator) -> dict[str, str]:
    return {name: _pick(generator, values) for name, values in slots.items()}


def _pick(generator: np.random.Generator, choices: Sequence[Choice]) -> Choice:
    return choices[int(generator.integers(len(choices)))]


def _read(folder: str) -> dict[str, dict[str, Any]]:
    """The TOML files of a folder beside this module, by name."""
    paths = sorted((files(__package__) / folder).iterdir(), key=lambda path: path.name)
    return {
        path.name.removesuffix(".toml"): tomllib.loads(path.read_text(encoding="utf-8"))
        for path in paths
        if path.name.endswith(".toml")
    }
