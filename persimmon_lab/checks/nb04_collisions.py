"""Marks for notebook 04, 257 = 256?"""

from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, attempt, verdict
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.numerics.formats import format_of
from persimmon_lab.numerics.rotary import Collisions, collisions, phases
from persimmon_lab.rotary import inverse_frequencies

Positions = Int[Tensor, "position"]
CosAndSin = Float[Tensor, "two position pair"]


# Easy: positions_that_share


def share_cases() -> Iterator[Case]:
    for length, dtype in (
        (257, torch.bfloat16),
        (258, torch.bfloat16),
        (300, torch.bfloat16),
        (3000, torch.float16),
        (16384, torch.bfloat16),
    ):
        yield {"length": length, "dtype": dtype}


def counted(count: Callable[[Collisions], int]) -> Callable[..., Float[Tensor, ""]]:
    return lambda length, dtype: torch.tensor(float(count(collisions(format_of(dtype), length))))


def sharing_from_one(length: int, dtype: torch.dtype) -> Float[Tensor, ""]:
    """Of the positions 1 … length, which are as many."""
    return counted(lambda result: result.sharing)(length + 1, dtype)  # 0 shares with nobody


positions_that_share = Exercise(
    reference=counted(lambda result: result.sharing),
    cases=share_cases,
    axes=(),
    praise="of the 8B's 16,384 positions, 320 have a value to themselves in bfloat16",
    mistakes={
        "this counts the different values; asked for are the positions that have no value to themselves": counted(
            lambda result: result.distinct
        ),
        "of a group of three this counts two; all three share": counted(
            lambda result: len(result.rounded) - result.distinct
        ),
        "this counts the positions that move; 256 stays where it is and yet shares its value with 257": counted(
            lambda result: int((result.rounded != torch.arange(len(result.rounded))).sum())
        ),
        "this counts the shared values, not the positions that share them": counted(
            lambda result: int((result.groups["positions"] > 1).sum())
        ),
        "this counts from 1 to length; positions run from 0 to length - 1": sharing_from_one,
        "this rounds to bfloat16 whatever dtype is asked for": lambda length, dtype: counted(
            lambda result: result.sharing
        )(length, torch.bfloat16),
    },
)


# Medium: separate_errors


def error_cases() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(4)
    for rotary_dim, theta in ((16, 25000.0), (8, 10000.0), (32, 500.0)):
        positions = torch.randint(0, 2000, (50,), generator=generator)
        yield {"positions": positions, "theta": theta, "rotary_dim": rotary_dim}


def separated(
    first: tuple[str, ...] = ("position",), second: tuple[str, ...] = ("frequency",), sign: int = 1
) -> Callable[..., Float[Tensor, "two position pair"]]:
    """The phase errors with the steps `first` rounded, and with those in `second`."""

    def errors(positions: Positions, theta: float, rotary_dim: int) -> Float[Tensor, "two position pair"]:
        config = PersimmonConfig(
            hidden_size=rotary_dim, num_attention_heads=1, partial_rotary_factor=1.0, rope_theta=theta
        )
        exact = phases(positions, config)
        return sign * torch.stack([phases(positions, config, steps) - exact for steps in (first, second)])

    return errors


separate_errors = Exercise(
    reference=separated(),
    cases=error_cases,
    axes=("error", "position", "pair"),
    praise="the first is nothing up to 256 and common to all pairs, the second grows from the start",
    mistakes={
        "the two are in the wrong order: first the position's, then the frequency's": separated(
            ("frequency",), ("position",)
        ),
        "the sign is flipped: the error is rounded less exact": separated(sign=-1),
        "these are sizes; an error has a sign": lambda **case: separated()(**case).abs(),
        "both hold the two errors together; round one and keep the other exact": separated(
            ("position", "frequency"), ("position", "frequency")
        ),
        "the product was rounded too; multiply in float64": separated(
            ("position", "product"), ("frequency", "product")
        ),
        "these are the phases; subtract the exact ones": lambda positions, theta, rotary_dim: (
            separated()(positions, theta, rotary_dim)
            + rearrange(positions.double(), "position -> position 1")
            * inverse_frequencies(rotary_dim, theta, dtype=torch.float64)
        ),
    },
)


# Open: two_turns

ROWS = 320  # 256 positions and 64 multiples of 256, say
CLOSE = 2.0**-6  # four roundings to bfloat16 of numbers up to 1, one after the other, and some more


class SmallTable:
    """Cosine and sine of chosen positions, made in float64 and rounded once to bfloat16; counts the rows asked for."""

    def __init__(self, rotary_dim: int, theta: float) -> None:
        self.frequencies = inverse_frequencies(rotary_dim, theta, dtype=torch.float64)
        self.asked: set[int] = set()

    def __call__(self, positions: Positions) -> CosAndSin:
        self.asked |= set(positions.tolist())
        return self.exact(positions).bfloat16()

    def __repr__(self) -> str:
        return f"a table with room for {ROWS} positions"

    def exact(self, positions: Positions) -> CosAndSin:
        angles = rearrange(positions.double(), "position -> position 1") * self.frequencies
        return torch.stack((angles.cos(), angles.sin()))


def two_turns(answer: Callable[..., CosAndSin]) -> Verdict:
    """Any way will do that gets 16,384 rows out of a table of 320, in bfloat16 and as exact as bfloat16 allows."""
    return verdict(_check_turns, answer, "320 rows tell 16,384 positions apart, in bfloat16; now try it on the model")


def _check_turns(answer: Callable[..., CosAndSin]) -> None:
    for rotary_dim, theta in ((16, 25000.0), (8, 100.0)):
        table, positions = SmallTable(rotary_dim, theta), torch.arange(16384)
        right = table.exact(positions)
        result = attempt(answer, {"positions": positions, "table": table}, right.shape)
        if len(table.asked) > ROWS:
            raise Wrong(f"the table was asked for {len(table.asked):,} different positions; it has room for {ROWS}")
        if result.dtype != torch.bfloat16:
            raise Wrong(f"the result is {result.dtype}; cosine and sine are wanted in bfloat16")
        if not ((result.double() - right).abs() <= CLOSE).all():
            raise Wrong(_what_is_off(result.double(), right))


def _what_is_off(result: CosAndSin, right: CosAndSin) -> str:
    """Why these cosines and sines of the positions 0 … 16,383 are not the right ones."""
    if torch.equal(result[:, 256], result[:, 257]):
        return "positions 256 and 257 still have the same cosines and sines: one of them was rounded away"
    if torch.equal(result[:, 256], result[:, 0]):
        return "position 256 comes out as position 0: what is above the low part got lost"
    cos, sin = result
    length = (cos**2 + sin**2).amax(dim=-1)
    if ((length - 1).abs() > 4 * CLOSE).any():
        worst = int((length - 1).abs().argmax())
        return (
            f"at position {worst:,} cos² + sin² is {length[worst]:.2f}, so this is no rotation; mind the signs, and "
            "that angles add while their cosines and sines do not"
        )
    if (cos[1] - right[0, 1]).abs().max() <= CLOSE and (sin[1] + right[1, 1]).abs().max() <= CLOSE:
        return "position 1 is turned by -1: the low part turns the wrong way; the two turns add"
    error = (result - right).abs().amax(dim=(0, 2))
    first = int((error > CLOSE).nonzero()[0])
    return f"position {first:,} is the first that is off, by {error[first]:.3f}; {CLOSE:.3f} is allowed"
