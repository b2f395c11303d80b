"""`doctor`: whether this machine is fit, what is missing, and which models it has room for."""

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from rich.table import Table

from persimmon_lab.anatomy import layer_of
from persimmon_lab.checkpoints.settings import read_config
from persimmon_lab.cli.inspect import plain_console
from persimmon_lab.cli.options import stored_folder
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.fitting.formats import COMPUTING, PLAIN, SHARE, FormatPlan, outlook
from persimmon_lab.fitting.memory import memory_plan
from persimmon_lab.footprint import Device, free_memory, in_bytes
from persimmon_lab.generation import stream
from persimmon_lab.mini import load_mini
from persimmon_lab.numerics.tolerances import PRODUCTS
from persimmon_lab.quantisation import FORMATS
from persimmon_lab.quantisation.rounding import GROUP

FINE, MISSING, BROKEN = "fine", "missing", "broken"
COLOURS = {FINE: "green", MISSING: "yellow", BROKEN: "red"}
OLDEST_PYTHON = (3, 11)
REQUIRED = ("torch", "numpy", "einops", "jaxtyping", "safetensors", "sentencepiece", "huggingface_hub", "typer", "rich")
OPTIONAL = {
    "lab": ("jupyterlab", "ipywidgets", "anywidget", "matplotlib"),
    "offload": ("accelerate",),
    "test": ("pytest", "nbval", "playwright", "transformers"),
    "web": ("voila",),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CONTEXTS = (2_048, 16_384)
WAYS = {"packed": "oneDNN's packed copy", "plain": "the weights as they are"}
PREDICTED = (
    "A rate is the weights of a token over what one row times a matrix of that format streams here, and the cache over "
    "what memory copies: predicted, and more than a whole step will reach."
)
SIDE_ON_CPU, SIDE_ON_GPU = 256, 2048  # of the matrices multiplied to try a dtype


@dataclass(frozen=True)
class Finding:
    what: str
    state: str
    detail: str


def doctor(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Instead, how one model would do here, by format: 8b, mini, or the folder of a checkpoint.",
        ),
    ] = None,
) -> None:
    """Say what this machine has, what is missing, and what will fit. Exit code 1 when something is broken."""
    places = free_memory()
    if model is not None:
        for place, free in places.items():
            plain_console().print(outlook_table(model, str(place), free))
        typer.echo(PREDICTED)
        return
    broken = False
    for finding in (*python_and_packages(), *devices(places), *arithmetic(), shipped_model()):
        typer.echo(f"{typer.style(f'{finding.state:8}', fg=COLOURS[finding.state])} {finding.what:24} {finding.detail}")
        broken = broken or finding.state == BROKEN
    plain_console().print(room_table(places))
    for line in spread(places):
        typer.echo(line)
    if broken:
        raise typer.Exit(1)


def python_and_packages() -> Iterator[Finding]:
    version = platform.python_version()
    wanted = ".".join(map(str, OLDEST_PYTHON))
    yield Finding("Python", FINE if sys.version_info >= OLDEST_PYTHON else BROKEN, f"{version} (needs {wanted})")
    for name in REQUIRED:
        release = installed(name)
        yield Finding(name, FINE if release else BROKEN, release or f"pip install {name}")
    for extra, names in OPTIONAL.items():
        for name in names:
            release = installed(name)
            yield Finding(name, FINE if release else MISSING, release or f"pip install 'persimmon-lab[{extra}]'")
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    yield Finding("browser", FINE if browser else MISSING, browser or "for the browser tests: apt install chromium")


def installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def devices(places: dict[Device, int]) -> Iterator[Finding]:
    threads, capability = torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    yield Finding("CPU", FINE, f"{os.cpu_count()} cores, {threads} threads for torch, {capability}")
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", FINE, f"{card.name}, {in_bytes(card.total_memory)}, {card.major}.{card.minor}")
    if torch.backends.mps.is_available():
        yield Finding("mps", FINE, "Apple GPU")
    for place, free in places.items():
        yield Finding(f"free memory on {place}", FINE, in_bytes(free))


def arithmetic() -> Iterator[Finding]:
    """Multiply two matrices in each dtype on each device, compare with float64, and time it."""
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    names += ["mps"] if torch.backends.mps.is_available() else []
    for name in names:
        for dtype, tolerance in PRODUCTS.items():
            error, rate = try_product(torch.device(name), dtype)
            state = FINE if error <= tolerance else BROKEN
            label = dtype_name(dtype)
            yield Finding(f"{label} on {name}", state, f"{rate / 1e9:.3g} GFLOP/s, relative error {error:.0e}")


