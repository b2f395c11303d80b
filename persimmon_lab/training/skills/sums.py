"""Sums and differences of whole numbers, and which of two is larger or smaller.

A pair of numbers is held out whole: in both orders and in every question about it. Results are taught with their
working, a digit at a time, as one does it on paper: 7 + 8 = 15, 2 + 4 + 1 = 7, so 75.
"""

import re

import numpy as np

from persimmon_lab.training.skills.skill import Instance, Skill, asked, drawn_until, first_line, is_held_out, pick

NAME = "sums"
HELD_OUT = 0.1
MOST = 99  # no number, and no sum, is larger
SWAPPED = 0.3  # of comparisons are of a number and the same digits the other way round
UNEQUAL = (0.3, 0.0)  # of them (taught, held out) of numbers of which one is longer; more come by chance
OPERATIONS = (("+",) * 3 + ("-",) * 3 + ("larger",) * 2 + ("smaller",) * 2, ("+", "+", "-", "-", "larger", "smaller"))

ASKS = {
    "+": ("What is {a} + {b}?", "{a} + {b} =", "What's {a} + {b}?", "How much is {a} plus {b}?",
          "What is {a} plus {b}?", "Please add {a} and {b}.", "What do you get when you add {a} and {b}?",
          "Can you add {a} and {b}?", "What is the sum of {a} and {b}?"),
    "-": ("What is {a} - {b}?", "{a} - {b} =", "What's {a} - {b}?", "How much is {a} minus {b}?",
          "What is {a} minus {b}?", "Please take {b} away from {a}.", "What do you get when you take {b} from {a}?",
          "Can you subtract {b} from {a}?"),
    "larger": ("Which is larger, {a} or {b}?", "Which number is larger, {a} or {b}?", "Is {a} or {b} larger?",
               "Which is more, {a} or {b}?", "Tell me the larger number: {a} or {b}.", "What's bigger, {a} or {b}?"),
    "smaller": ("Which is smaller, {a} or {b}?", "Which number is smaller, {a} or {b}?", "Is {a} or {b} smaller?",
                "Which is less, {a} or {b}?", "Tell me the smaller number: {a} or {b}."),
}  # fmt: skip
SAID = {
    "larger": ("{key}.", "{key} is larger.", "{key} is larger than {other}."),
    "smaller": ("{key}.", "{key} is smaller.", "{key} is smaller than {other}."),
}


def pair_is_held_out(a: int, b: int) -> bool:
    return is_held_out(NAME, f"{min(a, b)} {max(a, b)}", HELD_OUT)


def working(a: int, operation: str, b: int) -> str:
    """The sum or difference as it is done on paper, the ones first, and its result.

    >>> working(27, "+", 48), working(75, "-", 48), working(7, "+", 8)
    ('7 + 8 = 15, 2 + 4 + 1 = 7, so 75.', '15 - 8 = 7, 7 - 1 - 4 = 2, so 27.', '7 + 8 = 15.')
    """
    sign = 1 if operation == "+" else -1
    total = a + sign * b
    if max(a, b) < 10:
        return f"{a} {operation} {b} = {total}."
    tens = f"{a // 10} {operation} {b // 10}"
    if operation == "+":
        ones = a % 10
        tens += " + 1" if ones + b % 10 > 9 else ""
    else:
        borrows = a % 10 < b % 10
        ones = a % 10 + 10 * borrows
        tens = f"{a // 10} - 1 - {b // 10}" if borrows else tens
    return f"{ones} {operation} {b % 10} = {ones + sign * (b % 10)}, {tens} = {total // 10}, so {total}."


def _numbers(operation: str, generator: np.random.Generator, held_out: bool) -> tuple[int, int]:
    """Two numbers fit for the operation. The total is drawn evenly, so that small sums come often."""
    total = int(generator.integers(MOST + 1))
    part = int(generator.integers(total + 1))
    if operation == "+":
        return part, total - part
    if operation == "-":
        return total, part
    kind = generator.random()
    if SWAPPED <= kind < SWAPPED + UNEQUAL[held_out]:  # 3 or 30
        pair = int(generator.integers(1, 10)), int(generator.integers(10, MOST + 1))
        return pair if generator.random() < 0.5 else pair[::-1]
    if kind < SWAPPED:  # 38 or 83
        tens, ones = drawn_until(
            lambda: generator.integers(1, 10, size=2).tolist(), lambda digits: len(set(digits)) > 1
        )
        return 10 * tens + ones, 10 * ones + tens
    return drawn_until(lambda: tuple(generator.integers(MOST + 1, size=2).tolist()), lambda pair: pair[0] != pair[1])


class Sums(Skill):
    """The group is the operation. In a result the last number said counts, in a comparison the first."""

    name = NAME

    def draw(self, generator: np.random.Generator, held_out: bool) -> Instance:
        operation = pick(generator, OPERATIONS[held_out])
        a, b = drawn_until(
            lambda: _numbers(operation, generator, held_out), lambda pair: pair_is_held_out(*pair) == held_out
        )
        numbers = {"a": a, "b": b}
        wrong: tuple[str, ...] = ()
        if operation in "+-":
            answer = a + b if operation == "+" else a - b
            said = working(a, operation, b)
        else:
            answer, other = (max(a, b), min(a, b)) if operation == "larger" else (min(a, b), max(a, b))
            numbers["other"] = other
            wrong = (str(other),)
            said = pick(generator, SAID[operation]).format(**numbers, key=answer)
        prompt = asked(pick(generator, ASKS[operation]).format(**numbers), generator, held_out)
        return Instance(prompt, str(answer), f" {said}", group=operation, wrong=wrong)

    def is_right(self, instance: Instance, continuation: str) -> bool:
        numbers = re.findall(r"\d+", first_line(continuation))
        place = -1 if instance.group in "+-" else 0
        return bool(numbers) and numbers[place] == instance.answer
