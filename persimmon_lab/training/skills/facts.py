"""Facts: capitals, currencies, continents, the young, the sounds, the food and the homes of animals, colors, elements.

All facts are taught. What is held out are phrasings, the same for every fact of a relation, so that a right answer to
one of them shows a fact that can be found from more than one side.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from persimmon_lab.training.skills.skill import DONT_KNOW, Instance, Skill, article, asked, data, has_words, pick
from persimmon_lab.training.templates import fill

SENTENCES = 0.15  # of what is taught comes as plain text that the object completes


@dataclass(frozen=True)
class Relation:
    """Facts of one kind, subject by subject, and how they are asked and told (see facts.toml)."""

    name: str
    facts: Mapping[str, str]
    taught: tuple[str, ...]
    held_out: tuple[str, ...]
    said: tuple[str, ...]
    sentences: tuple[str, ...]
    ending: str
    kind: str
    unknown: str
    exclusive: bool

    def wrong(self, answer: str) -> tuple[str, ...]:
        """Keys that contradict this answer, or hold it in a longer name: Papua New Guinea isn't Guinea."""
        others = sorted({key(thing) for thing in self.facts.values()} - {answer})
        return (DONT_KNOW, *(other for other in others if self.exclusive or has_words(other, answer)))


def key(thing: str) -> str:
    """What must be said of an object: its part in brackets, or all of it but its article."""
    part = re.search(r"\[(.+)\]", thing)
    return part[1] if part else thing.removeprefix("the ")


def slots(subject: str, thing: str = "") -> dict[str, str]:
    """The values of the slots of a phrasing."""
    plain = re.sub(r"[\[\]]", "", thing)
    return {
        "subject": subject,
        "a_subject": article(subject),
        "object": plain,
        "a_object": article(plain) if plain else "",
    }


def _relations() -> dict[str, Relation]:
    content = data("facts")
    facts: dict[str, dict[str, str]] = {}
    for name, entry in content.items():
        if "reverses" in entry:
            # "Mexico City" says Mexico already.
            pairs = facts[entry["reverses"]].items()
            facts[name] = {thing: subject for subject, thing in pairs if not has_words(thing, key(subject))}
        else:
            facts[name] = dict(entry.get("facts", {}))
            for thing, subjects in entry.get("by_object", {}).items():
                facts[name] |= dict.fromkeys(subjects, thing)
    return {
        name: Relation(
            name=name,
            facts=facts[name],
            **{part: tuple(entry[part]) for part in ("taught", "held_out", "said", "sentences")},
            ending=entry.get("ending", "{object}"),
            kind=entry.get("kind", ""),
            unknown=entry.get("unknown", ""),
            exclusive=entry.get("exclusive", False),
        )
        for name, entry in content.items()
    }


RELATIONS = _relations()
FACTS = tuple((relation, *fact) for relation in RELATIONS.values() for fact in relation.facts.items())
WRONG = {(relation.name, thing): relation.wrong(key(thing)) for relation, _, thing in FACTS}


class Facts(Skill):
    """Every fact is as likely as any other; the group is the relation."""

    name = "facts"

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        relation, subject, thing = pick(generator, FACTS)
        values, answer = slots(subject, thing), key(thing)
        if not held_out and generator.random() < SENTENCES:
            prompt, said = fill(pick(generator, relation.sentences), values), fill(f" {relation.ending}.", values)
        else:
            question = fill(pick(generator, relation.held_out if held_out else relation.taught), values)
            prompt = asked(question, generator, held_out)
            said = f" {fill(pick(generator, relation.said), values)}"
        return Instance(prompt, answer, said, group=relation.name, wrong=WRONG[relation.name, thing])
