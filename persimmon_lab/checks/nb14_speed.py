"""Marks for notebook 14, As fast as the memory."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, agree, distance, numbers, verdict
from persimmon_lab.checks.reads import watched
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.fitting.roofline import bytes_per_step

Weight = Float[Tensor, "output input"]
DTYPES = {2: torch.bfloat16, 4: torch.float32}
INT8_LARGEST = 127

# Easy: find_the_bytes


def byte_cases() -> Iterator[Case]:
    """Small models, in which even the norms are a share of the whole that cannot be missed."""
    for hidden, heads, layers, mlp, vocab, size, past, batch in (
        (8, 2, 1, 32, 24, 4, 0, 1),
        (16, 2, 3, 40, 50, 2, 7, 1),
        (24, 3, 2, 64, 30, 4, 11, 4),
    ):
        config = PersimmonConfig(
            hidden_size=hidden,
            num_attention_heads=heads,
            num_hidden_layers=layers,
            intermediate_size=mlp,
            vocab_size=vocab,
            max_position_embeddings=32,
        )
        yield {"config": config, "bytes_per_number": size, "past": past, "batch": batch}


def counted(config: PersimmonConfig, bytes_per_number: int, past: int, batch: int) -> Tensor:
    """The module's count, as the number that Exercise compares."""
    return torch.tensor(float(bytes_per_step(config, DTYPES[bytes_per_number], past, batch)))


def miscounted(numbers_too_many: Callable[[PersimmonConfig, int, int], int]) -> Callable[..., Tensor]:
    """The right count and a mistake: so many numbers more (or fewer, if negative), given config, past and batch."""

    def count(config: PersimmonConfig, bytes_per_number: int, past: int, batch: int) -> Tensor:
        return counted(config, bytes_per_number, past, batch) + bytes_per_number * numbers_too_many(config, past, batch)

    return count


def biases(config: PersimmonConfig) -> int:
    """Of the four Linears of every layer; lm_head has none."""
    return config.num_hidden_layers * (5 * config.hidden_size + config.intermediate_size)


def norms(config: PersimmonConfig) -> int:
    """Weight and bias of two LayerNorms a layer, of the last one, and of the two over a head's channels."""
    return config.num_hidden_layers * (4 * config.hidden_size + 4 * config.head_dim) + 2 * config.hidden_size


def cached(config: PersimmonConfig, past: int, batch: int) -> int:
    """Keys and values of every layer."""
    return 2 * config.num_hidden_layers * config.hidden_size * past * batch


find_the_bytes = Exercise(
    reference=counted,
    cases=byte_cases,
    axes=(),
    praise="every weight once for the whole batch, a row of the embedding for each token, and the filled cache",
    mistakes={
        "it counts the whole embedding table; a step looks up one row of it for each token of the batch": miscounted(
            lambda config, past, batch: (config.vocab_size - batch) * config.hidden_size
        ),
        "it forgets the row of the embedding table that each token of the batch looks up": miscounted(
            lambda config, past, batch: -batch * config.hidden_size
        ),
        "it forgets lm_head, which is read whole to score every word of the vocabulary": miscounted(
            lambda config, past, batch: -config.vocab_size * config.hidden_size
        ),
        "it forgets the biases of the four linear layers": miscounted(lambda config, past, batch: -biases(config)),
        "it forgets the weights and biases of the LayerNorms": miscounted(lambda config, past, batch: -norms(config)),
        "it forgets the biases and the LayerNorms": miscounted(
            lambda config, past, batch: -biases(config) - norms(config)
        ),
        "it forgets the cache: attention reads the keys and values of every position so far": miscounted(
            lambda config, past, batch: -cached(config, past, batch)
        ),
        "it counts keys or values of the cache, and a step reads both": miscounted(
            lambda config, past, batch: -cached(config, past, batch) // 2
        ),
        "every row of the batch has a cache of its own; only the weights are shared": miscounted(
            lambda config, past, batch: cached(config, past, 1) - cached(config, past, batch)
        ),
        "it counts the whole room of the cache; a step reads what is filled, `past` positions": miscounted(
            lambda config, past, batch: cached(config, config.max_position_embeddings - past, batch)
        ),
        "this is in bits; a byte is eight of them": lambda **case: 8 * counted(**case),
        "these are numbers, not bytes: multiply by bytes_per_number": (
            lambda **case: counted(**case) / case["bytes_per_number"]
        ),
        "it reads the weights again for every row of the batch; one reading serves them all": (
            lambda batch, **case: batch * counted(**case, batch=1)
        ),
    },
)

