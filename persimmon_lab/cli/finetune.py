"""`finetune`: teach a model conversations or texts of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from persimmon_lab.cli.options import Device, ModelName, load
from persimmon_lab.finetuning.examples import check_overlap, count_duplicates, read_examples, split
from persimmon_lab.finetuning.loop import finetune as teach
from persimmon_lab.finetuning.lora import adapt, merge, save_adapter
from persimmon_lab.finetuning.settings import Settings


def finetune(
    data: Annotated[Path, typer.Argument(help='Lines of {"messages": […]} or {"text": "…"}.', dir_okay=False)],
    out: Annotated[Path, typer.Option(help="A new folder for model, tokenizer, curve and the run's checkpoint.")],
    model: ModelName = "mini",
    held_out: Annotated[
        str, typer.Option(help="A file of lines like DATA's, or the share of DATA to hold out.")
    ] = "0.1",
    lora: Annotated[
        bool, typer.Option("--lora", help="Train thin matrices beside frozen ones; also writes them.")
    ] = False,
    rank: Annotated[int, typer.Option(min=1, help="With --lora: their width.")] = 8,
    epochs: Annotated[int, typer.Option(min=1)] = Settings.epochs,
    optimizer: Annotated[str, typer.Option(help="adamw or muon.")] = Settings.optimiser,
    rate: Annotated[float | None, typer.Option(help="The highest rate; the optimizer's own if not given.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = Settings.rows,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches of a step.")] = Settings.accumulate,
    dtype: Annotated[str, typer.Option(help="What to compute in: float32, bfloat16, float16.")] = Settings.dtype,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run in OUT was stopped.")] = False,
    device: Device = "cpu",
) -> None:
    """Teach a model the conversations or texts of DATA, keep its best state by held-out loss, and write it to OUT."""
    if out.exists() and any(out.iterdir()) and not resume:
        raise OSError(f"{out} is not empty; give a new folder, or --resume to go on with a run that was stopped there")
    settings = Settings(
        epochs=epochs, optimiser=optimizer, rate=rate, rows=rows, accumulate=accumulate, dtype=dtype, seed=seed,
        rank=rank if lora else None,
    )  # fmt: skip
    examples = read_examples(data)
    if Path(held_out).exists():
        private = read_examples(Path(held_out))
    else:
        try:
            share = float(held_out)
        except ValueError:
            raise ValueError(f"--held-out {held_out}: there is no such file, and it is no share such as 0.1") from None
        examples, private = split(examples, share, seed)
    typer.echo(
        f"{len(examples)} examples, {count_duplicates(examples)} of them copies; {len(private)} held out, "
        f"{check_overlap(examples, private)} of them also taught",
        err=True,
    )
    network, tokenizer = load(model, "auto" if not lora else dtype, device)
    adapted = adapt(network, rank=rank, seed=seed) if lora else None
    outcome = teach(network, tokenizer, examples, private, settings, out / "run")
    if adapted is not None:
        if not (out / "adapter").exists():
            save_adapter(adapted, out / "adapter")
        network = merge(adapted)
    network.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "run" / "loss.svg").replace(out / "loss.svg")
    typer.echo(
        f"{out}: held-out loss {outcome.first_loss:.3f} to {outcome.best_loss:.3f} nats a token, the best of "
        f"{outcome.steps} steps at step {outcome.best_step}"
    )
