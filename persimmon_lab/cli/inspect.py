"""`inspect`: what a checkpoint holds and what it needs, read from its headers alone."""

import json
import math
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from persimmon_lab.anatomy import any_layer
from persimmon_lab.checkpoints.errors import CheckpointNotFoundError
from persimmon_lab.checkpoints.rounded import Rounding, rounding_of
from persimmon_lab.checkpoints.settings import read_config
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.cli.options import stored_folder
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.fitting.memory import memory_plan, parameter_counts
from persimmon_lab.footprint import in_bytes

DTYPES = (torch.float32, torch.bfloat16)
MEMORY_COLUMNS = ("weights", "cache", "total", "activations", "peak")
WIDTH_OF_A_PIPE = 140  # rich takes 80 where there is no terminal, too narrow for a tensor's name


@dataclass(frozen=True)
class StoredTensor:
    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


def inspect(
    path: Annotated[str, typer.Argument(help="A checkpoint's folder, a hub id already downloaded, or `mini`.")],
    context: Annotated[
        int | None, typer.Option(min=1, help="Positions to count the cache for; all if not given.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows to count the cache for.")] = 1,
    every: Annotated[
        bool, typer.Option("--all", help="List every layer's tensors, not one line for all layers.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Print a checkpoint's configuration, tensors, parameters and memory. No weight is read."""
    folder = stored_folder(path)
    config = read_config(folder, rounded_too=True)
    tensors = stored_tensors(folder, rounding_of(config))
    context = config.max_position_embeddings if context is None else context
    report = summarise(config, tensors, context, batch)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    console = plain_console()
    for table in (config_table(config), tensor_table(tensors, every), memory_table(report["memory"], context, batch)):
        console.print(table)
    console.print(f"{report['parameters']:,} parameters, {', '.join(report['dtypes']) or 'no weights'}: {folder}")
    if tensors and report["parameters"] != report["expected_parameters"]:
        console.print(f"The configuration describes {report['expected_parameters']:,} of a causal language model.")


def plain_console() -> Console:
    """A console that shows what it is given as it is: names in a file are not markup."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_PIPE, highlight=False, markup=False)


def stored_tensors(folder: Path, rounding: Rounding | None = None) -> list[StoredTensor]:
    """The tensors of a folder from the headers of its files; none when it holds only a configuration.

    Rounded ones have the shape of what they stand for, and the name of their format for a dtype.
    """
    try:
        files = open_weights(folder)
    except CheckpointNotFoundError:
        return []
    tensors = []
    for name, file in files.items():
        shape, dtype = file.shapes[name], dtype_name(file.dtypes[name])
        size = math.prod(shape) * file.dtype_of(name).itemsize
        if rounding is not None and file.dtypes[name] == torch.uint8:
            shape, dtype = rounding.plain_shape(shape), rounding.format
        tensors.append(StoredTensor(name, shape, dtype, size))
    return tensors


def summarise(config: PersimmonConfig, tensors: list[StoredTensor], context: int, batch: int) -> dict[str, Any]:
    """All that `inspect` knows, as plain values; memory in bytes."""
    expected = sum(parameter_counts(config).values())
    plans = {dtype_name(dtype): memory_plan(config, dtype, batch, context) for dtype in DTYPES}
    return {
        "config": config.to_dict(),
        "tensors": [vars(tensor) for tensor in tensors],
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors) if tensors else expected,
        "expected_parameters": expected,
        "dtypes": sorted({tensor.dtype for tensor in tensors}),
        "memory": {name: {column: getattr(plan, column) for column in MEMORY_COLUMNS} for name, plan in plans.items()},
        "context": context,
        "batch": batch,
    }


def config_table(config: PersimmonConfig) -> Table:
    table = Table("field", "value", title="Configuration", title_justify="left")
    for name, value in config.to_dict().items():
        table.add_row(name, json.dumps(value))
    return table


def tensor_table(tensors: list[StoredTensor], every: bool) -> Table:
    """One line per tensor, or, unless `every`, one for the tensors that layers have alike."""
    layers = Counter(
        (tensor.name if every else any_layer(tensor.name, "*"), tensor.shape, tensor.dtype) for tensor in tensors
    )
    sizes = {
        (tensor.name if every else any_layer(tensor.name, "*"), tensor.shape, tensor.dtype): tensor.bytes
        for tensor in tensors
    }
    table = Table("tensor", "shape", "dtype", title="Tensors", title_justify="left")
    table.add_column("size", justify="right")
    for (name, shape, dtype), count in layers.items():
        times = f"{count} x " if count > 1 else ""
        table.add_row(name, " x ".join(map(str, shape)), dtype, times + in_bytes(sizes[name, shape, dtype]))
    return table


def memory_table(memory: dict[str, dict[str, int]], context: int, batch: int) -> Table:
    table = Table("dtype", title=f"Memory for {batch} x {context:,} positions", title_justify="left")
    for column in MEMORY_COLUMNS:
        table.add_column(column, justify="right")
    for dtype, plan in memory.items():
        table.add_row(dtype, *(in_bytes(plan[column]) for column in MEMORY_COLUMNS))
    return table
