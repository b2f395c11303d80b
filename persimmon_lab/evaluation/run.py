"""The evaluation itself: draw the items, ask the model, keep every answer, and make a report of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from persimmon_lab import atomic
from persimmon_lab.evaluation import five_gram
from persimmon_lab.evaluation.answered import Answered, Verdicts
from persimmon_lab.evaluation.demonstrations import with_demonstrations
from persimmon_lab.evaluation.fingerprint import made_with
from persimmon_lab.evaluation.five_gram import FiveGram
from persimmon_lab.evaluation.generated import EXTRACTION, answers
from persimmon_lab.evaluation.items import Item, Task
from persimmon_lab.evaluation.journal import Journal
from persimmon_lab.evaluation.likelihood import choice_likelihoods
from persimmon_lab.evaluation.overlap import overlaps
from persimmon_lab.evaluation.report import Report, TaskReport
from persimmon_lab.modes import evaluating
from persimmon_lab.tokenizer import PersimmonTokenizer

LIMIT, BATCH, ALONE = 100, 16, 16
STRETCH = 4  # batches that are kept together: prompts of like length share a batch within them

Progress = Callable[[str, int, int], None]  # told a task, how many of its items are answered, and how many there are


def evaluate(
    model: Any,
    tokenizer: PersimmonTokenizer,
    tasks: Mapping[str, Task],
    *,
    name: str = "",
    limit: int = LIMIT,
    seed: int = 0,
    shots: int = 0,
    batch_size: int = BATCH,
    alone: int = ALONE,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> Report:
    """Ask a model up to `limit` items of each task, `shots` of the task's examples before each, in batches.

    Every item is answered in text, and where it has choices by log-likelihood too. The first `alone` items of each task
    are asked once more, each by itself, to see which verdicts depend on the company that a prompt has: padding and
    batched products change the last bits, and those sometimes the next word.

    With `folder` each stretch of items is kept there once it is answered; after an interruption the same call with
    `resume` goes on, and ends with the same `folder`/report.json. `name` and `command` are noted in it.

    ValueError for counts that cannot be, for a task that judges its own answers wrong, for prompts longer than the
    model's context, and for a folder with another evaluation; OSError where another process evaluates into it.
    """
    for setting, value, least in (
        ("limit", limit, 1), ("shots", shots, 0), ("batch_size", batch_size, 1), ("alone", alone, 0)
    ):  # fmt: skip
        if value < least:
            raise ValueError(f"{setting} is {value}; give {least} or more")
    if not tasks:
        raise ValueError("tasks is empty; give some of evaluation.TASKS")
    sources = {task.name: task.source for task in tasks.values()}
    if len(sources) < len(tasks):
        names = [task.name for task in tasks.values()]
        raise ValueError(f"two tasks of one name among {', '.join(names)}; a report has one of each")
    settings = {
        "model": name,
        "tasks": list(sources),
        "limit": limit,
        "seed": seed,
        "shots": shots,
        "batch_size": batch_size,
        "alone": alone,
        "extraction": EXTRACTION,
        "five_gram": f"{len(five_gram.taught_texts())} lessons, seed {five_gram.SEED}",
        "command": command,
    }
    identity = {"settings": settings, "made_with": made_with(model, tokenizer), "sources": sources}
    if folder is None:
        return _report(model, tokenizer, tasks, settings, identity, None, progress)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.alone(folder):
        return _report(model, tokenizer, tasks, settings, identity, Journal(folder, identity, resume), progress)


def _report(
    model: Any,
    tokenizer: PersimmonTokenizer,
    tasks: Mapping[str, Task],
    settings: Mapping[str, Any],
    identity: Mapping[str, Any],
    journal: Journal | None,
    progress: Progress | None,
) -> Report:
    """The report of an evaluation, with the answers that the journal has already."""
    limit, seed, shots = settings["limit"], settings["seed"], settings["shots"]
    batch_size = settings["batch_size"]
    if journal is not None and (report := journal.finished()) is not None:
        return report
    reports = {}
    for index, task in enumerate(tasks.values()):
        items = task.items(limit, seed)
        if not items:
            raise ValueError(f"{task.name} has no items to ask")
        require_oracle(task, items)
        room = model.config.context_limit
        items = with_demonstrations(items, task, tokenizer, shots=shots, seed=seed, room=room)
        answered: list[Answered] = []
        for start in range(0, len(items), STRETCH * batch_size):
            stretch = items[start : start + STRETCH * batch_size]
            done = None if journal is None else journal.read(index, start, stretch)
            if done is None:
                done = ask(model, tokenizer, task, stretch, batch_size, settings["alone"])
                if journal is not None:
                    journal.write(index, start, done)
            answered += done
            if progress is not None:
                progress(task.name, len(answered), len(items))
        share, answer = best_constant(task, items)
        reports[task.name] = TaskReport(
            task.name, identity["sources"][task.name], share, answer, 1.0, tuple(answered), seen_items(items)
        )
    report = Report(dict(settings), identity["made_with"], reports)
    if journal is not None:
        journal.finish(report)
    return report


def ask(
    model: nn.Module,
    tokenizer: PersimmonTokenizer,
    task: Task,
    items: Sequence[Item],
    batch_size: int,
    alone: int = 0,
) -> list[Answered]:
    """The answers to a stretch of items, of those numbered below `alone` also by themselves, and the 5-gram's."""
    floor = five_gram.taught_five_gram()
    again = [item for item in items if item.number < alone]
    with evaluating(model):
        together = _verdicts(model, tokenizer, task, items, batch_size)
        apart = dict(zip((item.number for item in again), _verdicts(model, tokenizer, task, again, 1), strict=True))
    return [
        Answered(item, verdicts, _floor(floor, task, item), apart.get(item.number))
        for item, verdicts in zip(items, together, strict=True)
    ]


