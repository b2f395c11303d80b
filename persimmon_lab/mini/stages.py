"""Earlier moments of the shipped model's training, kept in four bits a weight so that they fit beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from persimmon_lab.atomic import write_atomically

GROUP = 64  # neighbours in a row that share a scale
LARGEST = 7  # of the whole numbers -7 to 7, which are stored as 1 to 15
SCALE = ".scale"
YOUNGER = "younger"  # their folder: beside a model's own weights they would pass for a part of it


class Stage(NamedTuple):
    """A model as it was after `step` steps of training, which had shown it `tokens` tokens."""

    weights: dict[str, Tensor]
    step: int
    tokens: int


def pack(matrix: Float[Tensor, "out in"]) -> tuple[UInt8[Tensor, "out pair"], Float[Tensor, "out group"]]:
    """The weights rounded to fifteen levels, two to a byte, and the float16 scale of each group of a row.

    Raises ValueError for rows that are no whole number of groups.
    """
    if matrix.shape[1] % GROUP:
        raise ValueError(f"rows of {matrix.shape[1]} weights are no whole number of groups of {GROUP}")
    groups = rearrange(matrix.float(), "out (group neighbour) -> out group neighbour", neighbour=GROUP)
    scale = (groups.abs().amax(dim=-1) / LARGEST).half()
    steps = groups / scale.float().clamp(min=torch.finfo(torch.half).tiny)[..., None]
    levels = (steps.round().clamp(-LARGEST, LARGEST) + LARGEST + 1).to(torch.uint8)
    low, high = rearrange(levels, "out group (pair two) -> two out (group pair)", two=2)
    return low | (high << 4), scale


def unpack(pairs: UInt8[Tensor, "out pair"], scale: Float[Tensor, "out group"]) -> Float[Tensor, "out in"]:
    """The float32 weights that `pack` stored."""
    levels = rearrange([pairs & 15, pairs >> 4], "two out pair -> out (pair two)").float() - (LARGEST + 1)
    groups = rearrange(levels, "out (group neighbour) -> out group neighbour", neighbour=GROUP)
    return rearrange(groups * scale.float()[..., None], "out group neighbour -> out (group neighbour)")


def write_stage(path: Path, weights: Mapping[str, Tensor], step: int, tokens: int) -> None:
    """Write a model's weights as they were after `step` steps: matrices packed, vectors as they are."""
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.ndim == 2:
            stored[name], stored[name + SCALE] = pack(weight)
        else:
            stored[name] = weight.contiguous()
    write_atomically(path, save(stored, {"step": str(step), "tokens": str(tokens)}))


def read_stage(path: Path) -> Stage:
    """What `write_stage` was given, but for the rounding."""
    weights: dict[str, Tensor] = {}
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for name in sorted(each for each in names if not each.endswith(SCALE)):
            stored = file.get_tensor(name)
            weights[name] = unpack(stored, file.get_tensor(name + SCALE)) if name + SCALE in names else stored
    return Stage(weights, *read_moment(path))


def read_moment(path: Path) -> tuple[int, int]:
    """The step and the tokens seen, without reading a weight."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    return int(about["step"]), int(about["tokens"])
