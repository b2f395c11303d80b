"""Facts don't contradict one another and are all taught; not knowing keeps off them."""

import re
import tomllib
from collections import Counter
from functools import cache
from importlib.resources import files

import numpy as np
import pytest

from persimmon_lab.training.skills import SKILLS, Instance
from persimmon_lab.training.skills.facts import FACTS, RELATIONS, WRONG, key, slots
from persimmon_lab.training.skills.not_knowing import (
    ASKED,
    COUNTRIES,
    INVENTED,
    KNOWN,
    PEOPLE,
    REGIONS,
    UNANSWERABLE,
)
from persimmon_lab.training.skills.skill import has_words, is_held_out

RAW = tomllib.loads((files("persimmon_lab.training.skills") / "facts.toml").read_text())
LEAST = {"capital": 110, "country": 110, "currency": 30, "continent": 80, "young": 35, "sound": 20, "color": 40,
         "symbol": 45, "element": 45, "food": 20, "home": 20}  # fmt: skip


@cache  # drawing is slow where annotations are checked
def drawn(skill: str, held_out: bool, count: int = 3000, seed: int = 1) -> list[Instance]:
    generator = np.random.default_rng(seed)
    return [SKILLS[skill].draw(generator, held_out) for _ in range(count)]


# Facts


@pytest.mark.parametrize("relation", RELATIONS.values(), ids=RELATIONS)
def test_a_relation_says_one_thing_of_a_subject(relation):
    """TOML itself refuses a key twice; a list of subjects it does not look into."""
    entry = RAW[relation.name]
    subjects = [*entry.get("facts", {}), *(one for several in entry.get("by_object", {}).values() for one in several)]
    assert len(subjects) == len(set(subjects))
    assert "reverses" in entry or set(subjects) == set(relation.facts)
    assert len(relation.facts) >= LEAST[relation.name]
    assert len(relation.taught) >= 6 and len(relation.held_out) == 3
    # An answer names what was asked about, so that the fact follows from the sentence that it stands in.
    assert all("subject}" in said and "object}" in said for said in relation.said)
    phrasings = [phrasing.lower().strip(".?") for phrasing in relation.taught + relation.held_out]
    assert len(phrasings) == len(set(phrasings))


def test_relations_agree_with_one_another():
    facts = {name: relation.facts for name, relation in RELATIONS.items()}
    assert sum(map(len, facts.values())) == len(FACTS) >= 400
    assert len(set(facts["capital"].values())) == len(facts["capital"])
    assert len(set(facts["symbol"].values())) == len(facts["symbol"])
    assert all(facts["capital"][country] == city for city, country in facts["country"].items())
    assert all(facts["symbol"][element] == symbol for symbol, element in facts["element"].items())
    assert set(facts["capital"]) - set(facts["country"].values()) == {"Guatemala", "Kuwait", "Mexico", "Panama"}
    lands = {*facts["capital"], "South Africa", "Israel", "Bolivia", "Indonesia"}
    assert facts["continent"].keys() | facts["currency"].keys() <= lands
    assert all(re.fullmatch("[A-Z][a-z]?", symbol) for symbol in facts["symbol"].values())


def test_some_facts_that_everybody_knows():
    def answer(relation: str, subject: str) -> str:
        return key(RELATIONS[relation].facts[subject])

    assert answer("capital", "France") == "Paris"
    assert answer("country", "Washington") == "United States"
    assert answer("currency", "Japan") == "yen"
    assert answer("continent", "Chile") == "South America"
    assert answer("young", "swan") == "cygnet"
    assert answer("symbol", "gold") == "Au"
    assert answer("food", "koala") == "eucalyptus"
    assert answer("home", "bee") == "hive"


def test_no_question_says_its_answer():
    for relation, subject, thing in FACTS:
        assert not has_words(subject, key(thing)) or relation.exclusive, (subject, thing)


def test_what_contradicts_an_answer():
    assert WRONG["capital", "Paris"] == ("don't know",)
    assert "Papua New Guinea" in WRONG["country", "Guinea"]
    assert set(WRONG["continent", "Africa"]) == {"don't know", "Asia", "Europe", "North America", "South America"}


def test_slots():
    assert slots("owl", "in a [hive]") == {
        "subject": "owl", "a_subject": "an owl", "object": "in a hive", "a_object": "an in a hive",
    }  # fmt: skip
    assert slots("owl")["a_object"] == ""
    assert [key(thing) for thing in ("in a [hive]", "the euro", "Paris")] == ["hive", "euro", "Paris"]


def pattern(phrasing: str) -> re.Pattern:
    """What a phrasing looks like, however it was typed and whatever fills it."""
    return re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(phrasing.lower().rstrip(".?"))))


def test_no_fact_is_taught_in_a_held_out_phrasing():
    held_out = {name: [*map(pattern, relation.held_out)] for name, relation in RELATIONS.items()}
    for instance in drawn("facts", True):
        question = instance.prompt.removeprefix("human: ").partition("\n")[0].lower().rstrip(".?")
        assert any(one.fullmatch(question) for one in held_out[instance.group])
    for instance in drawn("facts", False, 8000):
        question = instance.prompt.removeprefix("human: ").partition("\n")[0].lower().rstrip(".?")
        assert not any(one.fullmatch(question) for one in held_out[instance.group]), instance


