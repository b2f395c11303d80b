"""Marks for notebook 10, Real weights."""

from collections.abc import Callable, Iterator

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.adept.tensor_names import shared_dimension
from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, agree, attempt, distance, numbers, verdict

Fused = Float[Tensor, "fused hidden"]
Parts = Float[Tensor, "rank *part"]


# Easy: query_of


def query_of_head(
    fused: Fused, num_heads: int, head: int, which: int = 0, rows: str = "(head three channel)"
) -> Float[Tensor, "channel hidden"]:
    """One head's rows out of the fused projection: its query (0), key (1) or value (2)."""
    apart = rearrange(fused, f"{rows} hidden -> three head channel hidden", three=3, head=num_heads)
    return apart[which, head]


def query_cases() -> Iterator[Case]:
    draw = numbers(0)
    for num_heads, channels, hidden, head in ((4, 2, 8, 3), (8, 32, 16, 1), (3, 4, 12, 2)):
        fused = draw(3 * num_heads * channels, hidden)
        yield {"fused": fused, "num_heads": num_heads, "head": head}


query_of = Exercise(
    reference=query_of_head,
    cases=query_cases,
    axes=("channel", "hidden"),
    praise="each head keeps its query, key and value together, so that a rank can hold whole heads",
    mistakes={
        "this reads the rows as (three head channel): all queries first. Megatron interleaves them head by head: "
        "(head three channel)": lambda **case: query_of_head(**case, rows="(three head channel)"),
        "these are the rows of the head's key; its query comes first": lambda **case: query_of_head(**case, which=1),
        "these are the rows of the head's value; its query comes first": lambda **case: query_of_head(**case, which=2),
        "this is the first head's query, whatever head is asked for": lambda fused, num_heads, head: query_of_head(
            fused, num_heads, 0
        ),
        "this reads (head channel three); a head's query, key and value are blocks, not dealt out row by row": (
            lambda **case: query_of_head(**case, rows="(head channel three)")
        ),
    },
)


# Medium: join, a converter to repair

NAMES = (
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.bias",
    "model.layers.0.self_attn.query_key_value.weight",
    "model.layers.0.self_attn.query_key_value.bias",
    "model.layers.0.self_attn.q_layernorm.weight",
    "model.layers.0.self_attn.dense.weight",
    "model.layers.0.self_attn.dense.bias",
    "model.layers.0.mlp.dense_h_to_4h.weight",
    "model.layers.0.mlp.dense_h_to_4h.bias",
    "model.layers.0.mlp.dense_4h_to_h.weight",
    "model.layers.0.mlp.dense_4h_to_h.bias",
    "lm_head.weight",
)
# What a wrong answer does with the parts of one tensor, by the dimension along which the ranks share it out.
JOIN_MISTAKES: dict[int | None, dict[str, Callable[[Parts], Tensor]]] = {
    0: {
        "a rank's rows are whole heads, (head three channel); taking the first third of every rank's rows tears the "
        "heads apart. Put one rank's rows behind the other's": lambda parts: rearrange(
            parts, "rank (three row) ... -> (three rank row) ...", three=3
        ),
        "this deals the rows out in turn, (row rank); a rank holds one block of rows, (rank row)": lambda parts: (
            rearrange(parts, "rank row ... -> (row rank) ...")
        ),
        "the ranks are in the wrong order: rank 0 holds the first rows": lambda parts: rearrange(
            parts.flip(0), "rank row ... -> (rank row) ..."
        ),
    },
    1: {
        "this deals the columns out in turn, (column rank); a rank holds one block of columns, (rank column)": (
            lambda parts: rearrange(parts, "rank row column -> row (column rank)")
        ),
        "the ranks are in the wrong order: rank 0 holds the first columns": lambda parts: rearrange(
            parts.flip(0), "rank row column -> row (rank column)"
        ),
    },
    None: {
        "every rank holds a copy of it, and this adds the copies up; take one": lambda parts: reduce(
            parts, "rank ... -> ...", "sum"
        ),
    },
}


def joined(name: str, parts: Parts) -> Float[Tensor, "..."]:
    """What tensor-parallel ranks hold of the tensor of this name, put together."""
    patterns = {0: "rank row ... -> (rank row) ...", 1: "rank row column -> row (rank column)"}
    dimension = shared_dimension(name)
    return parts[0] if dimension is None else rearrange(parts, patterns[dimension])


def part_cases() -> Iterator[Case]:
    """What two or four ranks hold of each kind of tensor: parts of their own, or copies of one tensor."""
    draw = numbers(1)
    for ranks in (2, 4):
        for name in NAMES:
            is_matrix = name.endswith("weight") and "layernorm" not in name
            shape = (12, 6) if is_matrix else (12,)  # of a fused projection: two heads of two channels
            parts = draw(ranks, *shape)
            copies = shared_dimension(name) is None
            yield {"name": name, "parts": torch.stack([parts[0]] * ranks) if copies else parts}


def join(answer: Callable[..., Tensor]) -> Verdict:
    """Marks `join(name, parts)`, which gives the whole tensor; parts are (rank row) or (rank row column)."""
    return verdict(check_join, answer, "rows behind rows, columns beside columns, a copy once: so does convert()")


def check_join(answer: Callable[..., Tensor]) -> None:
    for case in part_cases():
        right = joined(**case)
        try:
            whole = attempt(answer, case, right.shape)
        except Wrong as wrong:
            raise Wrong(f"{case['name']}: {wrong}") from wrong
        if agree(whole, right):
            continue
        for message, mistake in JOIN_MISTAKES[shared_dimension(case["name"])].items():
            if agree(whole, mistake(case["parts"])):
                raise Wrong(f"{case['name']}: {message}")
        raise Wrong(f"{case['name']}: the shape is right, the numbers are not: {distance(whole, right)}")
