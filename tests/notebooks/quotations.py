"""The numbers that a notebook's prose quotes, and where they are printed.

A decimal or a percentage in prose was read off an output once, and nothing runs prose. So each has to stand, as far as
its digits go, in an output or in the code: of a cell above it or of the next one. The opening, and what unfolds
(answers, hints), may look ahead to the end.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tests.notebooks.rules import Cell, Notebook

# With no letter, digit or point at its side: the 4.37 of 4.37.2 is no number.
NUMBER = re.compile(r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d]|[.,]\d)(?:e[+-]?\d+)?(\s?\\?%)?")
UNQUOTED = re.compile(r"```.*?```|`[^`\n]*`|<code>.*?</code>|\]\([^)]*\)|<a [^>]*>|https?://\S+", re.DOTALL)
UNFOLDS = re.compile(r"<details>.*?</details>", re.DOTALL)
MARKUP = re.compile(r"<style.*?</style>|<script.*?</script>|<[^>]*>", re.DOTALL)
THOUSANDS = {3: 1e3, 6: 1e6, 9: 1e9, 12: 1e12}


@dataclass(frozen=True)
class Number:
    """A number as it is written: `digits` is how many stand behind the point."""

    text: str
    value: float
    digits: int
    percent: bool

    @classmethod
    def of(cls, match: re.Match[str]) -> "Number":
        text = match[0].strip()
        plain = re.sub(r"[,\s\\%]", "", text)
        mantissa, _, exponent = plain.partition("e")
        digits = len(mantissa.partition(".")[2]) - int(exponent or 0)
        return cls(text, float(plain), digits, match[1] is not None)

    @property
    def is_told(self) -> bool:
        """Whether it is one of those that must be printed: a decimal or a percentage. Counts may be anybody's."""
        return self.percent or "." in self.text

    def readings(self, as_percent: bool) -> Iterator[tuple[float, int]]:
        """The number and its digits as a quotation may tell them: 0.54 as 54%, 9,663,676,416 bytes as 9.7 GB."""
        if as_percent and not self.percent:
            yield 100 * self.value, self.digits - 2
        elif as_percent == self.percent:
            yield self.value, self.digits
            if not self.percent:
                yield from ((self.value / unit, self.digits + power) for power, unit in THOUSANDS.items())

    def tells(self, printed: "Number") -> bool:
        """Whether it is the printed number, rounded to no more digits than were printed."""
        for value, digits in printed.readings(self.percent):
            half = 0.5 * 10.0**-self.digits * (1 + 1e-9)  # a printed 4.65 may be told as 4.6 or as 4.7
            if value == self.value or (digits >= self.digits and abs(value - self.value) <= half):
                return True
        return False


def numbers(text: str) -> list[Number]:
    return [Number.of(match) for match in NUMBER.finditer(text)]


def printed(cell: Cell) -> list[Number]:
    """All numbers in a cell's code and in its outputs' text."""
    texts = [cell.source]
    for output in cell.outputs:
        data = output.get("data", {})
        texts += ["".join(output.get("text", "")), "".join(data.get("text/plain", ""))]
        texts.append(MARKUP.sub(" ", "".join(data.get("text/html", ""))))
    return numbers("\n".join(texts))


class Quotations:
    """The numbers that the prose of one notebook tells, beside those that its code cells print."""

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.printed = {cell.index: printed(cell) for cell in notebook.code}

    @cached_property
    def all(self) -> list[Number]:
        return [number for there in self.printed.values() for number in there]

    def up_to_the_next(self, cell: Cell) -> list[Number]:
        following = min((index for index in self.printed if index > cell.index), default=cell.index)
        return [number for index, there in self.printed.items() if index <= following for number in there]

    def unfounded(self) -> Iterator[tuple[int, str]]:
        """The cell and the text of each number that nothing prints."""
        opening = min(self.printed)
        for cell in self.notebook.cells:
            if cell.is_code:
                continue
            prose = UNQUOTED.sub(" ", cell.source)
            unfolding = "\n".join(UNFOLDS.findall(prose))
            for text, known in ((UNFOLDS.sub(" ", prose), self.up_to_the_next(cell)), (unfolding, self.all)):
                known = self.all if cell.index < opening else known
                for number in numbers(text):
                    if number.is_told and not any(number.tells(other) for other in known):
                        yield cell.index, number.text
