"""Two reports on the same items: which model is better, whether that is more than luck, and what could have shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from persimmon_lab.evaluation.answered import GENERATED, WAYS
from persimmon_lab.evaluation.report import Report, TaskReport
from persimmon_lab.numerics.intervals import LEVEL, PairedTest, paired_test, smallest_difference

ALL_TASKS = "all tasks"

Key = TypeVar("Key", int, tuple[str, int])


@dataclass(frozen=True)
class Difference:
    """Two models on one task, judged one way. Shares are of `test.count` items; `test.p` is of this test alone.

    `smallest` is the smallest true difference that so many items would have shown in four draws of five, at the share
    of items on which these two disagreed; None where so few of them are that no difference whatever would have shown.
    """

    task: str
    way: str
    first: float
    second: float
    test: PairedTest
    smallest: float | None


@dataclass(frozen=True)
class Comparison:
    """Of two reports by name; `rows` has each task in each way that both were judged, last all tasks together."""

    first: str
    second: str
    rows: tuple[Difference, ...]

    @property
    def by_luck(self) -> float:
        """How many p below 0.05 so many tests of equal models have on average."""
        return len(self.rows) * (1 - LEVEL)


def compare(first: Report, second: Report) -> Comparison:
    """A paired exact test of each task that both reports have, in each way, and of all answers generated.

    The reports may differ in their demonstrations: then it is the prompts that are compared. ValueError where they have
    no task in common, or where a task's items are not the same in both.
    """
    common = [name for name in first.tasks if name in second.tasks]
    if not common:
        raise ValueError(
            f"{first.name} was asked {', '.join(first.tasks)} and {second.name} {', '.join(second.tasks)}: no task in "
            "common; evaluate both with the same --tasks"
        )
    for name in common:
        _require_same_items(first.tasks[name], second.tasks[name])
    rows = []
    for name in common:
        for way in WAYS:
            verdicts = first.tasks[name].verdicts(way), second.tasks[name].verdicts(way)
            if verdicts[0]:
                rows.append(_difference(name, way, *verdicts))
    if len(common) > 1:
        every = [
            {(name, number): right for name in common for number, right in report.tasks[name].verdicts().items()}
            for report in (first, second)
        ]
        rows.append(_difference(ALL_TASKS, GENERATED, *every))
    return Comparison(first.name, second.name, tuple(rows))


def _difference(task: str, way: str, first: Mapping[Key, bool], second: Mapping[Key, bool]) -> Difference:
    ours, theirs = [*first.values()], [second[key] for key in first]
    test = paired_test(ours, theirs)
    discordant = (test.only_first + test.only_second) / test.count
    smallest = smallest_difference(test.count, discordant) if discordant else None
    return Difference(task, way, sum(ours) / test.count, sum(theirs) / test.count, test, smallest)


def _require_same_items(first: TaskReport, second: TaskReport) -> None:
    def items(report: TaskReport) -> list[tuple[object, ...]]:
        return [(one.item.number, one.item.prompt, one.item.answer, one.item.choices) for one in report.answered]

    if items(first) != items(second):
        raise ValueError(
            f"the two reports asked different items of {first.task} ({len(first.answered)} and {len(second.answered)}; "
            f"{first.source}; {second.source}): evaluate both with the same --limit, --seed and tasks"
        )
