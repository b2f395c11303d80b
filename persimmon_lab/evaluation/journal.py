"""What is kept of an evaluation that is under way, so that one that was stopped goes on and ends as it would have."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from persimmon_lab.atomic import write_atomically
from persimmon_lab.evaluation.answered import Answered
from persimmon_lab.evaluation.items import Item
from persimmon_lab.evaluation.report import FILE, Report
from persimmon_lab.field_checks import parsed

UNFINISHED = "unfinished"  # the folder of a run's stretches, gone when the report is there
IDENTITY = "evaluation.json"


class Journal:
    """A file for each stretch of items that was answered, each whole or not there at all.

    `identity` is all that the answers depend on: a run goes on only where that is the same. Raises ValueError where the
    folder has an evaluation and `resume` does not say to go on with it, and where it is another one.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], resume: bool) -> None:
        self.folder, self.unfinished = folder, folder / UNFINISHED
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))  # as it reads when it comes back from a file
        begun = len([*self.unfinished.glob("*.json")]) > 1  # more than its identity
        if (begun or self.report_path.exists()) and not resume:
            raise ValueError(
                f"{folder} has an evaluation already{'' if self.report_path.exists() else ', which was stopped'}; give "
                "a new folder, or resume it"
            )
        if begun:
            self._require_same(_read(self.unfinished / IDENTITY), self.unfinished / IDENTITY)
        elif not self.report_path.exists():
            self.unfinished.mkdir(parents=True, exist_ok=True)
            write_atomically(self.unfinished / IDENTITY, _json(self.identity))

    @property
    def report_path(self) -> Path:
        return self.folder / FILE

    def finished(self) -> Report | None:
        """The report, where an earlier run came to its end; ValueError where it is another evaluation's."""
        if not self.report_path.exists():
            return None
        report = Report.load(self.report_path)
        sources = {name: task.source for name, task in report.tasks.items()}
        self._require_same(
            {"settings": report.settings, "made_with": report.made_with, "sources": sources}, self.report_path
        )
        return report

    def read(self, task: int, start: int, items: Sequence[Item]) -> list[Answered] | None:
        """The answers to these items, the stretch of a task that begins at `start`; None where there are none yet."""
        path = self._path(task, start)
        if not path.exists():
            return None
        try:
            entries = [Answered.from_dict(item.task, entry) for item, entry in zip(items, _read(path), strict=True)]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no part of an evaluation ({error}); remove it, and it is made again") from None
        # A file keeps of an item what a report says; checks need the rest.
        return [replace(entry, item=item) for entry, item in zip(entries, items, strict=True)]

    def write(self, task: int, start: int, answered: Sequence[Answered]) -> None:
        write_atomically(self._path(task, start), _json([one.to_dict() for one in answered]))

    def finish(self, report: Report) -> None:
        """The report in place of its stretches."""
        report.save(self.folder)
        shutil.rmtree(self.unfinished, ignore_errors=True)

    def _path(self, task: int, start: int) -> Path:
        return self.unfinished / f"{task:03d}-{start:06d}.json"

    def _require_same(self, before: Mapping[str, Any], path: Path) -> None:
        for part, now in self.identity.items():
            then = before.get(part, {})
            for name in dict.fromkeys([*now, *then]):
                if now.get(name) != then.get(name):
                    raise ValueError(
                        f"{path} is another evaluation: {name} was {_short(then.get(name))} there and is "
                        f"{_short(now.get(name))} now; give a new folder, or the same as before"
                    )


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _read(path: Path) -> Any:
    try:
        return parsed(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); remove it, and it is made again") from None


def _short(value: Any) -> str:
    told = repr(value)
    return told if len(told) <= 60 else f"{told[:57]}..."
