"""Wrong answers beside the right one, for choosing by log-likelihood: of the same kind, and surely wrong.

Where another answer might be right as well (what a bear eats, where it lives), and where nothing is to be known, there
are no choices: such items are judged by what is said alone.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from persimmon_lab.training.skills import Instance
from persimmon_lab.training.skills.agreement import FORMS
from persimmon_lab.training.skills.brackets import CLOSING
from persimmon_lab.training.skills.facts import RELATIONS, key
from persimmon_lab.training.skills.names_remembered import THINGS
from persimmon_lab.training.skills.sequences import ITEMS, LISTED, WORDS
from persimmon_lab.training.skills.skill import has_words
from persimmon_lab.training.skills.words import OPPOSITES, PLURALS, regular_plural

MOST = 3  # wrong answers beside the right one
SEVERAL_MAY_BE_RIGHT = {"food", "home", "sound"}  # relations of facts
# Opposites of nearly the same: "end" would not be surely wrong where "stop" is asked for.
ALIKE = (
    {"begin", "start", "beginning"}, {"end", "stop", "ending"}, {"hard", "difficult", "complicated"},
    {"easy", "simple", "soft"}, {"clever", "wise"}, {"stupid", "foolish"}, {"rude", "cruel", "greedy"},
    {"kind", "generous", "polite"}, {"victory", "success", "win"}, {"defeat", "failure", "lose"},
    {"young", "modern", "fresh"}, {"old", "ancient", "stale"}, {"up", "above", "top", "high"},
    {"down", "below", "bottom", "low"}, {"true", "correct"}, {"false", "incorrect"}, {"dead", "death"},
    {"alive", "life"}, {"healthy", "strong"}, {"sick", "weak"}, {"bright", "white"}, {"dim", "black", "night"},
    {"rise", "up", "float"}, {"fall", "down", "sink"}, {"everything", "most", "many", "more"},
    {"nothing", "few", "less", "least", "nobody"}, {"inside", "in"}, {"outside", "out"}, {"good", "kind"},
    {"bad", "cruel"}, {"first", "early", "before", "front"}, {"last", "late", "after", "back"},
    {"come", "arrive"}, {"go", "leave"}, {"thin", "narrow"}, {"thick", "wide"},
)  # fmt: skip


def choices_of(skill: str, instance: Instance, generator: np.random.Generator) -> tuple[tuple[str, ...], int | None]:
    """Continuations of the instance's prompt in an order drawn by chance, and which is right; ((), None) for none.

    Each begins with a space where the right one does, and with a capital where a sentence begins.
    """
    wrong = _DISTRACTORS[skill](instance) if skill in _DISTRACTORS else ()
    wrong = [other for other in dict.fromkeys(wrong) if other != instance.answer]
    if not wrong:
        return (), None
    drawn = [wrong[index] for index in sorted(generator.permutation(len(wrong))[:MOST])]
    keys = [instance.answer, *drawn]
    order = generator.permutation(len(keys)).tolist()
    return tuple(_said(instance, keys[index]) for index in order), order.index(0)


def number_distractors(answer: int) -> list[str]:
    """Numbers that a slip would give: one or ten too many or too few, digits in the other order."""
    slips = [answer + 1, answer - 1, answer + 10, answer - 10, int(str(abs(answer))[::-1])]
    return [str(slip) for slip in slips if slip >= 0]


def _said(instance: Instance, answer: str) -> str:
    if not instance.said.startswith(" "):
        return answer
    return f" {answer[0].upper()}{answer[1:]}" if instance.prompt.endswith("adept:") else f" {answer}"


def _facts(instance: Instance) -> Iterable[str]:
    if instance.group in SEVERAL_MAY_BE_RIGHT:
        return ()
    others = sorted({key(thing) for thing in RELATIONS[instance.group].facts.values()})
    return [other for other in others if not (has_words(other, instance.answer) or has_words(instance.answer, other))]


def _sums(instance: Instance) -> Sequence[str]:
    return instance.wrong or number_distractors(int(instance.answer))


def _sequences(instance: Instance) -> Iterable[str]:
    if instance.group not in {*ITEMS, *(f"{kind}{LISTED}" for kind in ITEMS)}:  # a list that is recited whole
        return ()
    items = ITEMS[instance.group.removesuffix(LISTED)]
    place = items.index(instance.answer)
    near = (items[other] for other in range(max(0, place - 3), min(len(items), place + 4)))
    return [other for other in near if other not in WORDS]


def _words(instance: Instance) -> Iterable[str]:
    if instance.group == "opposite":
        alike = set().union(*(group for group in ALIKE if instance.answer in group))
        asked = OPPOSITES[instance.answer]
        return [word for word in OPPOSITES if word not in alike and word != asked] + [asked]
    noun = next(noun for noun, many in PLURALS.items() if many == instance.answer)
    return [noun, regular_plural(noun), f"{noun}s", f"{noun}es", f"{noun[:-1]}ies", f"{noun}en"]


def _names(instance: Instance) -> Iterable[str]:
    """Names of the same side; beside an invented one, those that are taught."""
    sides = THINGS[instance.group]
    side = next((things for things in sides if instance.answer in things), sides[False])
    return [*instance.wrong, *side]


def _gifts(instance: Instance) -> Sequence[str]:
    return instance.wrong


def _agreement(instance: Instance) -> Iterable[str]:
    """The same verb in the other number."""
    number = next(number for number, forms in enumerate(FORMS) if instance.answer in forms)
    return [FORMS[1 - number][FORMS[number].index(instance.answer)]]


def _brackets(instance: Instance) -> Iterable[str]:
    """As many closings, one of them another kind, or in another order: a shorter run would be likelier for that."""
    right, marks = instance.answer, sorted(set(CLOSING.values()))
    others = {right[:place] + mark + right[place + 1 :] for place in range(len(right)) for mark in marks}
    return sorted(others | {"".join(order) for order in itertools.permutations(right)})


def _row(instance: Instance) -> Iterable[str]:
    """The other words of the row that is copied."""
    return sorted(set(re.findall(r"\w+", instance.prompt)))


def _arithmetic(instance: Instance) -> Iterable[str]:
    return number_distractors(int(instance.answer))


_DISTRACTORS: Mapping[str, Callable[[Instance], Iterable[str]]] = {
    "facts": _facts,
    "sums": _sums,
    "sequences": _sequences,
    "words": _words,
    "names remembered": _names,
    "gifts": _gifts,
    "agreement": _agreement,
    "brackets": _brackets,
    "copying": _row,
    "arithmetic": _arithmetic,
}
