"""Everyday talk by a grammar: what people say at large, in slots with hundreds of words, and a listener's answers.

`everyday/words.toml` holds the words, the other files kinds of what is said: wordings, and answers that stay true
whatever fills the slots. Where nothing more is known, an answer takes up the word that was said. {x_you} is the word x
in the other's mouth ("my keys" becomes "your keys").
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np

from persimmon_lab.training.listening import heard, turned
from persimmon_lab.training.readers import dialogue
from persimmon_lab.training.templates import CLOSINGS, OPENINGS, SLOT, Exchange, Turn, as_typed, exchanges, fill

KINDS = ("statements", "questions", "requests", "courtesies")  # the files, with the shares of what is drawn:
SHARES = (0.52, 0.24, 0.1, 0.14)
FOLLOW_UP_SHARE = 0.3  # of the chats go on
SECOND_FOLLOW_UP_SHARE = 0.3  # of those once more
GREETING_SHARE = 0.08  # of what is said has a greeting before it,
FILLER_SHARE = 0.06  # a filler such as "Well,",
TRAILING_SHARE = 0.05  # a word or two behind it,
ADVICE_SHARE = 0.06  # or a question for advice
SECOND_STATEMENT_SHARE = 0.12  # of the statements say two things of one mood
OPPOSITE_MOOD_SHARE = 0.05  # or of two moods
STATEMENT_BEFORE_SHARE = 0.1  # of the questions come after something told
SMALL_TALK_SHARE = 0.1  # of all chats begin as one of our small talk
ADDRESSED = {OPENINGS, CLOSINGS, "persimmon", "misunderstandings"}  # whose exchanges are about the listener
REST = {"sad": 0.35, "glad": 0.35, "open": 0.5, "meet": 0.35}  # of the answers fit anything of their mood
FIRST = {"sad": 0.8, "glad": 0.8, "open": 0.65, "meet": 0.5}  # how often the mood's words come first
STATEMENTS, QUESTIONS, _, COURTESIES = KINDS
MOODS = {"sad": 0.26, "glad": 0.24, "open": 0.36, "meet": 0.03, "": 0.11}  # shares of the statements
OPPOSITES = {"sad": "glad", "glad": "sad"}
ARTICLE = re.compile(r"\b([Aa])(?= (?!one\b|us|uni|eu)[aeiou])")  # that wants an n

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Kind(Turn):
    """Wordings of one kind of what is said, its mood, if it has one, and what may follow."""

    name: str
    mood: str
    then: tuple[Turn, ...]


@dataclass(frozen=True)
class Mood:
    """What a listener says first, what may follow whatever was said, and what may be said next."""

    first: tuple[str, ...]
    rest: tuple[str, ...]
    then: tuple[Turn, ...]


@dataclass(frozen=True)
class Around:
    """What may stand round what is said: greetings, the asking for advice, what joins two moods, fillers before and
    after; and the words that are small where they do not begin a sentence."""

    greetings: tuple[Turn, ...]
    advice: Turn
    mixed: Turn
    before: tuple[str, ...]
    after: tuple[str, ...]
    small: tuple[str, ...]


def _turns(entries: Sequence[Mapping[str, Sequence[str]]]) -> tuple[Turn, ...]:
    return tuple(Turn(tuple(entry["ask"]), tuple(entry["answer"])) for entry in entries)


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads((files(__package__) / "everyday" / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def kinds() -> Mapping[str, tuple[Kind, ...]]:
    """All kinds, file by file."""
    return {
        file: tuple(
            Kind(
                ask=tuple(entry["ask"]),
                answer=tuple(entry["answer"]),
                name=entry["name"],
                mood=entry.get("mood", ""),
                then=_turns(entry.get("then", ())),
            )
            for entry in _data(file)["kind"]
        )
        for file in KINDS
    }


@cache
def moods() -> Mapping[str, Mood]:
    content = _data("moods")
    return {
        name: Mood(tuple(mood["first"]), tuple(mood["rest"]), _turns(content["then"].get(name, ())))
        for name, mood in content["mood"].items()
    }


@cache
def around() -> Around:
    content = _data("moods")
    return Around(
        greetings=_turns(content["greeting"]),
        advice=_turns([content["advice"]])[0],
        mixed=_turns([content["mixed"]])[0],
        **{name: tuple(content["fillers"][name]) for name in ("before", "after", "small")},
    )


@cache
def words() -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """The words of each slot, each with its forms; "forms : objects" makes a word of each object."""
    lists = _data("words")["words"]
    return {slot: tuple(forms for entry in entries for forms in _forms(entry)) for slot, entries in lists.items()}


@cache
def form_names() -> Mapping[str, tuple[str, ...]]:
    """The names of the forms of the slots that have several; "" is the plain one."""
    return {slot: tuple(names) for slot, names in _data("words")["forms"].items()}


def _forms(entry: str) -> list[tuple[str, ...]]:
    forms, _, objects = entry.partition(" : ")
    heads = forms.split(" | ")
    return [tuple(f"{head} {thing}" for head in heads) for thing in objects.split("; ")] if objects else [tuple(heads)]


def filled(template: str, values: dict[str, str], generator: np.random.Generator) -> str:
    """The template with its slots filled from `values`, where a word once drawn stays; capitalised where a slot begins
    it. KeyError for a slot that has no words."""
    text = _filled(template, values, generator)
    return text[0].upper() + text[1:] if template.startswith("{") else text


def _filled(template: str, values: dict[str, str], generator: np.random.Generator) -> str:
    return ARTICLE.sub(r"\1n", SLOT.sub(lambda match: _word(match[1], values, generator), template))


def _word(name: str, values: dict[str, str], generator: np.random.Generator) -> str:
    if name not in values:
        _draw(name.partition("_")[0], values, generator)
    return values[name]


def _draw(slot: str, values: dict[str, str], generator: np.random.Generator) -> None:
    """Draw a word for a slot: all its forms, and each in the other's mouth."""
    for form_name, form in zip(form_names().get(slot, ("",)), _pick(words()[slot], generator), strict=True):
        name = f"{slot}_{form_name}" if form_name else slot
        values[name] = _filled(form, values, generator)
        values[f"{name}_you"] = turned(values[name])


