"""`evaluate`: how good models are at tasks with known answers, and whether two of them differ by more than luck."""

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table as Drawn

from persimmon_lab.atomic import write_atomically
from persimmon_lab.checkpoints import hub
from persimmon_lab.cli.inspect import plain_console
from persimmon_lab.cli.options import Device, Dtype, load, new_place
from persimmon_lab.evaluation import Table, comparison_table, score_table, tasks_named
from persimmon_lab.evaluation import compare as compare_reports
from persimmon_lab.evaluation import evaluate as ask
from persimmon_lab.evaluation.card import with_results
from persimmon_lab.evaluation.run import ALONE, BATCH, LIMIT
from persimmon_lab.evaluation.tasks import ALL, TASKS

TABLES = "tables.md"


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL…", help="Folders of checkpoints or hub ids; `mini` is the shipped model."),
    ],
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Names, several by commas, {ALL} if none are given: {', '.join(TASKS)}; a file of JSON lines with "
            "question, answer and choices; reasoning-gym:DATASET."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Items of each task.")] = LIMIT,
    seed: Annotated[int, typer.Option(min=0, help="Draws the items.")] = 0,
    shots: Annotated[int, typer.Option(min=0, help="Answered examples before each question.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Items that are asked at once.")] = BATCH,
    alone: Annotated[
        int, typer.Option(min=0, help="Items of each task that are asked once more, by themselves.")
    ] = ALONE,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A folder for the reports and tables; a run that was stopped can go on there.",
            parser=new_place,
            metavar="PATH",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in OUT that was stopped.")] = False,
    card: Annotated[
        Path | None,
        typer.Option(
            help="A model card, whose results these tables replace, or are added to at its end.",
            exists=True,
            dir_okay=False,
            writable=True,
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Ask each MODEL tasks with known answers; of several, test each beside the first on the same items."""
    if resume and out is None:
        raise ValueError("--resume goes on with a run in a folder; say which one: --out FOLDER")
    if card is not None:
        with_results(read_card(card), [], "")  # before any model is asked: can it take them?
    folders = {name: None if out is None else out / folder_name(name) for name in models}
    if len(folders) < len(models) or (out is not None and len({*folders.values()}) < len(models)):
        raise ValueError(f"{' '.join(models)}: two models of one name; give each once, under names of their own")
    names = [
        name for given in tasks or [ALL] for name in ([given] if Path(given).is_file() else given.split(",")) if name
    ]
    chosen = tasks_named(names)
    for name in models:  # before any of them is asked, which may take hours
        if name != "mini":
            hub.resolve(name)
    options = {"--tasks": ",".join(names), "--limit": limit, "--seed": seed, "--shots": shots,
               "--batch-size": batch_size, "--alone": alone, "--dtype": dtype, "--device": device}  # fmt: skip
    given = [str(part) for option in options.items() for part in option]
    reports = []
    for name, folder in folders.items():
        network, tokenizer = load(name, dtype, device)
        with _shown_progress(name) as progress:
            report = ask(
                network, tokenizer, chosen, name=name, limit=limit, seed=seed, shots=shots, batch_size=batch_size,
                alone=alone, folder=folder, resume=resume, progress=progress,
                command=shlex.join(["persimmon-lab", "evaluate", name, *given]),
            )  # fmt: skip
        reports.append(report)
        del network  # before the next one is loaded
    tables = [score_table(report) for report in reports]
    tables += [comparison_table(compare_reports(reports[0], other)) for other in reports[1:]]
    console = plain_console()
    for table in tables:
        console.print(drawn(table))
        for note in dict.fromkeys(table.notes):
            console.print(note)
        console.print()
    if card is not None:
        command = shlex.join(["persimmon-lab", "evaluate", *models, *given])
        write_atomically(card, with_results(read_card(card), tables, command).encode())
        console.print(f"The results stand on {card}")
    if out is not None:
        write_atomically(out / TABLES, "\n".join(table.to_markdown() for table in tables).encode())
        console.print(
            f"Every answer: {', '.join(str(folder / 'report.json') for folder in folders.values() if folder)}"
        )


@contextmanager
def _shown_progress(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each task, on the standard error, where that is a terminal."""
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        lines: dict[str, TaskID] = {}

        def show(task: str, done: int, count: int) -> None:
            if task not in lines:
                lines[task] = bar.add_task(f"{name}: {task}", total=count)
            bar.update(lines[task], completed=done)

        yield show


def read_card(card: Path) -> str:
    """The text of a card. ValueError where it is no UTF-8."""
    try:
        return card.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{card} is no UTF-8 text ({error.reason} at byte {error.start}); name a model card") from None


def folder_name(model: str) -> str:
    """What a model's folder in OUT is called: its name without what a file system would read as more."""
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"


def drawn(table: Table) -> Drawn:
    """For a terminal: the words to the left, the numbers to the right."""
    picture = Drawn(title=table.title, title_justify="left")
    for index, column in enumerate(table.columns):
        picture.add_column(column, justify="left" if index < 2 else "right")
    for row in table.rows:
        picture.add_row(*row)
    return picture
