"""Arithmetic that gets harder by degrees, so that a score says how far a model comes: one digit to three, two steps.

The pairs that `sums` holds out are held out here; larger numbers, products and sums of three nothing ever teaches.
"""

import operator
import re

import numpy as np

from persimmon_lab.training.skills.skill import Instance, Skill, asked, drawn_until, first_line, is_held_out, pick
from persimmon_lab.training.skills.sums import MOST, pair_is_held_out

NAME = "arithmetic"
HELD_OUT = 0.5  # of what `sums` never asks
OPERATIONS = {"+": operator.add, "-": operator.sub, "x": operator.mul}
# Of each grade the operations, and the smallest and largest of its numbers.
GRADES = {
    "1: one digit": ("+-", 0, 9),
    "2: two digits, no carry": ("+-", 10, 49),
    "3: two digits, a carry": ("+-", 10, 99),
    "4: one digit, times": ("x", 2, 9),
    "5: three digits": ("+-", 100, 999),
    "6: two steps": ("+-", 1, 20),
}
QUESTION = "What is {sum}?"


def carries(a: int, operation: str, b: int) -> bool:
    """Whether the ones of a and b need the tens: 7 + 5, or 12 - 5."""
    return a % 10 + b % 10 > 9 if operation == "+" else a % 10 < b % 10


def kept_apart(a: int, operation: str, b: int) -> bool:
    """Whether training never shows this: by `sums`' own rule where it asks such things, else by a hash."""
    if operation in "+-" and max(a, b, a + b if operation == "+" else a) <= MOST:
        return pair_is_held_out(a, b)
    return is_held_out(NAME, f"{a} {operation} {b}", HELD_OUT)


class Arithmetic(Skill):
    """The group is the grade. The last number that the first line says counts, as in `sums`."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        grade = pick(generator, tuple(GRADES))
        numbers, operations = drawn_until(
            lambda: _drawn(grade, generator), lambda drawn: _fits(grade, *drawn, held_out=held_out)
        )
        result, written = numbers[0], str(numbers[0])
        for operation, number in zip(operations, numbers[1:], strict=True):
            result, written = OPERATIONS[operation](result, number), f"{written} {operation} {number}"
        prompt = asked(QUESTION.format(sum=written), generator, held_out=True)  # as it stands, never as typed in haste
        return Instance(prompt, str(result), f" {result}.", group=grade)

    def is_right(self, instance: Instance, continuation: str) -> bool:
        numbers = re.findall(r"\d+", first_line(continuation))
        return bool(numbers) and numbers[-1] == instance.answer


def _drawn(grade: str, generator: np.random.Generator) -> tuple[list[int], list[str]]:
    operations, least, most = GRADES[grade]
    steps = 2 if grade.endswith("two steps") else 1
    numbers = generator.integers(least, most + 1, size=steps + 1).tolist()
    return numbers, [pick(generator, operations) for _ in range(steps)]


def _fits(grade: str, numbers: list[int], operations: list[str], held_out: bool) -> bool:
    a, b, *more = numbers
    if grade.endswith("carry") and carries(a, operations[0], b) != grade.endswith("a carry"):
        return False
    if more:
        first = OPERATIONS[operations[0]](a, b)
        if min(first, OPERATIONS[operations[1]](first, more[0])) < 0:
            return False
        return is_held_out(NAME, f"{a} {operations[0]} {b} {operations[1]} {more[0]}", HELD_OUT) == held_out
    return OPERATIONS[operations[0]](a, b) >= 0 and kept_apart(a, operations[0], b) == held_out