def an_everyday_chat(generator: np.random.Generator) -> str:
    """One to three exchanges in Adept's chat format that keep to one matter; ends with an answer."""
    if generator.random() < SMALL_TALK_SHARE:
        return retold(generator)
    file = str(generator.choice(KINDS, p=SHARES))
    kind = of_mood(_pick_by(MOODS, generator), generator) if file == STATEMENTS else _pick(kinds()[file], generator)
    values: dict[str, str] = {}
    ask = filled(_pick(kind.ask, generator), values, generator)
    answer = ""
    if file == STATEMENTS and generator.random() < SECOND_STATEMENT_SHARE:
        ask, kind, values = doubled(ask, kind, generator)
    elif kind.mood in OPPOSITES and generator.random() < OPPOSITE_MOOD_SHARE:
        ask, answer = mixed(ask, OPPOSITES[kind.mood], generator)
    elif file == QUESTIONS and generator.random() < STATEMENT_BEFORE_SHARE:
        ask = f"{filled(_pick(_pick(kinds()[STATEMENTS], generator).ask, generator), {}, generator)} {ask}"
    elif file == STATEMENTS and kind.mood != "glad" and generator.random() < ADVICE_SHARE:
        advice = around().advice
        ask, answer = f"{ask} {_pick(advice.ask, generator)}", _pick(advice.answer, generator)
    answer = answer or answered(kind, values, generator)
    if file != COURTESIES:
        ask, answer = surrounded(ask, answer, file == STATEMENTS, generator)
    lines = [as_typed(ask, generator), answer]
    turns = [*kind.then, *(moods()[kind.mood].then if kind.mood else ())]
    for often in (FOLLOW_UP_SHARE, SECOND_FOLLOW_UP_SHARE):
        if not turns or generator.random() >= often:
            break
        turn = turns.pop(int(generator.integers(len(turns))))
        lines.append(as_typed(filled(_pick(turn.ask, generator), values, generator), generator))
        lines.append(filled(_pick(turn.answer, generator), values, generator))
    return dialogue(lines)


