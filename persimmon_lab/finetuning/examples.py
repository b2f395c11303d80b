"""What a model is taught from: conversations and texts, a JSON object a line, all looked at before anything starts."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persimmon_lab.json_lines import json_lines
from persimmon_lab.tokenizer.chat import render_chat

Messages = tuple[Mapping[str, str], ...]

FORMATS = '{"messages": [{"role": "human", "content": "…"}, {"role": "adept", "content": "…"}]} or {"text": "…"}'
MOST_OVERLAP = 0.1  # of the held-out examples that may stand in the training part as well


@dataclass(frozen=True)
class Example:
    """One thing to learn: a conversation in turns that ends with an answer, or a text of which every token is learned.

    `name` says where it came from, "chats.jsonl, line 3". ValueError, with that name, for both or neither,
    for messages that are no conversation and for texts without words.
    """

    name: str
    messages: Messages | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if (self.messages is None) == (self.text is None):
            given = "neither messages nor text" if self.text is None else "both messages and text"
            raise ValueError(f"{self.name}: {given}; give {FORMATS}")
        if self.messages is not None:
            _check_conversation(self.name, self.messages)
        elif self.text is not None and not self.text.strip():
            raise ValueError(f"{self.name}: text is {self.text!r:.60}; give a string with something to learn in it")

    def rendered(self) -> str:
        """The whole text that the model reads."""
        return self.text or "" if self.messages is None else render_chat(self.messages, add_generation_prompt=False)

    @property
    def content(self) -> str:
        """What makes two examples the same: the text without regard to case and spacing."""
        return " ".join(self.rendered().casefold().split())


def conversation(*said: str, name: str = "an example") -> Example:
    """The human's and the model's words in turns: `conversation("Hello!", "Hi there.")`."""
    roles = ("human", "adept")
    return Example(name, messages=tuple({"role": roles[turn % 2], "content": text} for turn, text in enumerate(said)))


def read_examples(path: Path) -> list[Example]:
    """The examples of a file of JSON lines; empty lines are passed over, other keys than the two are ignored.

    Raises ValueError of the first line that is wrong, with the file, its number, what it is and what it should be, and
    for a file without examples; OSError where there is no file.
    """
    return [_example(place, entry) for place, entry in json_lines(path, FORMATS)]


def count_duplicates(examples: Iterable[Example]) -> int:
    """How many examples repeat an earlier one, but for case and spacing."""
    contents = [example.content for example in examples]
    return len(contents) - len(set(contents))


def split(examples: Sequence[Example], share: float, seed: int = 0) -> tuple[list[Example], list[Example]]:
    """(training, held out): about `share` of the examples is held out, at least one, and copies stay together.

    Raises ValueError for a share that is not between 0 and 1, and where nothing would be left for either part.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of {share:g} cannot be held out; give a number between 0 and 1, such as 0.1")
    contents = list(dict.fromkeys(example.content for example in examples))
    if len(contents) < 2:
        raise ValueError(f"{len(contents)} different examples cannot be parted in two; give more")
    count = min(max(1, round(share * len(contents))), len(contents) - 1)
    held_out = set(random.Random(seed).sample(contents, count))
    return (
        [example for example in examples if example.content not in held_out],
        [example for example in examples if example.content in held_out],
    )


def count_overlap(training: Iterable[Example], held_out: Iterable[Example]) -> int:
    """How many held-out examples stand in the training part too, but for case and spacing."""
    contents = {example.content for example in training}
    return sum(example.content in contents for example in held_out)


def check_overlap(training: Sequence[Example], held_out: Sequence[Example], most: float = MOST_OVERLAP) -> int:
    """`count_overlap`. Raises ValueError where it is more than the share `most` of the held-out examples: their loss
    would measure what was learned by heart."""
    count = count_overlap(training, held_out)
    if count > most * len(held_out):
        first = next(example for example in held_out if count_overlap(training, [example]))
        raise ValueError(
            f"{count} of the {len(held_out)} held-out examples are in the training part too ({first.name} is the "
            f"first), more than {most:.0%}; take them out of one of the two"
        )
    return count


def _example(name: str, entry: Mapping[str, Any]) -> Example:
    messages, text = entry.get("messages"), entry.get("text")
    if messages is None and text is None:
        raise ValueError(f"{name}: an object with the keys {list(entry)}; give {FORMATS}")
    if messages is not None and not isinstance(messages, list):
        raise ValueError(f"{name}: messages is {messages!r:.60}; give a list: {FORMATS}")
    for index, message in enumerate(messages or ()):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"{name}: message {index} is {message!r:.60}; give {FORMATS}")
    if not isinstance(text, str | None):
        raise ValueError(f"{name}: text is {text!r:.60}; give a string with something to learn in it")
    return Example(name, None if messages is None else tuple(messages), text)


def _check_conversation(name: str, messages: Messages) -> None:
    try:
        render_chat(messages, add_generation_prompt=False)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if len(messages) % 2:
        raise ValueError(f"{name}: the last message is the human's and has no answer; a conversation ends with one")
    for index, message in enumerate(messages):
        if not message["content"].strip():
            raise ValueError(f"{name}: message {index} is empty; every turn says something")
