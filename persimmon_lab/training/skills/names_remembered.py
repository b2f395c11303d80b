"""A name, a pet's name, a town or a color that was told earlier in the conversation and is asked for at its end.

Between the two the talk turns to something else, taken from the small talk; often a second thing is told, which is not
the one asked for. Held out are names of people, pets and towns, not colors, which are too few.
"""

import re
from functools import cache

import numpy as np

from persimmon_lab.training.readers import dialogue
from persimmon_lab.training.skills.not_knowing import INVENTED
from persimmon_lab.training.skills.skill import Instance, Skill, data, drawn_until, parted, pick
from persimmon_lab.training.templates import CLOSINGS, OPENINGS, SLOT, Exchange, Turn, as_typed, exchanges, fill

NAME = "names remembered"
HELD_OUT = 0.2
INVENTED_SHARE = 0.3  # of the names that are taught
SECOND = 0.3  # of conversations tell a second thing
ANIMALS = ("dog", "cat", "rabbit", "hamster", "parrot", "horse", "turtle", "pony", "goldfish", "canary")

DATA = data("names")
# (taught, held out) of each kind
THINGS = {kind: parted(NAME, DATA[kind], HELD_OUT) for kind in ("name", "pet", "town")}
THINGS["color"] = (tuple(DATA["color"]), ())
KINDS = (tuple(THINGS), tuple(kind for kind, sides in THINGS.items() if sides[True]))
TELLING = re.compile(r"\b(names?|named|called|call (me|him|her|it)|who am i|live in|colors?)\b", re.IGNORECASE)
TOLD = re.compile(rf"\b({'|'.join(thing for sides in THINGS.values() for side in sides for thing in side)})\b", re.I)


def is_neutral(exchange: Exchange) -> bool:
    """Whether an exchange neither tells nor asks anything that this skill remembers, whatever fills its slots."""
    texts = [text for turn in (exchange, *exchange.then) for text in (*turn.ask, *turn.answer)]
    used = {slot for text in texts for slot in SLOT.findall(text)}
    texts += [value for slot in used for value in exchange.slots[slot]]
    return not any(TELLING.search(text) or TOLD.search(text) for text in texts)


@cache
def neutral_exchanges() -> tuple[Exchange, ...]:
    """The small talk that may stand in the middle of a conversation and keeps off what is to be remembered."""
    middle = [group for topic, group in exchanges().items() if topic not in (OPENINGS, CLOSINGS)]
    return tuple(exchange for group in middle for exchange in group if is_neutral(exchange))


def aside(generator: np.random.Generator) -> list[str]:
    """Question and answer about something else, in half of the cases with a follow-up; clean text."""
    exchange = pick(generator, neutral_exchanges())
    values = {slot: pick(generator, choices) for slot, choices in exchange.slots.items()}
    turns: list[Turn] = [exchange]
    if exchange.then and generator.random() < 0.5:
        turns.append(pick(generator, exchange.then))
    return [fill(pick(generator, wordings), values) for turn in turns for wordings in (turn.ask, turn.answer)]


def a_thing(kind: str, held_out: bool, generator: np.random.Generator) -> str:
    """One of this kind: of those held out, if any are, in a held-out conversation; else now and then an invented name,
    which can only be copied, piece by piece."""
    if not held_out and kind != "color" and generator.random() < INVENTED_SHARE:
        return pick(generator, INVENTED["city"][False])
    return pick(generator, THINGS[kind][held_out] or THINGS[kind][False])


def wording(kind: str, part: str, values: dict[str, str], generator: np.random.Generator) -> str:
    """One way to tell, answer or ask for a thing of this kind (see names.toml)."""
    return fill(pick(generator, DATA["talk"][kind][part]), values)


class NamesRemembered(Skill):
    """The group is the kind of thing; what is told besides is wrong."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        kind = pick(generator, KINDS[held_out])
        thing = a_thing(kind, held_out, generator)
        values = {"x": thing, "animal": pick(generator, ANIMALS)}
        pieces = [[wording(kind, part, values, generator) for part in ("tells", "replies")]]
        wrong: tuple[str, ...] = ()
        if generator.random() < SECOND:
            other = pick(generator, [one for one in THINGS if one != kind])
            second = drawn_until(lambda: a_thing(other, held_out, generator), lambda drawn: drawn != thing)
            told = [wording(other, part, values | {"x": second}, generator) for part in ("tells", "replies")]
            pieces.insert(int(generator.integers(2)), told)
            wrong = (second,)
        if neutral_exchanges():
            pieces += [aside(generator) for _ in range(int(generator.integers(4)))]
        lines = [*(line for piece in pieces for line in piece), wording(kind, "asks", values, generator)]
        if not held_out:
            lines[::2] = [as_typed(line, generator) for line in lines[::2]]
        said = f" {wording(kind, 'said', values, generator)}"
        return Instance(dialogue(lines) + "\n\nadept:", thing, said, group=kind, wrong=wrong)
