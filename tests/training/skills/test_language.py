"""Words have one opposite and one plural, verbs agree, and brackets close by a stack of another make."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from persimmon_lab.training.skills import SKILLS, Instance, agreement, brackets, words
from persimmon_lab.training.skills.skill import is_held_out
from persimmon_lab.training.skills.words import DATA, OPPOSITES, PLURALS, WORDS, kept_apart, plural, regular_plural


@cache  # drawing is slow where annotations are checked
def drawn(skill: str, held_out: bool, count: int = 3000, seed: int = 5) -> list[Instance]:
    generator = np.random.default_rng(seed)
    return [SKILLS[skill].draw(generator, held_out) for _ in range(count)]


# Words


def test_opposites_are_mutual_and_each_word_has_one():
    listed = [word for pair in DATA["opposites"] for word in pair]
    assert len(DATA["opposites"]) >= 90 and len(listed) == len(set(listed)) == len(OPPOSITES)
    assert all(OPPOSITES[other] == word != other for word, other in OPPOSITES.items())


def test_plurals():
    nouns = [*DATA["irregular"], *DATA["regular"]]
    assert len(nouns) == len(set(nouns)) == len(PLURALS) >= 120
    assert not set(PLURALS) & set(PLURALS.values())
    assert len(set(PLURALS.values())) == len(PLURALS)
    expected = {"baby": "babies", "boy": "boys", "box": "boxes", "church": "churches", "dish": "dishes", "bus": "buses",
                "cat": "cats", "mouse": "mice", "potato": "potatoes", "rose": "roses", "kiss": "kisses"}  # fmt: skip
    assert {noun: plural(noun) for noun in expected} == expected
    # Every irregular one is: a rule would spell it otherwise.
    assert all(regular_plural(noun) != form for noun, form in DATA["irregular"].items())


def test_held_out_words_are_never_asked_about_and_their_partners_are():
    assert all(len(side) > 15 for sides in WORDS.values() for side in sides)
    for taught, held_out in WORDS.values():
        assert not set(taught) & set(held_out)
    assert set(WORDS["opposite"][True]) == {kept_apart(pair) for pair in DATA["opposites"]} - {None}
    assert all(OPPOSITES[word] in WORDS["opposite"][False] for word in WORDS["opposite"][True])
    assert set(WORDS["plural"][True]) == {noun for noun in PLURALS if is_held_out("words", noun, 0.2)}
    pairs = {tuple(pair): is_held_out("words", " ".join(pair), 0.2) for pair in DATA["opposites"]}
    assert all(bool({*pair} & {*WORDS["opposite"][True]}) == apart for pair, apart in pairs.items())

    singular = {form: noun for noun, form in PLURALS.items()}
    for held_out in (False, True):
        asked, told = ({"opposite": set(), "plural": set()} for _ in range(2))
        for instance in drawn("words", held_out, 9000):
            kind = instance.group.split()[-1]
            word = (OPPOSITES if kind == "opposite" else singular)[instance.answer]
            assert re.search(rf"\b{word}\b", instance.prompt, re.IGNORECASE), instance
            if instance.prompt.startswith("human"):
                asked[kind].add(word)
            else:  # a sentence holds nothing back
                assert not held_out
                told[kind].add(word)
        assert {kind: sorted(found) for kind, found in asked.items()} == {
            kind: sorted(sides[held_out]) for kind, sides in WORDS.items()
        }
        assert held_out or told == {"opposite": {*OPPOSITES}, "plural": {*PLURALS}}


def test_a_regularised_plural_is_wrong():
    instance = next(one for one in drawn("words", False) if one.answer == "children")
    assert instance.group == "irregular plural" and instance.wrong == ("childs",)
    assert SKILLS["words"].is_right(instance, " The plural of child is children.")
    assert not SKILLS["words"].is_right(instance, " Childs or children.")


# Agreement

NOUNS = {family_noun for family in agreement.DATA["family"] for family_noun in (*family["heads"], *family["between"])}
NUMBER = dict.fromkeys(NOUNS, 0) | {plural(noun): 1 for noun in NOUNS}
NOUN_OF = {noun: noun for noun in NOUNS} | {plural(noun): noun for noun in NOUNS}
SINGULAR, PLURAL = {"is", "was", "has"}, {"are", "were", "have"}


def nouns(instance: Instance) -> list[str]:
    return [noun for noun in re.findall(r"the (\w+)", instance.prompt, re.IGNORECASE) if noun in NUMBER]


@pytest.mark.parametrize("held_out", [False, True])
def test_verbs_agree_with_the_first_noun_whatever_stands_between(held_out):
    groups, heads, adverbs = Counter(), set(), []
    for instance in drawn("agreement", held_out):
        head, *between = nouns(instance)
        assert len(between) <= 2
        assert instance.answer in (PLURAL if NUMBER[head] else SINGULAR), instance
        assert {*instance.wrong} == (SINGULAR if NUMBER[head] else PLURAL)
        same = NUMBER[between[-1]] == NUMBER[head] if between else None
        assert instance.group == {None: "alone", True: "same number", False: "opposite number"}[same]
        assert is_held_out("agreement", NOUN_OF[head], 0.2) == held_out
        ends = instance.prompt.split()[-1] in agreement.ADVERBS
        assert ends or not held_out  # without an adverb "the boy" may turn out to be boys
        adverbs.append(ends)
        groups[instance.group, NUMBER[head]] += 1
        heads.add(NOUN_OF[head])
        assert instance.after.endswith(".") and instance.after.startswith(" ")
    assert len(groups) == 6 and min(groups.values()) > 400
    assert held_out or 0.4 < np.mean(adverbs) < 0.6
    expected = {head for _, head in agreement.SUBJECTS if is_held_out("agreement", head, 0.2) == held_out}
    assert heads == expected and len(expected) >= 15


def test_subjects_and_nouns_between_are_others():
    heads = {head for family in agreement.DATA["family"] for head in family["heads"]}
    assert not heads & {noun for family in agreement.DATA["family"] for noun in family["between"]}
    assert len(NOUN_OF) == 2 * len(NOUNS)
    assert plural("shelf") == "shelves" and words.plural("knife") == "knives"


def test_any_verb_of_the_number_is_right():
    instance = Instance("The keys to the cabinet", "are", " are", wrong=("is", "was", "has"))
    right = SKILLS["agreement"].is_right
    assert (
        right(instance, " were on the table, which is old.")
        and right(instance, " have gone.")
        and right(instance, " are")
    )
    assert not right(instance, " is on the table, as they are.") and not right(instance, " area")


# Brackets

PAIRS = {"(": ")", "[": "]", "{": "}"}


def open_at_the_end(prompt: str, code: bool) -> str:
    """What closes all that is open; in code, nothing within a string counts, and in text a mark closes its like."""
    stack: list[str] = []
    for character in prompt:
        in_string = code and stack and stack[-1] in "\"'"
        if stack and character == stack[-1]:
            stack.pop()
        elif character in "\"'" and not in_string:
            stack.append(character)
        elif character in PAIRS and not in_string:
            stack.append(PAIRS[character])
        else:
            assert in_string or character not in PAIRS.values(), prompt
    return "".join(reversed(stack))


@pytest.mark.parametrize("held_out", [False, True])
def test_all_that_is_open_is_closed(held_out):
    groups = Counter()
    for instance in drawn("brackets", held_out):
        kind, depth = instance.group.split()
        assert instance.answer == instance.said == open_at_the_end(instance.prompt, kind == "code"), instance
        assert len(instance.answer) == int(depth)
        assert is_held_out("brackets", instance.prompt.rstrip("!?."), 0.1) == held_out
        assert kind == "code" or instance.prompt[-1] in "!?."  # so that nothing but a closing can follow
        assert instance.after[0] not in ")]}\"'"
        groups[instance.group] += 1
    assert len(groups) == 8 and min(groups.values()) > 300


def test_nothing_but_closings_can_follow_code():
    """What ends a prompt stands nowhere else: no number before a comma, and none that another begins with."""
    numbers = words_of_code()["numbers"]
    assert not any(one != other and other.startswith(one) for one in numbers for other in numbers)
    last = Counter()
    for instance in drawn("brackets", False) + drawn("brackets", True):
        if instance.group.startswith("code"):
            outside = re.sub(r"([\"'])[^\"']*(\1|$)", "", instance.prompt)
            assert not re.search(r"\b\d+\b(?!$)", outside), instance.prompt
            number = re.search(r"\b\d+$", instance.prompt)
            assert number or instance.answer[0] in "\"'"
            last[bool(number)] += 1
    assert min(last.values()) > 300


def words_of_code() -> dict[str, list[str]]:
    return brackets.DATA["code"]


def test_code_is_python():
    for instance in drawn("brackets", False, 500):
        if instance.group.startswith("code"):
            body = re.sub(r"^", "    ", instance.text, flags=re.MULTILINE)
            compile(f"def f():\n{body}", "text", "exec")


def test_closings_are_exact():
    instance = Instance("print(max([a, (b", ")]))", ")]))")
    right = SKILLS["brackets"].is_right
    assert right(instance, ")]))") and right(instance, ")]))\n)") and right(instance, ")])) # done")
    for wrong in (")])", ")])))", ")]))]", " )]))", ")))]", "", ", c)]))"):
        assert not right(instance, wrong)
