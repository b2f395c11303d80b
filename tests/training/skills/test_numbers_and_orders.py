"""Sums are right by another computation, sequences by another order, and what is held out stays out."""

import operator
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from persimmon_lab.training.skills import SKILLS, Instance
from persimmon_lab.training.skills.sequences import QUESTIONS
from persimmon_lab.training.skills.skill import is_held_out

SUMS, SEQUENCES = SKILLS["sums"], SKILLS["sequences"]
ORDERS = {
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "month": "January February March April May June July August September October November December",
    "letter": "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
    "number": " ".join(map(str, range(1, 100))),
}
ORDERS = {kind: order.split() for kind, order in ORDERS.items()}


@cache  # drawing is slow where annotations are checked
def drawn(skill, held_out: bool, count: int = 4000, seed: int = 2) -> list[Instance]:
    generator = np.random.default_rng(seed)
    return [skill.draw(generator, held_out) for _ in range(count)]


# Sums


def operands(instance: Instance) -> tuple[int, int]:
    """The numbers in the order in which they are computed with: 9 taken from 12 is 12 - 9."""
    a, b = map(int, re.findall(r"\d+", instance.prompt))
    return (b, a) if re.search(r"(take|subtract) \d+ (away )?from", instance.prompt, re.IGNORECASE) else (a, b)


@pytest.mark.parametrize("held_out", [False, True])
def test_sums_are_right_and_within_bounds(held_out):
    compute = {"+": operator.add, "-": operator.sub, "larger": max, "smaller": min}
    groups = Counter()
    for instance in drawn(SUMS, held_out):
        a, b = operands(instance)
        assert int(instance.answer) == compute[instance.group](a, b), instance
        assert min(a, b, int(instance.answer)) >= 0 and max(a, b, int(instance.answer)) <= 99
        assert instance.group in "+-" or a != b
        if instance.group in "+-":
            steps = re.findall(r"([\d +-]+) = (\d+)", instance.said)
            assert len(steps) == (1 if max(a, b) < 10 else 2)
            assert all(eval(step) == int(result) for step, result in steps), instance
            if len(steps) == 2:  # the ones, then the tens with what was carried or borrowed
                digits = [int(digit) % 10 for digit in re.findall(r"\d+", steps[0][0])]
                assert digits == [a % 10, b % 10] and int(steps[0][1]) % 10 == int(instance.answer) % 10
                assert int(steps[1][1]) == int(instance.answer) // 10
        groups[instance.group] += 1
    assert groups.keys() == compute.keys() and min(groups.values()) > 400


@pytest.mark.parametrize("held_out", [False, True])
def test_pairs_are_held_out_in_both_orders_and_all_operations(held_out):
    for instance in drawn(SUMS, held_out):
        a, b = sorted(operands(instance))
        assert is_held_out("sums", f"{a} {b}", 0.1) == held_out, instance


