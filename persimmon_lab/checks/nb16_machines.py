"""Marks for notebook 16, More than one machine."""

from collections.abc import Iterator

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, numbers

# Easy: vocabulary_part


def part(rows: int, ranks: int, rank: int) -> Int[Tensor, "2"]:
    """The first row of a rank, and the first that is not its own any more."""
    size = -(-rows // ranks)
    return torch.tensor([min(rows, rank * size), min(rows, (rank + 1) * size)])


def part_cases() -> Iterator[Case]:
    """Rows that divide, rows that do not, and so few that the last rank has none."""
    for rows, ranks in ((4096, 2), (131, 2), (100, 3), (262143, 8), (1001, 3), (9, 8), (10, 4)):
        for rank in range(ranks):
            yield {"rows": rows, "ranks": ranks, "rank": rank}


vocabulary_part = Exercise(
    reference=part,
    cases=part_cases,
    axes=("end",),
    praise="every row has one owner, and the last ranks have what is left",
    mistakes={
        "the size is rounded down, so the last rows are nobody's; round it up": (
            lambda rows, ranks, rank: torch.tensor([rank * (rows // ranks), (rank + 1) * (rows // ranks)])
        ),
        "the size is rounded down and the last rank has all the rest; torch rounds up, and the last ones have less": (
            lambda rows, ranks, rank: torch.tensor(
                [rank * (rows // ranks), rows if rank == ranks - 1 else (rank + 1) * (rows // ranks)]
            )
        ),
        "the last ranks end, or begin, behind the table; no row is above the number of rows": (
            lambda rows, ranks, rank: torch.tensor([rank * -(-rows // ranks), (rank + 1) * -(-rows // ranks)])
        ),
        "the second number is the last row of the part; return the first row behind it": (
            lambda rows, ranks, rank: part(rows, ranks, rank) - torch.tensor([0, 1])
        ),
    },
)


# Medium: cut_by_thirds

Weight = Float[Tensor, "fused hidden"]
THIRDS = "(three head channel) hidden -> three head channel hidden"


def cut(weight: Weight, heads: int, ranks: int, rank: int) -> Float[Tensor, "own hidden"]:
    """A rank's rows of a projection whose layout is (three head channel), in the same layout."""
    own = heads // ranks
    parts = rearrange(weight, THIRDS, three=3, head=heads)[:, rank * own : (rank + 1) * own]
    return rearrange(parts, "three head channel hidden -> (three head channel) hidden")


def cut_cases() -> Iterator[Case]:
    normal = numbers(0)
    for heads, channel, ranks, rank in ((4, 3, 2, 0), (4, 3, 2, 1), (6, 2, 3, 1), (8, 5, 4, 3)):
        yield {"weight": normal(3 * heads * channel, 7), "heads": heads, "ranks": ranks, "rank": rank}


def _every(weight: Tensor, heads: int, ranks: int, rank: int) -> Tensor:
    parts = rearrange(weight, THIRDS, three=3, head=heads)[:, rank::ranks]
    return rearrange(parts, "three head channel hidden -> (three head channel) hidden")


def _other_order(weight: Tensor, heads: int, ranks: int, rank: int) -> Tensor:
    own = rearrange(cut(weight, heads, ranks, rank), THIRDS, three=3, head=heads // ranks)
    return rearrange(own, "three head channel hidden -> (head three channel) hidden")


cut_by_thirds = Exercise(
    reference=cut,
    cases=cut_cases,
    axes=("fused", "hidden"),
    praise="query, key and value of the same heads, in the layout that was given",
    mistakes={
        "this is the whole cut in equal parts, as Persimmon's layout would have it; here the first third is all "
        "queries, so cut each third by itself": lambda weight, heads, ranks, rank: weight.chunk(ranks)[rank],
        "these are every so-and-so-many-th head; a rank has neighbours, as the columns of dense are cut": _every,
        "the right rows in Persimmon's order, (head three channel); leave them in the order they were given in": (
            _other_order
        ),
        "these are the heads of another rank; count ranks from 0": (
            lambda weight, heads, ranks, rank: cut(weight, heads, ranks, (rank + 1) % ranks)
        ),
    },
)


# Open: best_ranks


def seconds_of(work: float, sums: int, latency: float, ranks: Float[Tensor, "ranks"]) -> Float[Tensor, "ranks"]:
    """Of a token: the work shared out, and 2 (P - 1) messages a sum, one after the other."""
    return work / ranks + sums * 2 * (ranks - 1) * latency


def fastest(work: float, sums: int, latency: float, most: int) -> Int[Tensor, ""]:
    """The number of ranks, from 1 to `most`, with which a token takes least."""
    ranks = torch.arange(1, most + 1, dtype=torch.float64)
    return seconds_of(work, sums, latency, ranks).argmin() + 1


def ranks_cases() -> Iterator[Case]:
    """The 8B on several machines, from links so slow that one is best to so fast that all are; and a small one."""
    for work, sums, latency, most in (
        (5.6e-3, 73, 2e-6, 64), (7e-3, 73, 2e-6, 64), (5.6e-3, 73, 2e-6, 4), (5.6e-3, 73, 5e-5, 64),
        (8e-2, 73, 1e-5, 64), (5.6e-3, 73, 3e-7, 64), (2e-1, 145, 1e-6, 16),
        (1e-3, 2, 1e-5, 64),
    ):  # fmt: skip
        yield {"work": work, "sums": sums, "latency": latency, "most": most}


best_ranks = Exercise(
    reference=fastest,
    cases=ranks_cases,
    axes=(),
    praise="beyond these the messages cost more than the sharing gains",
    mistakes={
        "this is all there are; with each rank a sum takes two messages longer": (
            lambda work, sums, latency, most: torch.tensor(most)
        ),
        "this is rounded down from the root of work / (2 · sums · latency); the whole number above may be better": (
            lambda work, sums, latency, most: torch.tensor(max(1, min(most, int((work / (2 * sums * latency)) ** 0.5))))
        ),
        "a sum over P ranks takes 2 (P - 1) messages one after the other; here it takes half as many": (
            lambda work, sums, latency, most: fastest(work, sums, latency / 2, most)
        ),
        "the number is not between 1 and `most`": (
            lambda work, sums, latency, most: torch.tensor(round((work / (2 * sums * latency)) ** 0.5))
        ),
    },
)
