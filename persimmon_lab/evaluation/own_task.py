"""Questions of one's own: a file of JSON lines, `{"question": …, "answer": …, "choices": […]}` each, as a task."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from persimmon_lab.evaluation.items import Item
from persimmon_lab.json_lines import json_lines
from persimmon_lab.tokenizer.chat import render_chat
from persimmon_lab.training.skills.scoring import NEW_TOKENS
from persimmon_lab.training.skills.skill import first_line, has_words

FIELDS = ("question", "answer", "choices")
FORM = '{"question": "…", "answer": "…", "choices": ["…", "…"]}, choices if there are any'


class OwnTask:
    """Asks the questions in the chat format; right is who says the answer as whole words in the first line, and none of
    the other choices.

    Lines are asked in an order that the seed draws; those that are not asked demonstrate. Raises ValueError, which
    names the file and the line, for what is no such line.
    """

    def __init__(self, path: Path, new_tokens: int = NEW_TOKENS) -> None:
        content = path.read_bytes()
        self.name, self.new_tokens = path.stem, new_tokens
        self.source = f"{path.name}, sha256 {hashlib.sha256(content).hexdigest()[:16]}"
        self.questions = [_question(place, entry) for place, entry in json_lines(path, FORM)]
        seen: dict[str, int] = {}
        for number, (question, _, _) in enumerate(self.questions, 1):
            if (first := seen.setdefault(question, number)) != number:
                raise ValueError(
                    f"{path} asks {question!r} twice, as its questions {first} and {number}; keep one: items that are "
                    "the same count twice and make intervals too narrow"
                )

    def __repr__(self) -> str:
        return f"<OwnTask {self.name}: {len(self.questions)} questions>"

    def items(self, count: int, seed: int) -> list[Item]:
        return self._drawn(self._order(seed)[:count])

    def examples(self, count: int, seed: int) -> list[Item]:
        """From the other end of the order that `items` draws."""
        return self._drawn(self._order(seed)[::-1][:count])

    def check(self, item: Item, text: str) -> bool:
        line = first_line(text)
        return has_words(line, item.answer) and not any(has_words(line, other) for other in item.wrong)

    def _order(self, seed: int) -> list[int]:
        return [int(index) for index in np.random.default_rng(seed).permutation(len(self.questions))]

    def _drawn(self, order: list[int]) -> list[Item]:
        items = []
        for number, index in enumerate(order):
            question, answer, choices = self.questions[index]
            items.append(
                Item(
                    self.name,
                    number,
                    prompt=render_chat(question),
                    answer=answer,
                    choices=tuple(f" {choice}" for choice in choices),
                    correct=choices.index(answer) if choices else None,
                    said=f" {answer}",
                    wrong=tuple(choice for choice in choices if choice != answer and not has_words(answer, choice)),
                )
            )
        return items


def _question(place: str, entry: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]]:
    """(question, answer, choices) of a line; ValueError that begins with its place."""
    if unknown := [name for name in entry if name not in FIELDS]:
        raise ValueError(f"{place}: unknown {', '.join(map(repr, unknown))}; a line has {', '.join(FIELDS)}")
    for name in ("question", "answer"):
        if not isinstance(entry.get(name), str) or not entry[name].strip():
            raise ValueError(f"{place}: {name} is {entry.get(name)!r}; expected a text that is not empty")
    choices = entry.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) and choice.strip() for choice in choices):
        raise ValueError(f"{place}: choices is {choices!r}; expected a list of texts")
    if choices and (len(set(choices)) != len(choices) or len(choices) < 2 or entry["answer"] not in choices):
        raise ValueError(f"{place}: choices {choices!r} must be two or more, all different, one of them the answer")
    return entry["question"], entry["answer"], tuple(choices)
