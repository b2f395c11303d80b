"""Marks for notebook 03, Rotation as position."""

import math
from collections.abc import Callable, Iterator

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, attempt, numbers, verdict
from persimmon_lab.rotary import apply_rotary, inverse_frequencies

Vectors = Float[Tensor, "batch head position channel"]
Positions = Int[Tensor, "position"]
HALVES = "this matches adjacent-pair rotation; Persimmon rotates halves: channel i goes with channel i + rotary_dim/2"
WHOLE_WIDTH = (
    "its frequencies are spread over the whole head; the exponent is 2i / rotary_dim, over the rotated channels alone"
)
WITHOUT_TWO = "the exponent lacks its 2: pair i turns by theta^(-2i / rotary_dim), and this by theta^(-i / rotary_dim)"


def rotate(x: Vectors, positions: Positions, theta: float, rotary_dim: int, sign: int = 1) -> Vectors:
    """The module's rotation, by the positions themselves or (sign -1) back again."""
    frequencies = inverse_frequencies(rotary_dim, theta)
    phases = sign * einsum(positions.float(), frequencies, "position, pair -> position pair")
    phases = repeat(phases, "position pair -> 1 position (half pair)", half=2)
    return apply_rotary(x, phases.cos(), phases.sin())


def halves_to_adjacent(x: Float[Tensor, "*leading channel"], rotary_dim: int) -> Float[Tensor, "*leading channel"]:
    """Reorder the rotated channels so that i and i + rotary_dim/2 come to stand at 2i and 2i + 1; the others stay."""
    rotated = rearrange(x[..., :rotary_dim], "... (half pair) -> ... (pair half)", half=2)
    return torch.cat((rotated, x[..., rotary_dim:]), dim=-1)


def adjacent_to_halves(x: Float[Tensor, "*leading channel"], rotary_dim: int) -> Float[Tensor, "*leading channel"]:
    """The way back: 2i and 2i + 1 come to stand at i and i + rotary_dim/2."""
    rotated = rearrange(x[..., :rotary_dim], "... (pair half) -> ... (half pair)", half=2)
    return torch.cat((rotated, x[..., rotary_dim:]), dim=-1)


def rotate_adjacent(x: Vectors, positions: Positions, theta: float, rotary_dim: int, sign: int = 1) -> Vectors:
    """The rotation of the original paper, in which channel 2i goes with channel 2i + 1."""
    return halves_to_adjacent(rotate(adjacent_to_halves(x, rotary_dim), positions, theta, rotary_dim, sign), rotary_dim)


def rotate_with_whole_width_frequencies(
    x: Vectors, positions: Positions, theta: float, rotary_dim: int, sign: int = 1
) -> Vectors:
    """Frequencies theta^(-2i / head_dim): the whole head's exponent, which is theta^(rotary_dim/head_dim) as base."""
    return rotate(x, positions, theta ** (rotary_dim / x.shape[-1]), rotary_dim, sign)


# Easy: undo_rotation


def rotation_cases() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for batch, heads, channels, rotary_dim, theta in ((1, 1, 4, 4, 100.0), (2, 3, 16, 8, 25000.0), (1, 2, 12, 8, 1e4)):
        positions = torch.randint(0, 300, (5,), generator=generator)
        x = torch.randn(batch, heads, 5, channels, generator=generator)
        yield {"rotated": x, "positions": positions, "theta": theta, "rotary_dim": rotary_dim}


def unrotated(rotation: Callable[..., Vectors], sign: int = -1) -> Callable[..., Vectors]:
    return lambda rotated, positions, theta, rotary_dim: rotation(rotated, positions, theta, rotary_dim, sign)


undo_rotation = Exercise(
    reference=unrotated(rotate),
    cases=rotation_cases,
    axes=("batch", "head", "position", "channel"),
    praise="a rotation is undone by the same angle the other way, and what was passed was never touched",
    mistakes={
        "it rotates once more in the same direction; the way back needs the opposite angle": unrotated(rotate, 1),
        HALVES: unrotated(rotate_adjacent),
        WHOLE_WIDTH: unrotated(rotate_with_whole_width_frequencies),
        "it turns all channels; those from rotary_dim on were passed, not rotated": (
            lambda rotated, positions, theta, rotary_dim: rotate(rotated, positions, theta, rotated.shape[-1], -1)
        ),
        "it turns by 0, 1, 2, … in place of the positions that it is given": (
            lambda rotated, positions, **case: unrotated(rotate)(rotated, torch.arange(len(positions)), **case)
        ),
        WITHOUT_TWO: lambda theta, **case: unrotated(rotate)(**case, theta=math.sqrt(theta)),
        "it returns what it was given": lambda rotated, positions, theta, rotary_dim: rotated,
    },
)


# Medium: score_by_offset


def offset_cases() -> Iterator[Case]:
    draw = numbers(1)
    for channels, rotary_dim, theta in ((2, 2, 10.0), (16, 8, 25000.0), (12, 12, 500.0)):
        query, key = draw(2, channels)
        offsets = torch.arange(0, 40, 3)
        yield {"query": query, "key": key, "offsets": offsets, "theta": theta, "rotary_dim": rotary_dim}


