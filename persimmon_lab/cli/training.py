"""`train`: make the shipped model again, from nothing."""

from pathlib import Path
from typing import Annotated

import typer

from persimmon_lab.training.mini import RECIPE, WORKDIR, train_mini

train = typer.Typer(no_args_is_help=True, help="Train a model that this repository can make from nothing.")


@train.callback()
def choose() -> None:
    """Train a model that this repository can make from nothing."""


@train.command()
def mini(
    out: Annotated[
        Path | None, typer.Option(help="Also publish the model, its tokenizer and its card in this folder.")
    ] = None,
    workdir: Annotated[Path, typer.Option(help="Texts and checkpoints; a run that was stopped goes on.")] = WORKDIR,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of the schedule; fewer give a weaker model sooner.")
    ] = RECIPE.steps,
) -> None:
    """Download the texts, train the tokenizer and persimmon-mini, and go on where an earlier run stopped."""
    train_mini(workdir, out, steps=steps)
    if out is not None:
        typer.echo(out)
