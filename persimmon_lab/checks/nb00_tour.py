"""Marks for notebook 00, the ten-minute tour."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.fitting.memory import parameter_counts

Number = Float[Tensor, ""]
CONFIGS = (
    PersimmonConfig.persimmon_8b(),
    PersimmonConfig.tiny(),
    PersimmonConfig.tiny(vocab_size=5000, hidden_size=96, intermediate_size=200, num_hidden_layers=7),
)


def gigabytes(layers: int, hidden: int, positions: int, bytes_per_number: int, tensors: int = 2) -> Number:
    """The cache of one row; `tensors` 2 is a key and a value."""
    return torch.tensor(tensors * layers * hidden * positions * bytes_per_number / 1e9)


def cache_cases() -> Iterator[Case]:
    for config, positions, dtype in zip(
        CONFIGS, (16_384, 3_000_000, 777_777), (torch.bfloat16, torch.float32, torch.float16), strict=True
    ):
        yield {
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "positions": positions,
            "bytes_per_number": dtype.itemsize,
        }
    # No real model, but one in which a position more or less is a gigabyte.
    yield {"layers": 400, "hidden": 300_000, "positions": 3, "bytes_per_number": 4}


cache_gigabytes = Exercise(
    reference=gigabytes,
    cases=cache_cases,
    axes=(),
    praise="two numbers per layer, channel and token, and the full context of the 8B costs 9.7 GB",
    mistakes={
        "this is half of it: a layer keeps a key and a value": lambda **case: gigabytes(**case, tensors=1),
        "this counts query, key and value; the query is used once and never kept": lambda **case: gigabytes(
            **case, tensors=3
        ),
        "this is one layer's share; every layer has a cache of its own": lambda layers, **case: gigabytes(1, **case),
        "this counts in bytes; a gigabyte is 10⁹ of them": lambda **case: gigabytes(**case) * 1e9,
        "this counts in GiB (2³⁰ bytes); a gigabyte is 10⁹": lambda **case: gigabytes(**case) * 1e9 / 2**30,
    },
)


def share(vocab: int, hidden: int, layers: int, mlp: int, tables: int = 2, of_the_rest: bool = False) -> Number:
    """The vocabulary tables' share of all matrices, or of the layers alone."""
    config = PersimmonConfig.tiny(
        vocab_size=vocab, hidden_size=hidden, num_hidden_layers=layers, intermediate_size=mlp, num_attention_heads=1
    )
    counts = parameter_counts(config)
    biases = {"attention": 4 * layers * hidden, "mlp": layers * (mlp + hidden)}
    matrices = sum(counts[part] - biases[part] for part in biases)
    table = tables * counts["embed_tokens"]
    return torch.tensor(table / (matrices if of_the_rest else table + matrices))


def share_cases() -> Iterator[Case]:
    for config in CONFIGS:
        yield {
            "vocab": config.vocab_size,
            "hidden": config.hidden_size,
            "layers": config.num_hidden_layers,
            "mlp": config.intermediate_size,
        }


def share_with_one_attention_matrix_less(vocab: int, hidden: int, layers: int, mlp: int) -> Number:
    """Leaves out the projection after the heads: 3 hidden² instead of 4."""
    tables = 2 * vocab * hidden
    return torch.tensor(tables / (tables + layers * (3 * hidden**2 + 2 * hidden * mlp)))


table_share = Exercise(
    reference=share,
    cases=share_cases,
    axes=(),
    praise="nearly a quarter of the 8B, and for a small model most of it",
    mistakes={
        "this counts one table; Persimmon's two are not tied": lambda **case: share(**case, tables=1),
        "this divides by the layers alone; the share is of all parameters, the tables included": lambda **case: share(
            **case, of_the_rest=True
        ),
        "a layer has four hidden × hidden matrices: query, key and value, and the projection after the heads": (
            share_with_one_attention_matrix_less
        ),
    },
)
