"""The result of an evaluation: every answer, what it was made with, and the scores that follow from them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from persimmon_lab.atomic import write_atomically
from persimmon_lab.evaluation.answered import GENERATED, WAYS, Answered
from persimmon_lab.field_checks import parsed
from persimmon_lab.numerics.intervals import wilson

FORMAT = 1  # of the file
FILE = "report.json"


@dataclass(frozen=True)
class Score:
    """How many items were right in one way, between the floors and the ceiling. Shares are of `count`.

    `low` and `high` are Wilson's interval. `chance` is what blind guessing gets: of choices the mean of one over their
    number; of generated text the best that one and the same answer to every item gets. `five_gram` is the share of a
    5-gram of taught text, `ceiling` that of an oracle that says each item's own answer.
    """

    task: str
    way: str
    right: int
    count: int
    low: float
    high: float
    chance: float
    five_gram: float
    ceiling: float

    @property
    def share(self) -> float:
        return self.right / self.count


@dataclass(frozen=True)
class TaskReport:
    """All answers to one task. `constant` is the share that the best single answer gets, `ceiling` that of the oracle;
    `seen` the numbers of the items whose prompts and answers stand in taught text (`overlap`)."""

    task: str
    source: str
    constant: float
    constant_answer: str
    ceiling: float
    answered: tuple[Answered, ...] = field(repr=False)
    seen: tuple[int, ...] = ()

    def score(self, way: str = GENERATED) -> Score | None:
        """One of WAYS; None where no item has choices."""
        verdicts = self.verdicts(way)
        if not verdicts:
            return None
        asked = [one for one in self.answered if one.item.number in verdicts]
        right, count = sum(verdicts.values()), len(verdicts)
        chance = self.constant if way == GENERATED else sum(1 / len(one.item.choices) for one in asked) / count
        floor = sum(one.floor.right(way, one.item.correct) is True for one in asked) / count
        ceiling = self.ceiling if way == GENERATED else 1.0
        return Score(self.task, way, right, count, *wilson(right, count), chance, floor, ceiling)

    def verdicts(self, way: str = GENERATED) -> dict[int, bool]:
        """Right or wrong by the item's number, of the items that can be judged this way."""
        judged = {one.item.number: one.right(way) for one in self.answered}
        return {number: verdict for number, verdict in judged.items() if verdict is not None}

    def groups(self, way: str = GENERATED) -> dict[str, tuple[int, int]]:
        """(right, count) of each group."""
        verdicts = self.verdicts(way)
        group = {one.item.number: one.item.group for one in self.answered}
        right = Counter(group[number] for number, verdict in verdicts.items() if verdict)
        count = Counter(group[number] for number in verdicts)
        return {name: (right[name], count[name]) for name in sorted(count)}

    @property
    def disagreements(self) -> list[Answered]:
        """Items whose normalisations pick different choices."""
        return [one for one in self.answered if one.disagrees()]

    @property
    def contradictions(self) -> list[Answered]:
        """Items whose text and whose most probable choice are not both right or both wrong."""
        return [one for one in self.answered if one.contradicts()]

    @property
    def asked_alone(self) -> int:
        return sum(one.alone is not None for one in self.answered)

    @property
    def changed(self) -> list[Answered]:
        """Items whose verdict, in some way, depends on the batch that they were asked in."""
        return [one for one in self.answered if one.changed()]

    @property
    def fewer_shots(self) -> list[int]:
        """The numbers of items with fewer demonstrations than others: there was no room for more."""
        most = max((one.item.shots for one in self.answered), default=0)
        return [one.item.number for one in self.answered if one.item.shots < most]


@dataclass(frozen=True)
class Report:
    """`settings` are what was asked for, `made_with` the model's fingerprint, the versions and the machine: who has the
    same gets the same answers. `tasks` by name."""

    settings: Mapping[str, Any]
    made_with: Mapping[str, Any]
    tasks: Mapping[str, TaskReport] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.settings["model"])

    @cached_property
    def scores(self) -> list[Score]:
        """Every task in every way that it can be judged."""
        every = (task.score(way) for task in self.tasks.values() for way in WAYS)
        return [score for score in every if score is not None]

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=True) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """All of it, and the scores for whoever reads the file by eye; `from_dict` makes those anew."""
        return {
            "format": FORMAT,
            "settings": dict(self.settings),
            "made_with": dict(self.made_with),
            "scores": [{**vars(score), "share": score.share} for score in self.scores],
            "tasks": {
                name: {
                    "source": task.source,
                    "constant": task.constant,
                    "constant_answer": task.constant_answer,
                    "ceiling": task.ceiling,
                    "seen": list(task.seen),
                    "groups": {group: list(pair) for group, pair in task.groups().items()},
                    "fewer_shots": task.fewer_shots,
                    "disagreements": [one.item.number for one in task.disagreements],
                    "contradictions": [one.item.number for one in task.contradictions],
                    "asked_alone": task.asked_alone,
                    "changed_alone": {str(one.item.number): list(one.changed()) for one in task.changed},
                    "items": [one.to_dict() for one in task.answered],
                }
                for name, task in self.tasks.items()
            },
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Report":
        """ValueError for what is no report of this format."""
        if entry.get("format") != FORMAT:
            raise ValueError(f"format {entry.get('format')!r}; this version reads reports of format {FORMAT}")
        tasks = {
            name: TaskReport(
                name,
                task["source"],
                task["constant"],
                task["constant_answer"],
                task["ceiling"],
                tuple(Answered.from_dict(name, item) for item in task["items"]),
                tuple(task["seen"]),
            )
            for name, task in entry["tasks"].items()
        }
        return cls(entry["settings"], entry["made_with"], tasks)

    def save(self, folder: Path) -> Path:
        """Write report.json to the folder, whole or not at all; returns its path."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, self.to_json().encode())
        return folder / FILE

    @classmethod
    def load(cls, path: Path) -> "Report":
        """From report.json, or the folder that has it. ValueError, with the path, for what is none."""
        file = path / FILE if path.is_dir() else path
        try:
            return cls.from_dict(parsed(file.read_bytes()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no report of an evaluation: {error}") from None