def scored(rotation: Callable[..., Vectors], sign: int = 1) -> Callable[..., Float[Tensor, "offset"]]:
    """The scores of a query that stands `offsets` after its key, by a given rotation."""

    def score(query: Tensor, key: Tensor, offsets: Tensor, theta: float, rotary_dim: int) -> Float[Tensor, "offset"]:
        queries = repeat(query, "channel -> 1 1 offset channel", offset=len(offsets))
        turned = rotation(queries, offsets, theta, rotary_dim, sign)
        return einsum(turned, key, "batch head offset channel, channel -> offset")

    return score


def score_of_rotated_part(
    query: Tensor, key: Tensor, offsets: Tensor, theta: float, rotary_dim: int
) -> Float[Tensor, "offset"]:
    return scored(rotate)(query[:rotary_dim], key[:rotary_dim], offsets, theta, rotary_dim)


score_by_offset = Exercise(
    reference=scored(rotate),
    cases=offset_cases,
    axes=("offset",),
    praise="no absolute position went in, so none can matter: the score is a function of the offset alone",
    mistakes={
        "the sign of the offset is flipped: the query stands `offset` positions after the key": scored(rotate, -1),
        HALVES: scored(rotate_adjacent),
        WHOLE_WIDTH: scored(rotate_with_whole_width_frequencies),
        "the passed channels are missing: the score is the rotated part plus the passed part": score_of_rotated_part,
        "it turns by 0, 1, 2, … in place of the offsets that it is given": (
            lambda offsets, **case: scored(rotate)(**case, offsets=torch.arange(len(offsets)))
        ),
        WITHOUT_TWO: lambda theta, **case: scored(rotate)(**case, theta=math.sqrt(theta)),
        "the offset plays no part yet: this is the score without rotation": (
            lambda query, key, offsets, theta, rotary_dim: (query @ key).expand(len(offsets))
        ),
        "it divides by the square root of the channels; here the plain dot product is asked for": (
            lambda query, key, offsets, theta, rotary_dim: (
                scored(rotate)(query, key, offsets, theta, rotary_dim) / math.sqrt(len(query))
            )
        ),
    },
)


# Medium: reorder_for_adjacent


def reorder_cases() -> Iterator[Case]:
    draw = numbers(2)
    for shape, rotary_dim in (((3, 8), 8), ((1, 2, 5, 16), 8), ((4, 12), 6)):
        yield {"x": draw(*shape), "rotary_dim": rotary_dim}


reorder_for_adjacent = Exercise(
    reference=halves_to_adjacent,
    cases=reorder_cases,
    axes=("batch", "head", "position", "channel"),
    praise="the two conventions are one rotation under two orders of the channels",
    mistakes={
        "this leads from adjacent pairs to halves; asked for is the other way: i to 2i, i + rotary_dim/2 to 2i + 1": (
            adjacent_to_halves
        ),
        "it reorders the whole head; the channels from rotary_dim on must stay where they are": (
            lambda x, rotary_dim: halves_to_adjacent(x, x.shape[-1])
        ),
        "the order is unchanged": lambda x, rotary_dim: x,
        "the halves are swapped, not interleaved": (
            lambda x, rotary_dim: torch.cat(
                (x[..., rotary_dim // 2 : rotary_dim], x[..., : rotary_dim // 2], x[..., rotary_dim:]), dim=-1
            )
        ),
    },
)


# Open: stretch_frequencies

FAST_TURNS = 32  # a pair that turns this often within the trained length tells neighbours apart (YaRN's beta_fast)
SAME_SPEED = 0.01  # two frequencies closer than one in a hundred count as one


def stretch_frequencies(answer: Callable[..., Float[Tensor, "pair"]]) -> Verdict:
    """Any frequencies will do that read `factor` times the trained length without an angle that training never saw,
    and still tell neighbours apart. Source: Peng et al. 2023, YaRN, section 3.2, "NTK-by-parts"."""
    praise = "slow pairs see no new angle, fast pairs still tell neighbours apart; try it on the model"
    return verdict(_check_stretch, answer, praise)


def _check_stretch(answer: Callable[..., Float[Tensor, "pair"]]) -> None:
    for rotary_dim, theta, factor, trained_length in ((16, 25000.0, 4.0, 512), (32, 25000.0, 2.0, 16384)):
        before = inverse_frequencies(rotary_dim, theta)
        case = {"frequencies": before, "factor": factor, "trained_length": trained_length}
        after = attempt(answer, case, before.shape)
        turns = before * trained_length / (2 * math.pi)
        where = f"rotary_dim {rotary_dim}, theta {theta:.0f}, factor {factor:.0f}, trained on {trained_length}"
        if (after <= 0).any() or (after[1:] >= after[:-1]).any():
            raise Wrong(f"frequencies must stay positive and fall from pair to pair ({where})")
        for pair in range(len(before)):
            slowdown = float(before[pair] / after[pair])
            if turns[pair] < 1 and slowdown < factor * (1 - SAME_SPEED):
                raise Wrong(
                    f"pair {pair} made {turns[pair]:.2f} turns in training and would now make "
                    f"{turns[pair] * factor / slowdown:.2f}, at unseen angles; slow it down by {factor:.0f} ({where})"
                )
            if turns[pair] >= FAST_TURNS and abs(slowdown - 1) > SAME_SPEED:
                raise Wrong(
                    f"pair {pair} makes {turns[pair]:.0f} turns in training and tells neighbours apart; it was slowed "
                    f"down by {slowdown:.2f}, so neighbours move closer together: leave it as it is ({where})"
                )
