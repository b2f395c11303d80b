"""What holds for every skill: how instances are drawn, held out and judged."""

import hashlib
import re
from functools import cache

import numpy as np
import pytest

from persimmon_lab.training.skills import SKILLS, Instance, Skill
from persimmon_lab.training.skills.skill import (
    article,
    asked,
    begins,
    drawn_until,
    first_line,
    has_words,
    is_held_out,
    parted,
    says,
)

each_skill = pytest.mark.parametrize("skill", SKILLS.values(), ids=SKILLS)


@cache  # drawing is slow where annotations are checked
def drawn(skill: Skill, held_out: bool, count: int = 1500, seed: int = 0) -> list[Instance]:
    generator = np.random.default_rng(seed)
    return [skill.draw(generator, held_out) for _ in range(count)]


def test_the_skills_stand_under_their_names():
    assert list(SKILLS) == [
        "facts", "not knowing", "sums", "sequences", "words", "names remembered", "gifts", "agreement", "brackets",
    ]  # fmt: skip
    assert all(skill.name == name and isinstance(skill, Skill) for name, skill in SKILLS.items())


@each_skill
@pytest.mark.parametrize("held_out", [False, True])
def test_drawing_depends_on_the_generator_alone(skill, held_out):
    first = drawn(skill, held_out, 50, seed=3)
    assert drawn(skill, held_out, 50, seed=3) == first
    assert drawn(skill, held_out, 50, seed=4) != first
    assert len({instance.prompt for instance in first}) > 25


@each_skill
def test_no_prompt_is_both_taught_and_held_out(skill):
    def plain(instance: Instance) -> str:
        return re.sub(r"[^\w\s(\[{}\])\"'+=-]", "", instance.prompt).lower()

    taught = set(map(plain, drawn(skill, False)))
    held_out = set(map(plain, drawn(skill, True)))
    assert not taught & held_out
    assert len(held_out) >= 300


@each_skill
@pytest.mark.parametrize("held_out", [False, True])
def test_what_is_taught_is_right_and_what_is_wrong_is_not(skill, held_out):
    for instance in drawn(skill, held_out):
        assert skill.is_right(instance, instance.said), instance
        assert skill.is_right(instance, instance.said + instance.after), instance
        assert skill.is_right(instance, f"{instance.said}\n\nhuman: No, I don't know."), instance
        assert instance.answer.lower() in instance.said.lower()
        assert instance.answer not in instance.wrong
        for key in ("", "\n" + instance.said, " Tomorrow, perhaps.", *(f" {wrong}." for wrong in instance.wrong)):
            assert not skill.is_right(instance, key), (instance, key)


@each_skill
def test_texts_are_shaped_as_they_are_read(skill):
    instances = drawn(skill, False) + drawn(skill, True)
    for instance in instances:
        assert instance.text == instance.prompt + instance.said + instance.after
        assert instance.prompt == instance.prompt.strip() and instance.group
        assert instance.said[0] == " " or skill.name == "brackets"
        assert instance.said.lstrip(" ") == instance.said[instance.said[0] == " " :]
        assert skill.name in ("names remembered", "brackets") or not re.search(r"  |[{}]|\.\.|\?\?", instance.text)
        if instance.prompt.startswith("human: "):
            assert re.fullmatch(r"(human: [^\n]+\n\nadept: [^\n]+\n\n)*human: [^\n]+\n\nadept:", instance.prompt)
            assert re.fullmatch(r" [A-Z\d].*[.!]|(\W+)", instance.said), instance
    prompts = {re.sub(r"\d+", "#", instance.prompt) for instance in instances}
    assert len(prompts) > 20


@each_skill
def test_only_training_types_carelessly(skill):
    def careless(instance: Instance) -> bool:
        return instance.prompt.rpartition("human: ")[2][0].islower()

    chats = [instance for instance in drawn(skill, False) if instance.prompt.startswith("human: ")]
    letters = [instance for instance in chats if not instance.prompt.rpartition("human: ")[2][0].isdigit()]
    if chats:
        assert 0.09 < np.mean([careless(instance) for instance in letters]) < 0.18
    assert not any("human: " in instance.prompt and careless(instance) for instance in drawn(skill, True))


def test_held_out_is_a_matter_of_the_hash():
    for key in ("one", "two", "three", "27 48"):
        number = int(hashlib.sha256(f"sums:{key}".encode()).hexdigest()[:16], 16) / 16**16
        assert is_held_out("sums", key, number + 1e-9) and not is_held_out("sums", key, number - 1e-9)
    assert not is_held_out("sums", "one", 0.0) and is_held_out("sums", "one", 1.0)
    keys = [str(number) for number in range(4000)]
    taught, held_out = parted("words", keys, 0.2)
    assert sorted(taught + held_out) == sorted(keys) and 720 < len(held_out) < 880
    assert held_out == tuple(key for key in keys if is_held_out("words", key, 0.2))
    assert set(held_out) != set(parted("sums", keys, 0.2)[True])
    assert set(parted("words", keys[::-1], 0.2)[True]) == set(held_out)


@pytest.mark.parametrize(
    ("text", "key", "found"),
    [
        (" It's Paris.", "Paris", True),
        (" it's paris", "Paris", True),
        (" A parisian.", "Paris", False),
        (" 75.", "75", True),
        (" 175", "75", False),
        (" 750", "75", False),
        (" 7.5", "7", False),
        (" 7.5", "5", False),
        (" 1,007", "1", False),
        (" -7", "7", False),
        (" I am he.", "He", False),
        (" It's He.", "He", True),
        (" In.", "in", True),
        (" It says hee-haw!", "haw", False),
        (" I don't know that one.", "don't know", True),
        (" New York City.", "york city", True),
    ],
)
def test_keys_are_whole_words(text, key, found):
    assert has_words(text, key) == found


@pytest.mark.parametrize(
    ("continuation", "right"),
    [
        (" Paris.", True),
        (" The capital is PARIS, of course.", True),
        (" Paris\nand London", True),
        (" Paris.|ENDOFTEXT| London", True),
        (" Paris. human: London?", True),
        (" Paris or London.", False),
        (" I don\u2019t know Paris.", False),
        (" London", False),
        ("\n Paris.", False),
        ("", False),
    ],
)
def test_the_first_line_says_the_answer_and_nothing_wrong(continuation, right):
    instance = Instance("?", "Paris", " Paris.", wrong=("London", "don't know"))
    assert says(instance, continuation) == right


def test_text_that_goes_on_begins_with_the_answer():
    assert begins(" are here, and it is late", ["were", "are"])
    assert begins(" are", ["are"])
    assert not begins(" area", ["are"])
    assert not begins("are", ["are"])
    assert not begins(" is where they are", ["are"])
    assert not begins("\n are", ["are"])


def test_first_line_ends_with_the_turn():
    assert first_line(" a b\nc") == " a b"
    assert first_line(" a human: b") == " a "


def test_asking():
    generator = np.random.default_rng(0)
    assert asked("Is it?", generator, True) == "human: Is it?\n\nadept:"
    forms = {asked("Is it?", generator, False) for _ in range(200)}
    assert forms == {f"human: {form}\n\nadept:" for form in ("Is it?", "Is it", "is it?", "is it")}


def test_drawing_until_it_fits():
    numbers = iter(range(100))
    assert drawn_until(lambda: next(numbers), lambda number: number > 6) == 7
    assert next(numbers) == 8


def test_articles():
    assert [article(noun) for noun in ("owl", "dog", "eagle")] == ["an owl", "a dog", "an eagle"]
