"""Rotary phases in a low precision: which positions collide, and what each rounding does alone.

One line computes all phases, and in a narrow format it rounds three times:

    phase = round(round(position) * round(frequency))

`rotary_tables` computes it in float32, or with `rope_precision="adept"` as Adept's inference does, with all three
roundings to half precision. `rotary_effect` runs a model with phases made here.
"""

from collections.abc import Collection
from dataclasses import dataclass

import pandas
import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.numerics.formats import FORMATS, NumberFormat, round_to
from persimmon_lab.rotary import inverse_frequencies

STEPS = ("position", "frequency", "product")  # in the order of computing
ROUNDINGS = {
    "position": ("position",),
    "frequency": ("frequency",),
    "both": ("position", "frequency"),
    "adept": STEPS,
}

Phases = Float[Tensor, "*leading position pair"]
Tables = tuple[Float[Tensor, "#batch position rotary"], Float[Tensor, "#batch position rotary"]]


@dataclass(frozen=True)
class Collisions:
    """What the positions 0 … length - 1 become in a format.

    `groups` has a row for each distinct `value`: the `first` and the `last` position that round to it, and how many
    these `positions` are. Rounding keeps the order, so a group is a run of neighbours.
    """

    format: NumberFormat
    rounded: Float[Tensor, "position"]
    groups: pandas.DataFrame

    def __repr__(self) -> str:
        return f"<Collisions of {len(self.rounded):,} positions in {self.format.name}: {self.distinct:,} distinct>"

    @property
    def distinct(self) -> int:
        return len(self.groups)

    @property
    def largest(self) -> int:
        """The size of the largest group."""
        return int(self.groups["positions"].max())

    @property
    def sharing(self) -> int:
        """How many positions share their value with another one."""
        return int(self.groups.query("positions > 1")["positions"].sum())

    @property
    def distinct_so_far(self) -> Int[Tensor, "position"]:
        """The staircase: how many different values the positions up to and including each one have."""
        rises = torch.ones(len(self.rounded), dtype=torch.int64)
        rises[1:] = self.rounded[1:] != self.rounded[:-1]
        return rises.cumsum(dim=0)


def collisions(format: NumberFormat, length: int) -> Collisions:
    """Which of the first `length` positions share a rounded value, to nearest and ties to even.

    The trap: `torch.arange(length, dtype=torch.bfloat16)` is another function on a CPU. It rounds where each vector of
    lanes starts, adds, and rounds again (torch 2.13 with AVX-512: other values from 4,113 on). So integers come first.

    Raises ValueError for a length below 1.
    """
    if length < 1:
        raise ValueError(f"length is {length}; give 1 or more positions")
    positions = torch.arange(length, dtype=torch.float64)
    rounded = round_to(positions, format)
    table = pandas.DataFrame({"value": rounded.numpy(), "position": positions.long().numpy()})
    groups = table.groupby("value")["position"].agg(first="min", last="max", positions="size").reset_index()
    return Collisions(format, rounded, groups)


def phases(
    positions: Int[Tensor, "*leading position"],
    config: PersimmonConfig,
    rounded: Collection[str] = (),
    format: NumberFormat = FORMATS["bfloat16"],
    dtype: torch.dtype = torch.float64,
) -> Phases:
    """Radians that every pair has turned at every position, computed in `dtype`, with the steps in `rounded` rounded.

    With u = 2^-(fraction bits + 1), relative, and a frequency f: a rounded position moves a phase by at most
    f * spacing(position) / 2 and not at all where the format holds the position; a rounded frequency by
    position * |round(f) - f| <= u * position * f, a straight line. A rounded product is off by up to half a spacing of
    the phase itself. None of it is reduced modulo 2 pi.

    In float32 with no rounding or with all of them these are the phases of `rotary_tables`, to the bit.
    Raises ValueError for a step that is none of STEPS, and for a config with `rope_scaling`.
    """
    if unknown := set(rounded) - set(STEPS):
        raise ValueError(f"rounded is {rounded!r}: no step is called {min(unknown)!r}; choose from {STEPS}")
    if config.rope_scaling is not None:
        raise ValueError(
            f"rope_scaling is {config.rope_scaling}; these are the phases of positions as they are: "
            "use dataclasses.replace(config, rope_scaling=None)"
        )

    def step(name: str, exact: Tensor) -> Tensor:
        return round_to(exact, format) if name in rounded else exact

    position = step("position", positions.to(dtype))
    frequency = inverse_frequencies(config.rotary_dim, config.rope_theta, positions.device, dtype)
    return step("product", rearrange(position, "... -> ... 1") * step("frequency", frequency))


def phase_errors(
    positions: Int[Tensor, "position"],
    config: PersimmonConfig,
    format: NumberFormat = FORMATS["bfloat16"],
) -> dict[str, Float[Tensor, "position pair"]]:
    """Phase less exact phase, in radians and float64, for each entry of ROUNDINGS."""
    exact = phases(positions, config)
    return {name: phases(positions, config, steps, format) - exact for name, steps in ROUNDINGS.items()}


def phase_tables(phases: Float[Tensor, "position pair"]) -> Tables:
    """Cosine and sine of the phases for both halves of the rotary channels: what the decoder layers take."""
    both = repeat(phases, "position pair -> 1 position (half pair)", half=2)
    return both.cos(), both.sin()
