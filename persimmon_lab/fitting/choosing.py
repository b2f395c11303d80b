"""What of a model fits here, asked before anything is allocated: all of it, its first layers, or persimmon-mini."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.matching import names_in_file
from persimmon_lab.checkpoints.rounded import rounding_of
from persimmon_lab.checkpoints.settings import override, read_config, read_generation_config
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.checkpoints.skeletons import shapes_in_file, skeleton
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.fitting.formats import FormatPlan
from persimmon_lab.fitting.memory import weight_bytes
from persimmon_lab.footprint import activation_bytes, cache_bytes, free_on, in_bytes
from persimmon_lab.mini import MINI, REAL, Loaded, load_mini, load_real_or_mini
from persimmon_lab.tokenizer import PersimmonTokenizer

SHARE = 0.95  # of what is free: the allocator's rounding and kernels' workspaces come on top
COMPARED = 64  # positions whose logits a comparison turns into float64 at a time, in six tensors
STEP = 64  # positions


def comparison_bytes(config: PersimmonConfig, dtype: torch.dtype, positions: int, runs: int = 2) -> int:
    """Bytes besides the weights to read one row of `positions` with either attention and compare the logits of `runs`
    runs: a pass with its cache, the logits of all, and one of them in float32, twice, or pieces of them in float64."""
    eager = replace(config, attn_implementation="eager")
    reading = cache_bytes(config, dtype, positions) + activation_bytes(eager, dtype, positions, logits_to_keep=0)
    compared = max(2 * positions * torch.float32.itemsize, 6 * min(positions, COMPARED) * torch.float64.itemsize)
    return reading + config.vocab_size * (positions * runs * dtype.itemsize + compared)


@dataclass(frozen=True)
class Choice:
    """The first `layers` of a model: all of them, some, or none where not even one fits. Printed, it says so."""

    config: PersimmonConfig
    dtype: torch.dtype
    device: torch.device
    spare: int
    """Bytes that have to stay free beside the weights."""
    free: int | None
    layers: int

    @property
    def is_whole(self) -> bool:
        return self.layers == self.config.num_hidden_layers

    def needed(self, layers: int) -> int:
        """Bytes with that many layers."""
        return weight_bytes(replace(self.config, num_hidden_layers=layers), self.dtype) + self.spare

    def __str__(self) -> str:
        every = self.config.num_hidden_layers
        free = "what is free is not known" if self.free is None else f"{in_bytes(self.free)} are free on {self.device}"
        whole = f"{in_bytes(self.needed(every))} in {str(self.dtype).removeprefix('torch.')}"
        if self.is_whole:
            return f"all {every} layers, {whole}; {free}"
        if self.layers:
            part = in_bytes(self.needed(self.layers))
            return f"the first {self.layers} of {every} layers, {part}; all would take {whole}, and {free}"
        return f"none of {every} layers, persimmon-mini in their place: {whole}, and {free}"


def choose(config: PersimmonConfig, dtype: torch.dtype, device: torch.device | str = "cpu", spare: int = 0) -> Choice:
    """As many layers as fit on the device, with both tables and `spare` bytes left over; nothing is allocated."""
    choice = Choice(config, dtype, torch.device(device), spare, free_on(device), config.num_hidden_layers)
    if choice.free is None:
        return choice
    room = SHARE * choice.free
    layers = (layers for layers in range(config.num_hidden_layers, 0, -1) if choice.needed(layers) <= room)
    return replace(choice, layers=next(layers, 0))


def load_what_fits(
    path: str | os.PathLike[str] | None = None,
    torch_dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    spare: Callable[[PersimmonConfig], int] | None = None,
    say: Callable[[str], object] = print,
) -> Loaded:
    """The model of `load_real_or_mini`, or the first layers of the 8B, or persimmon-mini in its place: what fits, and a
    line that says what was taken, printed or told to `say`. Where no 8B is named, persimmon-mini and no line.

    `spare(config)` bytes stay free for what is to be done with it. The first layers make the hidden states that the
    whole model makes up to there, and predictions that are not its own; the name says so. A checkpoint of rounded
    weights is taken whole.

    Raises CheckpointError as `load_real_or_mini` does.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    source = path or os.environ.get(REAL)
    try:
        config = read_config(hub.resolve(source), rounded_too=True) if source else None
    except (CheckpointError, OSError):
        config = None  # its error, below, names the variable
    if not source or config is None:
        return load_real_or_mini(path, torch_dtype, device)
    if (rounding := rounding_of(config)) is not None:
        size = in_bytes(FormatPlan(config, rounding.format).weights)
        say(f"{Path(source).absolute().name}: all {config.num_hidden_layers} layers, {size} in {rounding.format}")
        return load_real_or_mini(path, torch_dtype or rounding.dtype, device)
    choice = choose(config, torch_dtype or torch.bfloat16, device, 0 if spare is None else spare(config))
    name = Path(source).absolute().name
    say(f"{name}: {choice}")
    if choice.is_whole:
        return load_real_or_mini(path, torch_dtype, device)
    if not choice.layers:
        return Loaded(*load_mini(torch_dtype, device), "persimmon-mini", MINI, is_real=False)
    model = first_layers(source, choice.layers, choice.dtype, device)
    name = f"{name}, first {choice.layers} of {config.num_hidden_layers} layers"
    tokenizer = PersimmonTokenizer.from_pretrained(source)
    return Loaded(model, tokenizer, name, os.path.expanduser(source), is_real=True)