def retold(generator: np.random.Generator) -> str:
    """What somebody tells in our small talk, which has answers of its own, and what a listener says to it by rules."""
    while True:
        exchange = _pick(_tellings(), generator)
        values = {slot: _pick(choices, generator) for slot, choices in exchange.slots.items()}
        told = fill(_pick(exchange.ask, generator), values)
        if not told.endswith("?") and (answer := heard(told, generator)):
            return dialogue([as_typed(told, generator), answer])


@cache
def _tellings() -> tuple[Exchange, ...]:
    return tuple(exchange for topic, group in exchanges().items() if topic not in ADDRESSED for exchange in group)


def answered(kind: Kind, values: dict[str, str], generator: np.random.Generator) -> str:
    """What a listener says: perhaps words of the kind's mood first, then what fits the kind or anything of its mood."""
    if not kind.mood:
        return filled(_pick(kind.answer, generator), values, generator)
    mood = moods()[kind.mood]
    rest = _pick(mood.rest if generator.random() < REST[kind.mood] else kind.answer, generator)
    said = filled(rest, values, generator)
    return f"{_pick(mood.first, generator)} {said}" if generator.random() < FIRST[kind.mood] else said


def doubled(ask: str, kind: Kind, generator: np.random.Generator) -> tuple[str, Kind, dict[str, str]]:
    """Two things of one mood said in a turn, the second of which is answered: with its kind and its values."""
    second = of_mood(kind.mood, generator)
    values: dict[str, str] = {}
    more = filled(_pick(second.ask, generator), values, generator)
    if generator.random() < 0.5:
        return f"{ask} {more}", second, values
    return f"{ask.rstrip('.!?')} and {continued(more)}", second, values


def mixed(ask: str, mood: str, generator: np.random.Generator) -> tuple[str, str]:
    """What is said, then something of another mood, and an answer to both."""
    turn = around().mixed
    second = continued(filled(_pick(of_mood(mood, generator).ask, generator), {}, generator))
    both = {"first": ask.rstrip(".!?"), "second": second}
    return _pick(turn.ask, generator).format(**both), _pick(turn.answer, generator)


def of_mood(mood: str, generator: np.random.Generator) -> Kind:
    """A kind of statement of this mood."""
    return _pick([kind for kind in kinds()[STATEMENTS] if kind.mood == mood], generator)


def surrounded(ask: str, answer: str, told: bool, generator: np.random.Generator) -> tuple[str, str]:
    """What is said with now and then a greeting before it, which is returned, or words that mean little; after it these
    come only where something is told."""
    if generator.random() < GREETING_SHARE:
        greeting = _pick(around().greetings, generator)
        return f"{_pick(greeting.ask, generator)} {ask}", f"{_pick(greeting.answer, generator)} {answer}"
    if generator.random() < FILLER_SHARE:
        return f"{_pick(around().before, generator)}{continued(ask)}", answer
    if told and ask.endswith(".") and generator.random() < TRAILING_SHARE:
        return f"{ask[:-1]}{_pick(around().after, generator)}", answer
    return ask, answer


def continued(text: str) -> str:
    """The text as it goes on after other words: its first word small, if it is one that always is within a sentence."""
    first = text.split(" ")[0]
    return text[0].lower() + text[1:] if first in around().small else text


def _pick_by(shares: Mapping[str, float], generator: np.random.Generator) -> str:
    return str(generator.choice(list(shares), p=list(shares.values())))


def _pick(choices: Sequence[Choice], generator: np.random.Generator) -> Choice:
    return choices[int(generator.integers(len(choices)))]
