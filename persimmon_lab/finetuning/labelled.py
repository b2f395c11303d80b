"""Texts with labels, a JSON object a line: read, looked at, and parted so that nothing held out was taught."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persimmon_lab.json_lines import json_lines

FORMAT = '{"text": "What a lovely day!", "label": "weather"}'


@dataclass(frozen=True)
class Labelled:
    """A text and what it is; `name` says where it stands, for messages: "mail.jsonl, line 3"."""

    text: str
    label: str
    name: str = "a text"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(f"{self.name}: the text is empty; give one with words in it")
        if not self.label.strip():
            raise ValueError(f"{self.name}: the label of {self.text!r:.60} is empty; give one")

    @property
    def content(self) -> str:
        """What makes two texts the same: the words without regard to case and spacing."""
        return " ".join(self.text.casefold().split())


def read_labelled(path: Path) -> list[Labelled]:
    """The lines of a file; empty ones are passed over, and keys other than the two ignored.

    Raises ValueError of the first line that is wrong, with the file and its number, for the same text under two labels,
    and for a file without lines; OSError where there is no file.
    """
    texts = [_labelled(place, entry) for place, entry in json_lines(path, FORMAT)]
    first: dict[str, Labelled] = {}
    for text in texts:
        other = first.setdefault(text.content, text)
        if other.label != text.label:
            raise ValueError(
                f"{text.name}: the text is {text.label!r} here, {other.label!r} in {other.name}; give it one"
            )
    return texts


def _labelled(name: str, entry: Mapping[str, Any]) -> Labelled:
    if not {"text", "label"} <= entry.keys():
        raise ValueError(f"{name}: an object with the keys {list(entry)}; give {FORMAT}")
    text, label = entry["text"], entry["label"]
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(text, str) or not isinstance(label, str):
        raise ValueError(f"{name}: text is {text!r:.60} and label {label!r:.60}; give two strings, as in {FORMAT}")
    return Labelled(text, label, name)


def label_names(texts: Iterable[Labelled]) -> tuple[str, ...]:
    """All labels, in the order of the alphabet, which is that of the classifier's outputs. ValueError for fewer than
    two."""
    names = tuple(sorted({text.label for text in texts}))
    if len(names) < 2:
        raise ValueError(
            f"every text is {names[0] if names else 'missing'!r}; a classifier tells two labels or more apart"
        )
    return names


def split_labelled(texts: Sequence[Labelled], share: float, seed: int = 0) -> tuple[list[Labelled], list[Labelled]]:
    """(training, held out): about `share` of each label is held out, at least one; copies of a text stay together.

    Raises ValueError for a share that is not between 0 and 1, and for a label of which nothing would be left to learn.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share of {share:g} cannot be held out; give a number between 0 and 1, such as 0.2")
    generator = random.Random(seed)
    held_out: set[str] = set()
    for label in label_names(texts):
        contents = list(dict.fromkeys(text.content for text in texts if text.label == label))
        if len(contents) < 2:
            raise ValueError(
                f"the label {label!r} has one text, which cannot be learned and held out as well; give more"
            )
        held_out |= set(generator.sample(contents, min(max(1, round(share * len(contents))), len(contents) - 1)))
    training = [text for text in texts if text.content not in held_out]
    return training, [text for text in texts if text.content in held_out]


def without_held_out(training: Iterable[Labelled], held_out: Iterable[Labelled]) -> list[Labelled]:
    """The training texts that are not held out as well: a score on what was learned by heart is none."""
    contents = {text.content for text in held_out}
    return [text for text in training if text.content not in contents]


def commonest_share(training: Iterable[Labelled], held_out: Sequence[Labelled]) -> float:
    """The floor: how many of the held-out texts are right if each gets the label that training has most often."""
    ((label, _),) = Counter(text.label for text in training).most_common(1)
    return sum(text.label == label for text in held_out) / len(held_out)
