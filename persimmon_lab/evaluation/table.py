"""Reports and comparisons as tables of text, for a terminal or for Markdown, with what belongs beside the numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from persimmon_lab.evaluation.answered import GENERATED
from persimmon_lab.evaluation.comparison import Comparison, Difference
from persimmon_lab.evaluation.overlap import CANNOT_SEE
from persimmon_lab.evaluation.report import Report, Score, TaskReport

SCORES = ("task", "way", "right", "score", "95% interval", "chance", "5-gram", "oracle", "above the floors")
COMPARED = ("task", "way", "first", "second", "difference", "only first", "only second", "p", "could have shown")
LISTED = 20  # numbers of items in one note


@dataclass(frozen=True)
class Table:
    """A title, a name for each column, rows of as many texts, and sentences to stand below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """The title as a heading; words to the left, numbers to the right."""
        lines = [self.columns, tuple("---" if index < 2 else "--:" for index in range(len(self.columns))), *self.rows]
        drawn = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines]
        return "\n".join([f"## {self.title}", "", *drawn, "", *(f"- {note}" for note in self.notes), ""])


def score_table(report: Report) -> Table:
    """Each task in each way that it can be judged; a score is above the floors where its whole interval is."""
    asked = f"{report.settings['limit']} items a task at most, seed {report.settings['seed']}"
    title = f"{report.name or 'the model'}: {asked}, {report.settings['shots']} shots"
    return Table(title, SCORES, tuple(map(_score_row, report.scores)), tuple(_notes(report)))


def comparison_table(comparison: Comparison) -> Table:
    """Two reports item by item, by the exact paired test."""
    notes = (
        f"p is the exact paired test's; of {len(comparison.rows)} tests of equal models luck alone brings "
        f"{comparison.by_luck:.1f} below 0.05 on average.",
        "Could have shown: the smallest true difference that so many items, as often judged differently as these, show "
        "in four draws of five.",
    )
    title = f"{comparison.first or 'the first'} (first) beside {comparison.second or 'the second'} (second)"
    return Table(title, COMPARED, tuple(map(_difference_row, comparison.rows)), notes)


def _score_row(score: Score) -> tuple[str, ...]:
    floors = (score.chance, score.five_gram)
    return (
        score.task,
        score.way,
        f"{score.right}/{score.count}",
        f"{score.share:.1%}",
        f"{score.low:.1%} to {score.high:.1%}",
        *(f"{share:.1%}" for share in (*floors, score.ceiling)),
        "yes" if score.low > max(floors) else "no",
    )


def _difference_row(row: Difference) -> tuple[str, ...]:
    return (
        row.task,
        row.way,
        f"{row.first:.1%}",
        f"{row.second:.1%}",
        f"{row.test.difference:+.1%}",
        str(row.test.only_first),
        str(row.test.only_second),
        f"{row.test.p:.2g}",
        "nothing" if row.smallest is None else f"{row.smallest:.1%}",
    )


def _notes(report: Report) -> Iterator[str]:
    for name, task in report.tasks.items():
        yield from (f"{name}: {note}" for note in _notes_of_task(task))
    if any(task.seen for task in report.tasks.values()):
        yield f"What overlap with the taught text cannot see: {CANNOT_SEE}"
    yield f"How answers were judged: {report.settings['extraction']}"


def _notes_of_task(task: TaskReport) -> Iterator[str]:
    count = len(task.answered)
    if task.changed:
        changed = _listed([one.item.number for one in task.changed])
        yield (
            f"asked alone, {len(task.changed)} of {task.asked_alone} items are judged otherwise than in their batch: "
            f"{changed}."
        )
    if task.contradictions:
        said = [one.item.number for one in task.contradictions if one.right(GENERATED)]
        picked = [one.item.number for one in task.contradictions if not one.right(GENERATED)]
        parts = [
            f"{len(numbers)} are {how}: {_listed(numbers)}"
            for how, numbers in (("written right and picked wrong", said), ("picked right and written wrong", picked))
            if numbers
        ]
        yield f"the two ways of asking disagree in {len(task.contradictions)} of {count} items; {'; '.join(parts)}."
    if task.disagreements:
        numbers = _listed([one.item.number for one in task.disagreements])
        yield f"the normalisations pick different choices in {len(task.disagreements)} of {count} items: {numbers}."
    if task.seen:
        yield f"{len(task.seen)} of {count} prompts stand, with their answers, in taught text: {_listed(task.seen)}."
    if task.fewer_shots:
        yield (
            f"{len(task.fewer_shots)} of {count} items have fewer demonstrations than the others, for want of room: "
            f"{_listed(task.fewer_shots)}."
        )


def _listed(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    return ", ".join(map(str, numbers[:LISTED])) + more
