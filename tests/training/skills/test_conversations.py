"""What was told is asked for, and who received is not who gave."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from persimmon_lab.training.skills import SKILLS, Instance, gifts, names_remembered
from persimmon_lab.training.skills.gifts import NAMES, PLACES
from persimmon_lab.training.skills.names_remembered import DATA, THINGS, aside, is_neutral, neutral_exchanges
from persimmon_lab.training.skills.not_knowing import INVENTED
from persimmon_lab.training.skills.skill import is_held_out
from persimmon_lab.training.templates import Exchange, Turn, exchanges


@cache  # drawing is slow where annotations are checked
def drawn(skill: str, held_out: bool, count: int = 3000, seed: int = 6) -> list[Instance]:
    generator = np.random.default_rng(seed)
    return [SKILLS[skill].draw(generator, held_out) for _ in range(count)]


# Names remembered


def test_there_are_names_enough():
    least = {"name": 150, "pet": 60, "town": 80, "color": 15}
    assert all(len(DATA[kind]) == len(set(DATA[kind])) >= least[kind] for kind in THINGS)


@pytest.mark.parametrize("held_out", [False, True])
def test_what_is_asked_for_was_told_by_the_human_once(held_out):
    kinds, lengths = Counter(), Counter()
    for instance in drawn("names remembered", held_out):
        turns = instance.prompt.split("\n\n")
        told = [turn for turn in turns[:-2:2] if re.search(rf"\b{instance.answer}\b", turn, re.IGNORECASE)]
        assert len(told) == 1, instance
        assert not re.search(rf"\b{instance.answer}\b", turns[-2], re.IGNORECASE)
        if instance.wrong:
            assert instance.wrong[0].lower() in instance.prompt.lower() and instance.wrong[0] != instance.answer
        kinds[instance.group] += 1
        lengths[len(turns) // 2] += 1
    assert kinds.keys() == (THINGS.keys() - {"color"} if held_out else THINGS.keys())
    assert min(kinds.values()) > 600
    assert {2, 3, 4, 5} <= lengths.keys()


def test_held_out_names_are_never_told_in_training():
    for kind in ("name", "pet", "town"):
        assert THINGS[kind][True] == tuple(x for x in DATA[kind] if is_held_out("names remembered", x, 0.2))
        assert 0.1 < len(THINGS[kind][True]) / len(DATA[kind]) < 0.3
    assert THINGS["color"][True] == ()
    invented = {*INVENTED["city"][False]}
    assert not invented & {x for kind in ("name", "pet", "town") for x in DATA[kind]}
    asked = {(bool(side), kind): set() for kind, sides in THINGS.items() for side in (0, 1) if sides[side]}
    for held_out in (False, True):
        for instance in drawn("names remembered", held_out, 6000):
            if held_out or instance.answer not in invented:
                asked[held_out, instance.group].add(instance.answer)
                assert instance.answer in THINGS[instance.group][held_out]
            # What is told besides may have the name of something of another kind: a dog and a man are called Bruno.
            others = [{*taught} for taught, _ in THINGS.values()] + [invented]
            assert held_out or not instance.wrong or any(instance.wrong[0] in taught for taught in others)
    share = np.mean([instance.answer in invented for instance in drawn("names remembered", False)])
    assert 0.17 < share < 0.28  # of the names 0.3, of the colors none
    assert all(asked[held_out, kind] == {*THINGS[kind][held_out]} for held_out, kind in asked)


def test_small_talk_remembers_no_held_out_name():
    """It asks for names too; whichever it uses have to leave names.toml, or their side of it."""
    remembering = re.compile(r"(what's|what is|remember|say) my name|who am i", re.IGNORECASE)
    used = set()
    for found in exchanges().values():
        for exchange in found:
            texts = [text for turn in (exchange, *exchange.then) for text in (*turn.ask, *turn.answer)]
            if any(map(remembering.search, texts)):
                slots = {slot for text in texts for slot in re.findall(r"\{(\w+)\}", text)}
                used |= {value for slot in slots for value in exchange.slots[slot]}
    assert not used & {*THINGS["name"][True]}


def exchange(ask: str, answer: str = "Yes.", follow: str = "Right.", **slots: list[str]) -> Exchange:
    return Exchange((ask,), (answer,), (Turn((follow,), ("Good.",)),), slots)


def test_what_keeps_off_names():
    assert is_neutral(exchange("It rains in the garden {when}.", when=["now", "today"], name=["Anna"]))
    for telling in (
        exchange("My name is {name}.", name=["Xaver"]),
        exchange("Is it blue?"),
        exchange("I am {who}.", who=["Anna", "tired"]),
        exchange("Yes.", answer="What's your name?"),
        exchange("Yes.", follow="We call her Fluff."),
        exchange("I live in a big town."),
    ):
        assert not is_neutral(telling)


def test_asides_come_from_what_is_neutral():
    generator = np.random.default_rng(0)
    found = [aside(generator) for _ in range(400)]
    assert {len(lines) for lines in found} == {2, 4}
    assert not any("{" in line for lines in found for line in lines)
    assert all(is_neutral(exchange) for exchange in neutral_exchanges())


def test_without_small_talk_the_answer_follows_at_once(monkeypatch):
    monkeypatch.setattr(names_remembered, "neutral_exchanges", tuple)
    lengths = {len(instance.prompt.split("\n\n")) // 2 for instance in drawn("names remembered", True, 100)}
    assert lengths == {2, 3}


def test_two_things_have_two_names(monkeypatch):
    monkeypatch.setattr(names_remembered, "INVENTED_SHARE", 0)
    monkeypatch.setattr(names_remembered, "THINGS", dict.fromkeys(THINGS, (("Bruno", "Felix"), ())))
    generator = np.random.default_rng(0)
    found = [SKILLS["names remembered"].draw(generator, False) for _ in range(100)]
    assert {instance.wrong for instance in found} == {(), ("Bruno",), ("Felix",)}
    assert not any(instance.answer in instance.wrong for instance in found)


def test_the_second_thing_told_is_wrong():
    instance = next(one for one in drawn("names remembered", True) if one.wrong)
    right = SKILLS["names remembered"].is_right
    assert right(instance, f" It's {instance.answer}.")
    assert not right(instance, f" It's {instance.answer} or {instance.wrong[0]}.")


# Gifts


def meeting(instance: Instance) -> tuple[list[str], str]:
    """The three names in the order in which they are said, and the place."""
    names = [word for word in re.findall(r"[A-Z]\w+", instance.prompt) if word in NAMES[False]]
    place = max((place for place in PLACES[False] if f"the {place}" in instance.prompt), key=len)
    return names, place


@pytest.mark.parametrize("held_out", [False, True])
def test_the_other_one_receives(held_out):
    groups = Counter()
    for instance in drawn("gifts", held_out):
        (one, two, giver), place = meeting(instance)
        assert one != two and giver in (one, two)
        assert instance.answer == (two if giver == one else one) and instance.wrong == (giver,)
        assert instance.group == ("giver first" if giver == one else "receiver first")
        held = [is_held_out("gifts", key, 0.25) for key in (one, two, place)]
        assert all(held) == held_out
        groups[instance.group] += 1
        assert instance.prompt.endswith(" to") and re.match(r"[.,]| and", instance.after)
    assert min(groups.values()) > 1350


def test_gifts_are_many():
    assert len(PLACES[False]) >= 40 and len(set(gifts.DATA["objects"])) >= 40 and len(gifts.DATA["frames"]) >= 5
    assert set(NAMES[True]) < set(NAMES[False]) and set(PLACES[True]) < set(PLACES[False])
    assert min(len(NAMES[True]), len(PLACES[True])) >= 8
    taught = [meeting(instance) for instance in drawn("gifts", False, 6000)]
    assert {place for _, place in taught} == set(PLACES[False])
    assert {name for names, _ in taught for name in names} == set(NAMES[False])
    # Held-out names meet in training too, only elsewhere.
    assert any(set(names) <= set(NAMES[True]) for names, _ in taught)


def test_the_next_word_counts():
    instance = Instance("When Mary and John went to the store, John gave a drink to", "Mary", " Mary", wrong=("John",))
    assert SKILLS["gifts"].is_right(instance, " Mary. John was glad.")
    assert not SKILLS["gifts"].is_right(instance, " John and Mary")
    assert not SKILLS["gifts"].is_right(instance, " Maryland")
