"""`finetune`: teach a model conversations or texts of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from persimmon_lab.cli.company import company, load_everywhere
from persimmon_lab.cli.options import Device, ModelName, empty_place, load, new_place
from persimmon_lab.distributed.finetuning import finetune as teach_together
from persimmon_lab.distributed.states import last_checkpoint, save_pretrained
from persimmon_lab.distributed.world import World
from persimmon_lab.finetuning.examples import Example, check_overlap, count_duplicates, read_examples, split
from persimmon_lab.finetuning.loop import finetune as teach
from persimmon_lab.finetuning.lora import adapt, check_installed, merge_into, save_adapter
from persimmon_lab.finetuning.settings import Settings


def finetune(
    data: Annotated[Path, typer.Argument(help='Lines of {"messages": […]} or {"text": "…"}.', dir_okay=False)],
    out: Annotated[
        Path,
        typer.Option(
            help="A new folder for model, tokenizer, curve and the run's checkpoint.", parser=new_place, metavar="PATH"
        ),
    ],
    model: ModelName = "mini",
    held_out: Annotated[
        str, typer.Option(help="A file of lines like DATA's, or the share of DATA to hold out.")
    ] = "0.1",
    lora: Annotated[
        bool, typer.Option("--lora", help="Train thin matrices beside frozen ones; also writes them.")
    ] = False,
    rank: Annotated[int | None, typer.Option(min=1, help="With --lora: their width; 8 if not given.")] = None,
    alpha: Annotated[
        float | None, typer.Option(help="With --lora: their product counts alpha / rank; twice the rank if not given.")
    ] = None,
    dropout: Annotated[float, typer.Option(help="With --lora: the share of their inputs set to 0.")] = Settings.dropout,
    epochs: Annotated[int, typer.Option(min=1)] = Settings.epochs,
    optimizer: Annotated[str, typer.Option(help="adamw or muon.")] = Settings.optimiser,
    rate: Annotated[float | None, typer.Option(help="The highest rate; the optimizer's own if not given.")] = None,
    warmup: Annotated[float, typer.Option(help="The share of the steps in which the rate rises.")] = Settings.warmup,
    schedule: Annotated[
        str, typer.Option(help="How the rate falls afterwards: cosine, linear, constant.")
    ] = Settings.schedule,
    clip: Annotated[float, typer.Option(help="The largest norm of a step's gradient.")] = Settings.clip,
    patience: Annotated[
        int, typer.Option(min=0, help="Stop after so many evaluations without a better one; 0: never.")
    ] = 4,
    length: Annotated[int | None, typer.Option(min=2, help="Tokens of a row; up to 512 if not given.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a batch.")] = Settings.rows,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches of a step.")] = Settings.accumulate,
    dtype: Annotated[str, typer.Option(help="What to compute in: float32, bfloat16, float16.")] = Settings.dtype,
    float16_without_masters: Annotated[
        bool, typer.Option("--float16-without-masters", help="With --dtype float16: see how it ends in nan.")
    ] = False,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run in OUT was stopped.")] = False,
    device: Device = "cpu",
) -> None:
    """Teach a model the conversations or texts of DATA, keep its best state by held-out loss, and write it to OUT.

    Under torchrun (torchrun --nproc-per-node 2 -m persimmon_lab finetune …) each process trains a part of the model.
    """
    with company(device) as world:
        if not resume:
            empty_place(out, "--resume to go on with a run that was stopped there")
        checkpoint = "checkpoint.pt" if world is None else "checkpoint-STEP/"
        begun = (out / "run" / checkpoint).is_file() if world is None else last_checkpoint(out / "run") is not None
        if resume and not begun and not (out / "run").is_dir():  # one may have ended before its first checkpoint
            raise FileNotFoundError(
                f"{out} has no run to go on with (run/{checkpoint}); start one in a new folder, without --resume"
            )
        if world is not None:
            world.wait()  # until all have looked, before any of them writes
            if lora:
                raise ValueError("--lora: adapters are small, and one process trains them; run it without torchrun")
        if not lora and (rank is not None or alpha is not None or dropout):
            raise ValueError("--rank, --alpha and --dropout are the adapters'; give --lora too, or leave them out")
        if float16_without_masters and dtype != "float16":
            raise ValueError(f"--float16-without-masters goes with --dtype float16; the dtype is {dtype}")
        if lora and float16_without_masters:
            raise ValueError(
                "--float16-without-masters: adapters are float32 in any case; leave out one of it and --lora"
            )
        if lora:
            check_installed()
        width = rank or 8
        settings = Settings(
            epochs=epochs, optimiser=optimizer, rate=rate, rows=rows, accumulate=accumulate, dtype=dtype, seed=seed,
            rank=width if lora else None, alpha=alpha, dropout=dropout, warmup=warmup, schedule=schedule, clip=clip,
            patience=patience or None, length=length, masters=not float16_without_masters,
            float16_without_masters=float16_without_masters,
        )  # fmt: skip
        examples = read_examples(data)
        examples, held_back = _hold_out(examples, held_out, seed)
        tell(
            f"{len(examples)} examples, {count_duplicates(examples)} of them copies; {len(held_back)} held out, "
            f"{check_overlap(examples, held_back)} of them also taught",
            world,
        )
        if world is not None:
            network, tokenizer = load_everywhere(model, "auto", world)
        else:
            network, tokenizer = load(model, "auto" if not lora else dtype, device)
        adapted = adapt(network, rank=width, alpha=alpha, dropout=dropout, seed=seed) if lora else None
        if world is None:
            outcome = teach(network, tokenizer, examples, held_back, settings, out / "run")
        else:
            outcome = teach_together(network, tokenizer, examples, held_back, settings, out / "run", world)
        if outcome.cut:
            tell(
                f"{outcome.cut} of {len(examples) + len(held_back)} examples are longer than a row of {outcome.length} "
                f"tokens and were cut, conversations at a turn: {outcome.left_out} tokens are left out",
                world,
            )
        if outcome.failed_at is not None:
            tell(
                f"the loss of step {outcome.failed_at} is not finite; what is written is the model of step "
                f"{outcome.best_step}",
                world,
            )
        if adapted is not None:
            if not (out / "adapter").exists():
                save_adapter(adapted, out / "adapter")
            # Rounded only now: added to weights that are rounded already, small updates would be lost.
            network = merge_into(load(model, "float32", device)[0], adapted, settings.compute_dtype)
        if world is None:
            network.save_pretrained(out)
        else:
            save_pretrained(network, out, world, settings.compute_dtype)
            if not world.is_first:
                return
        tokenizer.save_pretrained(out)
        (out / "run" / "loss.svg").replace(out / "loss.svg")
        typer.echo(
            f"{out}: held-out loss {outcome.first_loss:.3f} to {outcome.best_loss:.3f} nats a token, the best of "
            f"{outcome.steps} steps at step {outcome.best_step}"
        )


def tell(message: str, world: World | None) -> None:
    """A line on the standard error, once, however many processes run."""
    if world is None or world.is_first:
        typer.echo(message, err=True)


def _hold_out(examples: list[Example], held_out: str, seed: int) -> tuple[list[Example], list[Example]]:
    """(training, held out) examples, as --held-out says: a file of them, or a share of those given."""
    if Path(held_out).exists():
        return examples, read_examples(Path(held_out))
    try:
        share = float(held_out)
    except ValueError:
        raise ValueError(f"--held-out {held_out}: there is no such file, and it is no share such as 0.1") from None
    return split(examples, share, seed)
