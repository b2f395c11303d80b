"""Marks for notebook 08, Remembering: how long a context fits, and where the next token stands."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise

Number = Float[Tensor, ""]

# Easy: longest_context


def bytes_a_position(layers: int, heads: int, head_dim: int, bytes_per_number: int, batch: int) -> int:
    return 2 * layers * heads * head_dim * bytes_per_number * batch


def fitting(free_bytes: int, **sizes: int) -> int:
    return free_bytes // bytes_a_position(**sizes)


def fitted(change: Callable[..., float]) -> Callable[..., Number]:
    return lambda **case: torch.tensor(float(change(**case)))


def memory_cases() -> Iterator[Case]:
    # The 8B on what an 80 GB card has left beside its weights, the shipped model, one that fits nothing, and one byte
    # less than ten positions take.
    names = ("free_bytes", "layers", "heads", "head_dim", "bytes_per_number", "batch")
    for sizes in (
        (61_205_649_408, 36, 64, 64, 2, 3),
        (1_000_000_000, 8, 8, 32, 4, 5),
        (12_345, 3, 5, 7, 2, 2),
        (100, 2, 4, 8, 4, 2),
        (8_400, 3, 5, 7, 2, 2),
        (8_399, 3, 5, 7, 2, 2),
    ):
        yield dict(zip(names, sizes))


longest_context = Exercise(
    reference=fitted(fitting),
    cases=memory_cases,
    axes=(),
    praise="bytes a position, times the rows, and only whole positions count",
    mistakes={
        "twice too long: a layer keeps a key and a value": fitted(
            lambda free_bytes, **sizes: 2 * free_bytes // bytes_a_position(**sizes)
        ),
        "this counts query, key and value; the query is used once and never kept": fitted(
            lambda free_bytes, **sizes: 2 * free_bytes // (3 * bytes_a_position(**sizes))
        ),
        "this is the memory of one layer; every layer has keys and values of its own": fitted(
            lambda layers, **case: fitting(layers=1, **case)
        ),
        "this is the memory of one head; every head has keys and values of its own": fitted(
            lambda heads, **case: fitting(heads=1, **case)
        ),
        "these are the positions of all rows together; each row of the batch needs its own": fitted(
            lambda batch, **case: fitting(batch=1, **case)
        ),
        "head_dim is missing: a head keeps that many numbers for a key, and as many for a value": fitted(
            lambda head_dim, **case: fitting(head_dim=1, **case)
        ),
        "these are numbers, not bytes: multiply by bytes_per_number": fitted(
            lambda bytes_per_number, **case: fitting(bytes_per_number=1, **case)
        ),
        "it takes two bytes a number, whatever bytes_per_number says": fitted(
            lambda bytes_per_number, **case: fitting(bytes_per_number=2, **case)
        ),
        "half a position cannot be kept: round down to a whole number": fitted(
            lambda free_bytes, **sizes: free_bytes / bytes_a_position(**sizes)
        ),
    },
)


# Medium: new_positions


def counted_from_start(attention_mask: Int[Tensor, "batch key"], past: int) -> Int[Tensor, "batch position"]:
    """Each new token's number among its row's own tokens, from 0; 0 at padding."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)[:, past:]


def padded_cases() -> Iterator[Case]:
    generator = torch.Generator().manual_seed(0)
    for past, new, pads in ((0, 6, (0, 2, 5)), (5, 1, (0, 3, 1)), (4, 3, (2, 0, 1)), (3, 4, (5, 1, 0)), (7, 1, (6,))):
        mask = torch.ones(len(pads), past + new, dtype=torch.int64)
        for row, count in enumerate(pads):
            mask[row, :count] = 0
        order = torch.randperm(len(pads), generator=generator)
        yield {"attention_mask": mask[order], "past": past}


def plain_positions(attention_mask: Int[Tensor, "batch key"], past: int) -> Int[Tensor, "batch position"]:
    return torch.arange(past, attention_mask.shape[1]).expand(len(attention_mask), -1)


new_positions = Exercise(
    reference=counted_from_start,
    cases=padded_cases,
    axes=("batch", "position"),
    praise="each row counts its own tokens, and goes on counting where the cache ends",
    mistakes={
        "it restarts at 0 with the new tokens; they go on from what the cache holds": (
            lambda attention_mask, past: (attention_mask[:, past:].cumsum(dim=-1) - 1).clamp(min=0)
        ),
        "it is one too high: the first token of a row has position 0": (
            lambda attention_mask, past: attention_mask.cumsum(dim=-1)[:, past:]
        ),
        "padding is counted: it takes a column, not a position": plain_positions,
        "padding comes out as -1, which no table has; use 0, nobody looks at it": (
            lambda attention_mask, past: (attention_mask.cumsum(dim=-1) - 1)[:, past:]
        ),
        "it adds `past` to positions that already count the past": (
            lambda attention_mask, past: counted_from_start(attention_mask, past) + past
        ),
    },
)