def try_product(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """(largest error of a matrix product over its largest entry, operations per second of the best of three)."""
    side = SIDE_ON_CPU if device.type == "cpu" else SIDE_ON_GPU
    left, right = torch.randn(2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = left @ right
    left, right = left.to(device, dtype), right.to(device, dtype)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    error = (product.cpu().to(torch.float64) - exact).abs().max() / exact.abs().max()
    return float(error), 2 * side**3 / min(seconds)


def shipped_model() -> Finding:
    started = time.perf_counter()
    try:
        model, tokenizer = load_mini()
        loaded = time.perf_counter()
        new_tokens = sum(1 for _ in stream(model, tokenizer, "human: Hello", max_new_tokens=32, eos_token_id=None))
    except (OSError, ValueError, RuntimeError, FloatingPointError) as error:
        return Finding("persimmon-mini", BROKEN, str(error))
    rate = new_tokens / (time.perf_counter() - loaded)
    return Finding("persimmon-mini", FINE, f"loads in {loaded - started:.2f} s, writes {rate:,.0f} tokens a second")


def room_table(places: dict[Device, int]) -> Table:
    """What Persimmon-8B needs at its peak in each format, beside what is free."""
    config = PersimmonConfig.persimmon_8b()
    title = "What will fit (weights, the cache of one conversation, and reading all of it at once)"
    table = Table("Persimmon-8B", title=title, title_justify="left")
    for context in CONTEXTS:
        table.add_column(f"{context:,} tokens", justify="right")
        for place in places:
            table.add_column(f"on {place}")
    for name in (*PLAIN, *FORMATS):
        cells = []
        for context in CONTEXTS:
            needed = FormatPlan(config, name).needed(context)
            cells.append(in_bytes(needed))
            cells += ["fits" if needed <= free else f"{in_bytes(needed - free)} short" for free in places.values()]
        table.add_row(name, *cells)
    return table


def outlook_table(model: str, device: str, free: int) -> Table:
    """What fits on a device, how long a text may be, and the rate that its stream would allow, in each format."""
    config = PersimmonConfig.persimmon_8b() if model == "8b" else read_config(stored_folder(model), rounded_too=True)
    title = f"{model} on {device}, where {in_bytes(free)} are free"
    table = Table("format", "weights", "longest text", "streams", "tokens a second, predicted", "by", title=title,
                  title_justify="left")  # fmt: skip
    for entry in outlook(config, device, free):
        plan = entry.plan
        if not entry.context or entry.first_rate is None or entry.last_rate is None or entry.bandwidth is None:
            short = plan.needed(1) - SHARE * free
            table.add_row(plan.name, in_bytes(plan.weights), f"does not fit: {in_bytes(short)} short", "", "", "")
            continue
        table.add_row(
            plan.name,
            in_bytes(plan.weights),
            f"{entry.context:,} of {config.max_position_embeddings:,}",
            f"{in_bytes(entry.bandwidth)}/s",
            f"{entry.first_rate:.3g} at first, {entry.last_rate:.3g} at the end",
            way_of(entry.how, device),
        )
    return table


def way_of(how: str, device: str) -> str:
    """What multiplies, in words."""
    if how in WAYS:
        return WAYS[how]
    return "torch's own product" if FORMATS[how](1, GROUP, COMPUTING, device).has_kernel else "emulation"


def spread(places: dict[Device, int]) -> Iterator[str]:
    """How `load_over_devices` would lay out Persimmon-8B in bfloat16 where there is a GPU and it is too small."""
    for context in CONTEXTS:
        plan = memory_plan(PersimmonConfig.persimmon_8b(), torch.bfloat16, context=context)
        if list(places) == ["cpu"] or any(plan.fits({place: free}) for place, free in places.items() if place != "cpu"):
            continue
        try:
            layers = Counter(place for name, place in plan.place(places).items() if layer_of(name) is not None)
        except ValueError:
            continue
        shares = ", ".join(f"{count} layers on {place}" for place, count in layers.items())
        yield f"Persimmon-8B in bfloat16, {context:,} tokens, spread out: {shares}"