# Medium: round_rows


def weight_cases() -> Iterator[Case]:
    draw = numbers(14)
    for outputs, inputs in ((3, 5), (8, 8), (6, 17)):
        sizes = torch.logspace(-1, 1, outputs)[:, None]  # rows of different size are why each has its own scale
        yield {"weight": sizes * draw(outputs, inputs)}
    yield {"weight": torch.stack((torch.zeros(4), -draw(4).abs()))}  # a row that is zero; a row without a positive


def rounded(
    weight: Weight,
    axis: int | None = 1,
    steps: int = INT8_LARGEST,
    integer: Callable[[Tensor], Tensor] = torch.round,
    size: Callable[[Tensor], Tensor] = torch.abs,
) -> Weight:
    """Weights on a grid of int8: integers between -127 and 127 times what one of them is worth."""
    largest = size(weight).amax() if axis is None else size(weight).amax(dim=axis, keepdim=True)
    scale = torch.where(largest > 0, largest / steps, 1.0)
    return integer(weight / scale).clamp(-128, INT8_LARGEST) * scale


round_rows = Exercise(
    reference=rounded,
    cases=weight_cases,
    axes=("output", "input"),
    praise="one scale for each output row, which the product can be multiplied by afterwards",
    mistakes={
        "it has a scale for each input column; a row of the product must share one, so take the output rows": (
            lambda weight: rounded(weight, axis=0)
        ),
        "it has one scale for the whole matrix, and a single large row spoils the grid of all": (
            lambda weight: rounded(weight, axis=None)
        ),
        "it divides by 128, which int8 does not reach: the largest positive number is 127": (
            lambda weight: rounded(weight, steps=128)
        ),
        "it cuts decimals off, which errs by up to a whole step and always towards zero; round to the nearest": (
            lambda weight: rounded(weight, integer=torch.trunc)
        ),
        "it takes the largest weight, not the largest magnitude: negative weights can be larger": (
            lambda weight: rounded(weight, size=lambda values: values)
        ),
        "these are the integers; multiply them by their row's scale again": (
            lambda weight: rounded(weight) / torch.where(
                weight.any(dim=1, keepdim=True), weight.abs().amax(dim=1, keepdim=True) / INT8_LARGEST, 1.0
            )
        ),
        "it returns the weights as they were": lambda weight: weight,
    },
)  # fmt: skip

# Open: skip_silent


def skip_silent(answer: Callable[..., Tensor]) -> Verdict:
    """The down projection without the columns of silent neurons. Those are nan here, so reading them shows: 0 times nan
    is nan."""
    praise = "the same sum, and no column read that a zero would have multiplied"
    return verdict(_check_skip, answer, praise)


def _check_skip(answer: Callable[..., Tensor]) -> None:
    draw = numbers(15)
    for hidden, mlp in ((4, 12), (8, 32), (5, 7)):
        for active in (mlp // 3, mlp, 1, 0):
            neurons = torch.zeros(mlp)
            neurons[draw(mlp).argsort()[:active]] = draw(active).square() + 0.1
            weight, bias = draw(hidden, mlp), draw(hidden)
            right = weight @ neurons + bias
            weight[:, neurons == 0] = torch.nan
            case = {"neurons": neurons, "weight": weight, "bias": bias}
            where = f"{active} of {mlp} neurons active"
            result, was_read = watched(answer, case, "weight", neurons == 0, right.shape)
            if was_read or not result.isfinite().all():
                raise Wrong(f"it reads columns of silent neurons ({where}); pick the active columns before multiplying")
            if agree(result, right - bias) and not agree(result, right):
                raise Wrong("the bias is missing; it is added even when no neuron speaks")
            if not agree(result, right):
                raise Wrong(
                    f"it reads the right columns, the numbers differ ({where}); are neurons and columns paired? "
                    f"They are {distance(result, right)}"
                )