def first_layers(
    path: str | os.PathLike[str], layers: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> PersimmonForCausalLM:
    """A checkpoint's first layers between its embedding and its head; what the others weigh is never read.

    Raises ValueError for fewer layers than 1 or more than there are, CheckpointError for a tensor that is not there.
    """
    folder = hub.resolve(path)
    whole = read_config(folder)
    if not 1 <= layers <= whole.num_hidden_layers:
        raise ValueError(f"layers is {layers}; {folder} has {whole.num_hidden_layers}, and one is the least")
    config = override(whole, {"num_hidden_layers": layers, "torch_dtype": dtype_name(dtype)})
    model = skeleton(PersimmonForCausalLM, config)
    files = open_weights(folder)
    tied = model._tied_weights_keys if config.tie_word_embeddings else ()
    names = names_in_file(shapes_in_file(model, tied), files)
    if absent := [name for name in names.values() if name not in files]:
        raise CheckpointError(f"{folder} has no {', '.join(absent)}; convert the release again")
    tensors = {name: files[stored].read(stored, dtype=dtype, device=device) for name, stored in names.items()}
    model.load_state_dict(tensors, assign=True, strict=False)  # everything is there but the tied, tied below
    model.tie_weights()
    model.generation_config = read_generation_config(folder)
    return model.eval()


def check_room_for_copies(model: nn.Module, dtypes: Iterable[torch.dtype | None], what: str) -> None:
    """Ask before copying a model, once for each dtype (None: its own), where its weights are.

    Raises MemoryError with the numbers, and what to use, where a device has less free.
    """
    needed: dict[torch.device, int] = {}
    for dtype in dtypes:
        for weight in model.parameters():
            size = weight.numel() * (weight.dtype if dtype is None else dtype).itemsize
            needed[weight.device] = needed.get(weight.device, 0) + size
    for device, size in needed.items():
        free = free_on(device)
        if free is not None and size > SHARE * free:
            raise MemoryError(
                f"{what} copies the model: {in_bytes(size)} on {device}, where {in_bytes(free)} are free. Take fewer "
                "of its layers (persimmon_lab.fitting.first_layers) or persimmon-mini (load_mini()); to compare "
                "formats, numerics.computing_in needs no copy"
            )


def how_many_fit(size: int, device: torch.device | str, at_most: int, spare: int = 0) -> int:
    """How many things of `size` bytes half of what is free on a device holds beside `spare` bytes: 1 at least and
    `at_most` at most."""
    free = free_on(device)
    return at_most if free is None else max(1, min(at_most, (free - spare) // 2 // size))


def positions_that_fit(config: PersimmonConfig, dtype: torch.dtype, device: torch.device | str, at_most: int) -> int:
    """The longest row, in steps of 64 positions, whose `comparison_bytes` are free on a device; 64 at least."""
    free = free_on(device)
    if free is None:
        return at_most
    lengths = (at_most, *range((at_most - 1) // STEP * STEP, 0, -STEP))
    return next((n for n in lengths if comparison_bytes(config, dtype, n) <= SHARE * free), min(STEP, at_most))