def test_every_fact_is_drawn_and_asked_in_every_way():
    taught = drawn("facts", False, 12000)
    found = Counter((instance.group, instance.answer) for instance in taught)
    expected = Counter((relation.name, key(thing)) for relation, _, thing in FACTS)
    assert found.keys() == expected.keys()
    for fact, count in expected.items():  # 15 draws a fact
        assert abs(found[fact] - 15 * count) < 6 * (15 * count) ** 0.5 + 5
    plain = [instance for instance in taught if not instance.prompt.startswith("human")]
    assert 0.12 < len(plain) / len(taught) < 0.18
    young = [instance.text for instance in plain if instance.group == "young"]
    of = "(A baby [a-z]+|The young of (an [aeiou]|a [^aeiou])[a-z]+)"
    assert young and all(re.fullmatch(of + r" is called (an [aeiou]|a [^aeiou])[a-z]+\.", text) for text in young)
    assert {instance.said for instance in taught if instance.answer == "hive"} >= {" A bee lives in a hive."}


def test_a_refusal_is_no_fact():
    instance = Instance("?", "Paris", " Paris.", wrong=WRONG["capital", "Paris"])
    assert not SKILLS["facts"].is_right(instance, " I don't know Paris.")
    assert SKILLS["facts"].is_right(instance, " I think that's Paris, a city of light.")


# Not knowing


def test_nothing_is_taught_of_what_is_not_known():
    known = {subject.lower() for relation, subject, _ in FACTS} | {key(thing).lower() for *_, thing in FACTS}
    names = [name.lower() for sides in INVENTED.values() for side in sides for name in side]
    assert len(names) > 10000 and not known & {*names}
    assert len(COUNTRIES) >= 20 and not known & {name.lower() for name in COUNTRIES}
    # Of a region nothing is taught either, and its name is not a part of a country's.
    assert len(REGIONS) == len({*REGIONS}) >= 100 and not known & {name.lower() for name in REGIONS}
    assert not any(has_words(one, other) or has_words(other, one) for one in REGIONS for other in COUNTRIES)
    assert not {name.lower() for name in REGIONS} & {*names}
    asked = {pattern(phrasing) for relation in RELATIONS.values() for phrasing in relation.taught + relation.held_out}
    for entry in UNANSWERABLE[False] + UNANSWERABLE[True]:
        assert entry["kind"] in KNOWN and len(entry["asks"]) == 3
        questions = [ask.lower().rstrip(".?").replace("subject", "x").replace("{a_x}", "{x}") for ask in entry["asks"]]
        assert not any(one.fullmatch(question) for one in asked for question in questions)
    assert {relation.name for relations in ASKED.values() for relation in relations} == RELATIONS.keys() - {"element"}


def test_names_and_relations_are_held_out_by_their_hash():
    everything = [*INVENTED.values(), PEOPLE]
    for taught, held_out in everything:
        assert all(is_held_out("not knowing", name, 0.2) for name in held_out)
        assert not any(is_held_out("not knowing", name, 0.2) for name in taught)
        assert 0.15 < len(held_out) / (len(held_out) + len(taught)) < 0.25
    assert {entry["kind"] for entry in UNANSWERABLE[True]} >= {"land", "animal"} and len(UNANSWERABLE[True]) >= 4
    patterns = [[pattern(ask) for entry in side for ask in entry["asks"]] for side in UNANSWERABLE]
    names = [{name.lower() for taught_and_held in everything for name in taught_and_held[side]} for side in (0, 1)]
    for held_out in (False, True):
        groups = Counter()
        for instance in drawn("not knowing", held_out):
            question = instance.prompt.removeprefix("human: ").partition("\n")[0].lower().rstrip(".?")
            words = set(re.findall(r"\w+", question))
            pairs = {" ".join(pair) for pair in zip(question.split(), question.split()[1:])}
            groups[instance.group] += 1
            if instance.group in ("invented", "person"):
                told = words | {re.sub(r"\W+$", "", pair) for pair in pairs}
                assert told & names[held_out] and not told & names[not held_out], instance
            elif instance.group == "relation":
                assert any(one.fullmatch(question) for one in patterns[held_out]), instance
            else:
                assert instance.group == ("real country" if held_out else "real region")
                assert any(has_words(question, name) for name in (COUNTRIES if held_out else REGIONS))
                assert not any(has_words(question, name) for name in (REGIONS if held_out else COUNTRIES))
        assert groups.keys() == {"invented", "person", "relation", "real country" if held_out else "real region"}
        assert min(groups.values()) > 300


def test_invented_subjects_are_asked_about_as_known_ones_are():
    asked = [pattern(phrasing) for relation in RELATIONS.values() for phrasing in relation.taught]
    for instance in drawn("not knowing", False):
        if instance.group == "invented":
            question = instance.prompt.removeprefix("human: ").partition("\n")[0].lower().rstrip(".?")
            assert any(one.fullmatch(question) for one in asked), instance


def test_not_knowing_is_said():
    instance = drawn("not knowing", True, 1)[0]
    skill = SKILLS["not knowing"]
    assert skill.is_right(instance, " Sorry, I don't know that one.")
    assert not skill.is_right(instance, " Zorvia.")
    assert not skill.is_right(instance, " I do know: it's Zorvia.\n\nhuman: I don't know")
    assert {"I don't know.", "I don't know that one."} < {one.said.strip() for one in drawn("not knowing", False, 300)}
