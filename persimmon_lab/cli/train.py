"""`train`: make the shipped model again, from nothing, or a small Persimmon of one's own texts."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from persimmon_lab.cli.company import company
from persimmon_lab.cli.options import new_place, usable_device
from persimmon_lab.distributed import own
from persimmon_lab.distributed.world import is_launched
from persimmon_lab.dtypes import DTYPES
from persimmon_lab.training.mini import RECIPE, WORKDIR, train_mini
from persimmon_lab.training.own import train_on


class Dtype(StrEnum):
    """What the model may compute in while it is trained; its masters are float32 in any case."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class TextByDefault(TyperGroup):
    """`train notes.txt` is short for `train text notes.txt`."""

    def resolve_command(self, context: Any, arguments: list[str]) -> tuple[str | None, Any, list[str]]:
        known = arguments and arguments[0] in self.commands
        return super().resolve_command(context, arguments if known else ["text", *arguments])


train = typer.Typer(
    cls=TextByDefault,
    no_args_is_help=True,
    help="Train a model that this repository can make from nothing, or one on your own texts: train FILE…",
)

Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, …")]
ComputeIn = Annotated[
    Dtype | None, typer.Option(help="What to compute in; by default what the device multiplies fast.")
]


@train.command()
def mini(
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also publish the model, its tokenizer and its card in this folder.", parser=new_place, metavar="PATH"
        ),
    ] = None,
    workdir: Annotated[Path, typer.Option(help="Texts and checkpoints; a run that was stopped goes on.")] = WORKDIR,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of the schedule; fewer give a weaker model sooner.")
    ] = RECIPE.steps,
    device: Device = "cpu",
    dtype: ComputeIn = None,
    start: Annotated[
        Path | None, typer.Option(help="Where WORKDIR was lost: a folder of weights to go on from, with --first-step.")
    ] = None,
    first_step: Annotated[int, typer.Option(min=0, help="The step that --start was exported at.")] = 0,
) -> None:
    """Download the texts, train the tokenizer and persimmon-mini, and go on where an earlier run stopped."""
    if is_launched():
        raise ValueError("train mini runs in one process; under torchrun there are train text, finetune and generate")
    train_mini(
        workdir,
        out,
        steps=steps,
        device=usable_device(device),
        dtype=None if dtype is None else DTYPES[dtype],
        start=start,
        first_step=first_step,
    )
    if out is not None:
        typer.echo(out)


@train.command()
def text(
    files: Annotated[list[Path], typer.Argument(help="UTF-8 text files.", exists=True, dir_okay=False)],
    out: Annotated[
        Path,
        typer.Option(
            help="The folder for model, tokenizer and curve; a run that was stopped goes on.",
            parser=new_place,
            metavar="PATH",
        ),
    ],
    layers: Annotated[int, typer.Option(min=1)] = 2,
    hidden: Annotated[int, typer.Option(min=8, help="The width of the model; heads have 32 channels, or fewer.")] = 128,
    context: Annotated[int, typer.Option(min=8, help="Tokens that the model can read at once.")] = 128,
    vocabulary: Annotated[int, typer.Option(min=300, max=4096, help="Pieces of the tokenizer, at the most.")] = 2048,
    steps: Annotated[int, typer.Option(min=1, help="Steps of 4,096 tokens.")] = 200,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Draw the same model every time.")] = 0,
    device: Device = "cpu",
    dtype: ComputeIn = None,
) -> None:
    """Train a small Persimmon on your own texts: its tokenizer, then the model; shows a sample at the end.

    Under torchrun (torchrun --nproc-per-node 2 -m persimmon_lab train text …) each process trains a part of the model.
    """
    sizes: dict[str, Any] = {
        "layers": layers, "hidden": hidden, "context": context, "vocabulary": vocabulary, "steps": steps, "seed": seed,
        "dtype": None if dtype is None else DTYPES[dtype],
    }  # fmt: skip
    with company(device) as world:
        if world is None:
            sample = train_on(files, out, device=usable_device(device), **sizes)
        else:
            sample = own.train_on(files, out, world, **sizes)
        typer.echo(sample)
