"""`convert` and `export`: between Adept's release, which nothing else reads, and transformers' layout."""

import contextlib
import math
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from persimmon_lab.adept.convert import write
from persimmon_lab.adept.export import export_checkpoint, export_release, open_checkpoint
from persimmon_lab.adept.known_tars import recognise
from persimmon_lab.adept.open_release import OpenRelease, open_release, rounded
from persimmon_lab.adept.verify import verify as compare
from persimmon_lab.cli.options import QuantizeName, new_place, stored_folder
from persimmon_lab.distributed.serving import export_for_vllm
from persimmon_lab.dtypes import DTYPES
from persimmon_lab.footprint import in_bytes

COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    DownloadColumn(),
    TransferSpeedColumn(),
    TimeRemainingColumn(),
)

Out = Annotated[
    Path, typer.Argument(help="A new folder, or a checkpoint to be replaced.", parser=new_place, metavar="OUT")
]
StoredDtype = Annotated[str, typer.Option(help="float32, bfloat16, float16; auto keeps the one that is stored.")]
ShardSize = Annotated[str, typer.Option(help='The largest file of weights, such as "5GB" or "200MB".')]


class Format(StrEnum):
    adept = "adept"
    hf = "hf"


class Engine(StrEnum):
    """What serves a model elsewhere."""

    vllm = "vllm"


def convert(
    source: Annotated[Path, typer.Argument(help="A release: its folder, its tar, or a .pt file.")],
    out: Out,
    dtype: StoredDtype = "auto",
    quantize: QuantizeName = None,
    max_shard_size: ShardSize = "5GB",
    verify: Annotated[
        bool, typer.Option("--verify", help="Then compare every bit with the release, and run a forward pass.")
    ] = False,
) -> None:
    """Convert Adept's release of Persimmon. No code of it is run, and a few megabytes are in memory at a time."""
    chosen = choose(dtype)
    with bar("Recognising", source.stat().st_size if source.is_file() else 0) as heard:
        published = recognise(source, heard)
    release = open_release(source, chosen)
    if quantize is not None:
        release = rounded(release, quantize)
    with bar("Converting", release.nbytes) as heard:
        write(release, out, max_shard_size, heard)
    if verify:
        with bar("Comparing", release.nbytes) as heard:
            compare(release, out, heard)
    for line in summary(release, out, published, verify):
        typer.echo(line)


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's folder, a hub id already downloaded, or `mini`.")],
    out: Out,
    format: Annotated[
        Format | None, typer.Option(help="adept: a release as Megatron has it; hf: transformers' layout.")
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option("--for", help="In place of --format: what will serve it. Checks what can be, prints the line."),
    ] = None,
    dtype: StoredDtype = "auto",
    max_shard_size: ShardSize = "5GB",
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Share the release out among this many ranks.")] = 1,
) -> None:
    """Write a checkpoint anew: as a release like Adept's, in another dtype or other shards, or for an engine."""
    if (format is None) == (engine is None):
        raise typer.BadParameter("give one of --format and --for, to say what is to be written", param_hint="--format")
    folder = stored_folder(checkpoint)
    chosen = choose(dtype)
    _, tensors = open_checkpoint(folder)
    total = sum(math.prod(tensor.shape) * (chosen or tensor.dtype).itemsize for tensor in tensors.values())
    lines: list[str] = []
    with bar("Writing", total) as heard:
        if engine == Engine.vllm:
            lines = export_for_vllm(folder, out, dtype=chosen, max_shard_size=max_shard_size, progress=heard)
        elif format == Format.hf:
            export_checkpoint(folder, out, dtype=chosen, max_shard_size=max_shard_size, progress=heard)
        else:
            export_release(folder, out, dtype=chosen, tensor_parallel=tensor_parallel, progress=heard)
    for line in lines:
        typer.echo(line, err=True)
    typer.echo(out)


def choose(dtype: str) -> torch.dtype | None:
    """The dtype of this name, None for `auto`."""
    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"dtype is {dtype!r}; choose one of {', '.join(DTYPES)}, or auto for what is stored")
    return DTYPES.get(dtype)


@contextlib.contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar of bytes on the standard error, where that is a terminal; gives what it is told by."""
    console = Console(stderr=True)
    with Progress(*COLUMNS, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def summary(release: OpenRelease, out: Path, published: str | None, verified: bool) -> Iterator[str]:
    """What was converted and what was assumed, a line each."""
    config = release.config
    if published:
        yield f"{release.source} has the md5 of {published}, as Adept published it"
    stored = config.torch_dtype if release.rounding is None else f"{release.rounding.format} and {config.torch_dtype}"
    yield f"{out}: {release.parameters:,} parameters, {stored}, {in_bytes(release.nbytes)}"
    yield (
        f"{config.num_hidden_layers} layers, {config.num_attention_heads} heads of {config.head_dim}, hidden "
        f"{config.hidden_size}, MLP {config.intermediate_size}, vocabulary {config.vocab_size}, context "
        f"{config.max_position_embeddings}, theta {config.rope_theta:g}"
    )
    yield f"texts begin with token {config.bos_token_id} and end with {config.eos_token_id}"
    yield from (f"note: {note}" for note in release.notes)
    if verified:
        what = "every tensor" if release.rounding is None else "every tensor, rounded once more,"
        yield f"{what} is equal to the bit, and the logits of a forward pass are finite and equal"
