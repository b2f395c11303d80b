"""`classify`: a classifier of your own texts, on the body of a model."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from persimmon_lab.atomic import filling
from persimmon_lab.cli.options import Device, ModelName, empty_place, load, new_place
from persimmon_lab.finetuning.classifier import ClassifierSettings, Marks, count_cut, fit, mark, new_classifier
from persimmon_lab.finetuning.labelled import (
    commonest_share,
    label_names,
    read_labelled,
    split_labelled,
    without_held_out,
)

REPORT = "marks.json"
MOST_COLUMNS = 12  # labels of a confusion matrix that a terminal has room for


def classify(
    data: Annotated[Path, typer.Argument(help='JSON lines: {"text": "…", "label": "…"}', exists=True, dir_okay=False)],
    out: Annotated[
        Path,
        typer.Option(
            help="The folder for the classifier, its tokenizer and its marks.", parser=new_place, metavar="PATH"
        ),
    ],
    model: ModelName = "mini",
    frozen: Annotated[bool, typer.Option(help="Train the projection onto the labels alone; needs seconds.")] = False,
    held_out: Annotated[
        str, typer.Option(help="What to mark it on: a file of the same form, or a share of the data.")
    ] = "0.2",
    epochs: Annotated[int, typer.Option(min=1, help="Rounds over the data, where the whole model learns.")] = 4,
    rate: Annotated[float, typer.Option(help="The highest rate, where the whole model learns.")] = 2e-4,
    batch: Annotated[int, typer.Option(min=1, help="Texts a step, where the whole model learns.")] = 16,
    seed: Annotated[int, typer.Option(help="Draws what is held out, the order and the first weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="What to compute in; other than float32 only with --frozen.")] = "float32",
    device: Device = "cpu",
) -> None:
    """Train a classifier on your own texts and mark it on texts that it was not taught."""
    settings = ClassifierSettings(frozen=frozen, epochs=epochs, rate=rate, batch=batch, seed=seed)
    empty_place(out)
    texts = read_labelled(data)
    if Path(held_out).is_file():
        held_out_texts = read_labelled(Path(held_out))
        training = without_held_out(texts, held_out_texts)
        if dropped := len(texts) - len(training):
            typer.echo(f"{dropped} texts of {data} stand in {held_out} too and are not taught", err=True)
    else:
        training, held_out_texts = split_labelled(texts, _share(held_out), seed)
    labels = label_names(training)
    if unknown := sorted({text.label for text in held_out_texts} - {*labels}):
        raise ValueError(f"{held_out} has labels that {data} does not teach: {', '.join(map(repr, unknown))}")
    with filling(out) as staging:  # from now on, or another run could take the place of what is taught here
        language_model, tokenizer = load(model, dtype, device)
        classifier = new_classifier(language_model, labels, seed)
        if cut := count_cut(classifier, tokenizer, [*training, *held_out_texts]):
            typer.echo(f"{cut} texts are longer than the model's context; their beginning is read", err=True)
        marks = mark(fit(classifier, tokenizer, training, settings), tokenizer, held_out_texts)
        floor = commonest_share(training, held_out_texts)
        classifier.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        report = json.dumps(_report(marks, floor, len(training)), indent=2) + "\n"
        (staging / REPORT).write_bytes(report.encode())
    _show(marks, floor)
    typer.echo(out)


def _share(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        raise ValueError(f"--held-out {given}: neither a file nor a share such as 0.2") from None


def _report(marks: Marks, floor: float, taught: int) -> dict[str, object]:
    low, high = marks.interval
    return {
        "taught": taught,
        "right": marks.right,
        "count": marks.count,
        "accuracy": marks.accuracy,
        "interval": [low, high],
        "commonest label": floor,
        "labels": list(marks.labels),
        "confusion": marks.confusion.tolist(),
        "wrong": [{"text": text.text, "label": text.label, "said": said} for text, said in marks.wrong],
    }


def _show(marks: Marks, floor: float) -> None:
    """The score and the confusion matrix, on the standard error."""
    low, high = marks.interval
    typer.echo(
        f"{marks.right} of {marks.count} held-out texts right: {marks.accuracy:.1%}, 95% interval {low:.1%} to "
        f"{high:.1%}; always the commonest label: {floor:.1%}",
        err=True,
    )
    if len(marks.labels) > MOST_COLUMNS:
        typer.echo(f"the confusion matrix of {len(marks.labels)} labels is in {REPORT}", err=True)
        return
    table = Table("is \\ said", *marks.labels)
    for label, row in zip(marks.labels, marks.confusion.tolist()):
        table.add_row(label, *map(str, row))
    Console(stderr=True).print(table)
