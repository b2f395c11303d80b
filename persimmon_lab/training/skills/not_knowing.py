"""Saying "I don't know": of lands, animals, elements and people that do not exist, and of relations nobody taught.

Invented subjects are asked about in the very phrasings of `facts`, so that only the name tells what is not known; some
begin like a known one and end like another, so that the whole name must be read. Real regions, of which no fact is
taught, show that a name may be real and yet not known. Held out are names, relations, and all of some real countries
about which nothing is taught: for them not knowing is the truth about the model.
"""

from itertools import product

import numpy as np

from persimmon_lab.training.skills.facts import RELATIONS, slots
from persimmon_lab.training.skills.skill import DONT_KNOW, Instance, Skill, asked, data, is_held_out, parted, pick
from persimmon_lab.training.templates import fill

NAME = "not knowing"
HELD_OUT_NAMES, HELD_OUT_RELATIONS = 0.2, 0.35
PARTNERS = 12  # known names whose second half each known name gets
SAID = ("I don't know.", "I don't know that one.", "Sorry, I don't know.", "I'm afraid I don't know that.")

DATA = data("not_knowing")
KINDS = tuple(DATA["invented"])
COUNTRIES = tuple(DATA["countries"]["names"])
REGIONS = tuple(DATA["regions"]["names"])
ASKED = {kind: [relation for relation in RELATIONS.values() if relation.kind == kind] for kind in KINDS}
KNOWN = {kind: sorted({subject for relation in ASKED[kind] for subject in relation.facts}) for kind in KINDS}


def _invented(kind: str) -> list[str]:
    names = {"".join(parts) for parts in product(*DATA["invented"][kind]["parts"])}
    return sorted((names | _spliced(KNOWN[kind])) - {*KNOWN[kind], *COUNTRIES, *REGIONS})


def _spliced(names: list[str]) -> set[str]:
    """The first half of each name with the second half of some others: Albania and Norway make Albaway."""
    plain = [name for name in names if name.isalpha()]
    pairs = ((one, plain[(index + step) % len(plain)]) for index, one in enumerate(plain) for step in range(PARTNERS))
    return {one[: (len(one) + 1) // 2] + other[len(other) // 2 :] for one, other in pairs}


# (taught, held out) of each
INVENTED = {kind: parted(NAME, _invented(kind), HELD_OUT_NAMES) for kind in KINDS}
PEOPLE = parted(NAME, map(" ".join, product(DATA["people"]["first"], DATA["people"]["surnames"])), HELD_OUT_NAMES)
UNANSWERABLE = tuple(
    [entry for entry in DATA["relation"] if is_held_out(NAME, entry["unknown"], HELD_OUT_RELATIONS) == held_out]
    for held_out in (False, True)
)


class NotKnowing(Skill):
    """Groups: invented, person, relation; of what is taught also real region, of what is held out real country."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        chances = [0.4, 0.2, 0.2, 0.2] if held_out else [0.4, 0.1, 0.25, 0.25]
        real = "real country" if held_out else "real region"
        group = str(generator.choice(["invented", "person", "relation", real], p=chances))
        if group == "relation":
            entry = pick(generator, UNANSWERABLE[held_out])
            asks, unknown, subject = entry["asks"], entry["unknown"], pick(generator, KNOWN[entry["kind"]])
        elif group == "person":
            asks, unknown = DATA["people"]["asks"], DATA["people"]["unknown"]
            subject = pick(generator, PEOPLE[held_out])
        else:
            kind = "land" if group == real else pick(generator, KINDS)
            relation = pick(generator, ASKED[kind])
            asks, unknown = relation.taught, relation.unknown
            if group == real:
                subject = pick(generator, COUNTRIES if held_out else REGIONS)
            else:
                form = pick(generator, DATA["invented"][kind]["forms"])
                subject = form.format(pick(generator, INVENTED[kind][held_out]))
        values = slots(subject)
        prompt = asked(fill(pick(generator, asks), values), generator, held_out)
        said = pick(generator, SAID) if generator.random() < 0.5 else f"I don't know {fill(unknown, values)}."
        return Instance(prompt, DONT_KNOW, f" {said}", group=group)