def test_sums_come_large_and_small_and_in_all_phrasings():
    taught = drawn(SUMS, False)
    totals = Counter(int(instance.answer) // 25 for instance in taught if instance.group == "+")
    assert totals.keys() == {0, 1, 2, 3} and min(totals.values()) > 200
    assert len({re.sub(r"\d+", "#", instance.prompt).lower() for instance in taught}) > 40
    assert all(instance.prompt.startswith("human") for instance in taught)
    for group in ("larger", "smaller"):
        compared = [operands(instance) for instance in taught if instance.group == group]
        assert sum(str(a) == str(b)[::-1] for a, b in compared) > 0.15 * len(compared)
        # 3 or 30: the longer number first and last.
        for shorter, longer in ((0, 1), (1, 0)):
            assert sum(len(str(pair[shorter])) < len(str(pair[longer])) for pair in compared) > 0.15 * len(compared)


@pytest.mark.parametrize(
    ("group", "continuation", "right"),
    [
        ("+", " 75.", True),
        ("+", " 27 + 48 = 75.", True),
        ("+", " 75 + 48 = 123.", False),
        ("+", " 175.", False),
        ("+", " Seventy-five.", False),
        ("+", " 75\n76", True),
        ("larger", " 75 is larger than 57.", True),
        ("larger", " 57, not 75.", False),
    ],
)
def test_the_number_that_counts(group, continuation, right):
    instance = Instance("?", "75", " 75.", group=group)
    assert SUMS.is_right(instance, continuation) == right


# Sequences


def question(instance: Instance) -> tuple[str, str, str] | None:
    """(kind, way, item) of a question, found by the words in it; None for a list or a recitation."""
    if found := re.search(r" (after|before) (\w+)", instance.prompt):
        kind = instance.group
        return kind, found[1], found[2].capitalize()
    return None


def following(kind: str, way: str, item: str) -> str:
    order = ORDERS[kind] if way == "after" else ORDERS[kind][::-1]
    return (order + order)[order.index(item) + 1]


@pytest.mark.parametrize("held_out", [False, True])
def test_questions_have_the_neighbour_and_keep_to_their_side(held_out):
    kinds = Counter()
    for instance in drawn(SEQUENCES, held_out):
        if instance.group in ORDERS:
            kind, way, item = question(instance)
            assert instance.answer == following(kind, way, item), instance
            assert is_held_out("sequences", f"{way} {item}", 0.2) == held_out
            kinds[kind] += 1
            assert not {item, instance.answer, "A", "I"} & {*instance.wrong}
            assert {*ORDERS[kind]} - {*instance.wrong} <= {item, instance.answer, "A", "I"}
    assert kinds.keys() == ORDERS.keys() and min(kinds.values()) > 300


@pytest.mark.parametrize("held_out", [False, True])
def test_lists_go_on_with_the_next_and_keep_to_their_side(held_out):
    ways = set()
    for instance in drawn(SEQUENCES, held_out):
        if instance.group.endswith(", listed"):
            kind = instance.group.partition(",")[0]
            chat = re.search(r"human: (.*: )?(.*?)[?,]*\n", instance.prompt)
            items = (chat[2] if chat else instance.prompt.rstrip(",")).split(", ")
            items = [item.capitalize() for item in items]
            way = "after" if following(kind, "after", items[0]) == items[1] else "before"
            whole = items + re.findall(r"\w+", instance.said + instance.after)
            assert all(following(kind, way, one) == two for one, two in zip(whole, whole[1:])), instance
            assert 3 <= len(items) <= 5 and is_held_out("sequences", f"{way} {items[-1]}", 0.2) == held_out
            ways.add((kind, way))
    assert len(ways) == 8


def test_lists_are_taught_more_than_they_are_asked_for_and_mostly_in_a_chat():
    taught, held_out = (
        [instance for instance in drawn(SEQUENCES, side, 6000) if instance.group != "recited"] for side in (False, True)
    )
    listed = [instance for instance in taught if instance.group.endswith("listed")]
    assert 0.3 < len(listed) / len(taught) < 0.5
    assert sum(instance.prompt.startswith("human") for instance in listed) > 0.6 * len(listed)
    of_held_out = [instance for instance in held_out if instance.group.endswith("listed")]
    assert 0.15 < len(of_held_out) / len(held_out) < 0.25


def test_days_and_months_go_round_and_the_others_end():
    every = {kind: {*taught, *held_out} for kind, (taught, held_out) in QUESTIONS.items()}
    assert {kind: len(questions) for kind, questions in every.items()} == {
        "day": 14, "month": 24, "letter": 2 * 25 - 3, "number": 2 * 98,
    }  # fmt: skip
    assert {"after Sunday", "before Monday"} <= every["day"] and {"before January"} <= every["month"]
    assert not {"after Z", "before A", "before B", "after H", "before J"} & every["letter"]
    assert not {"after 99", "before 1"} & every["number"]


def test_recitations_are_only_training_and_go_through_what_is_held_out():
    assert not any(instance.group == "recited" for instance in drawn(SEQUENCES, True))
    taught = drawn(SEQUENCES, False, 8000)
    recited = [instance for instance in taught if instance.group == "recited"]
    assert 0.25 < len(recited) / len(taught) < 0.35
    steps = set()
    for instance in recited:
        items = instance.answer.split(", ")
        kind = next(kind for kind, order in ORDERS.items() if items[0] in order)
        way = "after" if following(kind, "after", items[0]) == items[1] else "before"
        assert all(following(kind, way, one) == two for one, two in zip(items, items[1:])), instance
        assert ("back" in instance.prompt or "down" in instance.prompt) == (way == "before"), instance
        assert len(items) == len(set(items))
        ends = re.findall(r"(?:from|to) (\w+)", instance.prompt, re.IGNORECASE)
        if len(ends) == 2:
            wanted = {items[0].lower(), items[-1].lower()}
            assert {end.lower() for end in ends} == wanted
        else:
            assert items == ORDERS[kind][:: 1 if way == "after" else -1]
        steps |= {(way, one) for one in items[:-1]}
    held_out = {question(instance)[1:] for instance in drawn(SEQUENCES, True) if instance.group in ORDERS}
    assert held_out <= steps


def test_a_list_may_go_on_and_an_answer_may_not():
    listed = Instance("Monday, Tuesday, Wednesday,", "Thursday", " Thursday", group="day, listed")
    assert SEQUENCES.is_right(listed, " Thursday, Friday, Saturday")
    assert not SEQUENCES.is_right(listed, " Friday, Thursday")
    asked = next(one for one in drawn(SEQUENCES, False) if one.group == "day" and one.answer == "Thursday")
    assert not SEQUENCES.is_right(asked, " Wednesday, Thursday, Friday.")
    letter = next(one for one in drawn(SEQUENCES, False) if one.group == "letter" and one.answer == "T")
    assert SEQUENCES.is_right(letter, " It's T, a letter I like.")
    assert not SEQUENCES.is_right(letter, " It isn't t.")