def best_constant(task: Task, items: Sequence[Item]) -> tuple[float, str]:
    """(the share of items that it is right for, what to say): the best of all answers, said to every item."""
    shares = {said: sum(task.check(item, said) for item in items) / len(items) for said in {i.said: 0 for i in items}}
    best = max(shares, key=shares.__getitem__)
    return shares[best], best


def require_oracle(task: Task, items: Sequence[Item]) -> None:
    """The ceiling: whoever says each item's own answer has all of them right.

    ValueError that names an item where it is otherwise: then the item or the check is at fault, and no model can be
    measured by it.
    """
    for item in items:
        if not task.check(item, item.said + item.after):
            raise ValueError(
                f"item {item.number} of {task.name} judges its own answer {item.said!r} wrong, after "
                f"{item.prompt[-60:]!r}; correct the answer, or take the item out"
            )


def seen_items(items: Sequence[Item]) -> tuple[int, ...]:
    """The numbers of the items that stand, with their answers, in the texts that teach the skills."""
    found = overlaps([item.prompt + item.said for item in items], five_gram.taught_texts())
    return tuple(item.number for item, overlap in zip(items, found, strict=True) if overlap.is_seen)


def _verdicts(
    model: nn.Module, tokenizer: PersimmonTokenizer, task: Task, items: Sequence[Item], batch_size: int
) -> list[Verdicts]:
    texts = answers(model, tokenizer, task, items, batch_size)
    choices = choice_likelihoods(model, tokenizer, items, batch_size)
    return [
        Verdicts(text, task.check(item, text), likelihoods)
        for item, text, likelihoods in zip(items, texts, choices, strict=True)
    ]


def _floor(counts: FiveGram, task: Task, item: Item) -> Verdicts:
    """What the 5-gram makes of an item; without demonstrations, since it looks back four pieces."""
    text = counts.continuation(item.prompt, task.new_tokens)
    choices = tuple(counts.likelihood(item.prompt, choice) for choice in item.choices)
    return Verdicts(text, task.check(item, text), choices)
