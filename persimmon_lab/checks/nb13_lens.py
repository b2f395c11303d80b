"""Marks for notebook 13, When does it know?"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, numbers

Norm = tuple[Tensor, Tensor]  # weight and bias

# Easy: read_stream


def stream_cases() -> Iterator[Case]:
    draw = numbers(0)
    for positions, hidden, vocabulary, eps in ((1, 8, 5, 0.01), (4, 16, 20, 0.3), (3, 64, 7, 0.05)):
        yield {
            "stream": 2 * draw(positions, hidden) + 0.5,
            "weight": 1 + draw(hidden) / 2,
            "bias": draw(hidden) / 2,
            "eps": eps,
            "rows": draw(vocabulary, hidden),
        }


def normed(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def normed_by(norm: Norm, x: Tensor, eps: float) -> Tensor:
    weight, bias = norm
    return normed(x, weight, bias, eps)


def read(stream: Tensor, weight: Tensor, bias: Tensor, eps: float, rows: Tensor) -> Tensor:
    return normed(stream, weight, bias, eps) @ rows.T


def read_by_root_mean_square(stream: Tensor, weight: Tensor, bias: Tensor, eps: float, rows: Tensor) -> Tensor:
    return (stream / (stream.square().mean(dim=-1, keepdim=True) + eps).sqrt() * weight + bias) @ rows.T


def read_with_eps_outside(stream: Tensor, weight: Tensor, bias: Tensor, eps: float, rows: Tensor) -> Tensor:
    centred = stream - stream.mean(dim=-1, keepdim=True)
    return (centred / (stream.std(dim=-1, keepdim=True, correction=0) + eps) * weight + bias) @ rows.T


def read_with_sample_variance(stream: Tensor, weight: Tensor, bias: Tensor, eps: float, rows: Tensor) -> Tensor:
    centred = stream - stream.mean(dim=-1, keepdim=True)
    return (centred / (stream.var(dim=-1, keepdim=True) + eps).sqrt() * weight + bias) @ rows.T


read_stream = Exercise(
    reference=read,
    cases=stream_cases,
    axes=("position", "vocab"),
    praise="that is how the model reads its last stream, and how the lens reads every one",
    mistakes={
        "the stream goes into lm_head without the final norm": lambda stream, weight, bias, eps, rows: stream @ rows.T,
        "the norm's weight and bias are missing": (
            lambda stream, weight, bias, eps, rows: normed(stream, None, None, eps) @ rows.T
        ),
        "the norm's bias is missing": lambda stream, weight, bias, eps, rows: (
            normed(stream, weight, None, eps) @ rows.T
        ),
        "the mean is not subtracted: this is a root-mean-square norm": read_by_root_mean_square,
        "the variance divides by one less than the channels; LayerNorm's divides by all": read_with_sample_variance,
        "eps stands outside the root; it belongs to the variance, under the root": read_with_eps_outside,
        "eps is not used": lambda stream, weight, bias, eps, rows: normed(stream, weight, bias, 0.0) @ rows.T,
    },
)


# Medium: head_share


def share_cases() -> Iterator[Case]:
    draw = numbers(1)
    for hidden, channels, eps in ((8, 4, 0.01), (32, 8, 0.3), (64, 16, 0.05)):
        yield {
            "mix": draw(channels) + 1,
            "columns": draw(hidden, channels) + 0.3,
            "row": draw(hidden),
            "stream": 3 * draw(hidden) + 1,
            "weight": draw(hidden) + 0.5,
            "eps": eps,
        }


def share(mix: Tensor, columns: Tensor, row: Tensor, stream: Tensor, weight: Tensor, eps: float) -> Tensor:
    return share_by((stream.var(correction=0) + eps).sqrt(), mix, columns, row, weight)


def share_by(scale: Tensor, mix: Tensor, columns: Tensor, row: Tensor, weight: Tensor) -> Tensor:
    """The share, by any scale that the norm might divide by."""
    added = columns @ mix
    return row @ (weight * (added - added.mean()) / scale)


def share_less_the_streams_mean(
    mix: Tensor, columns: Tensor, row: Tensor, stream: Tensor, weight: Tensor, eps: float
) -> Tensor:
    return row @ (weight * (columns @ mix - stream.mean()) / (stream.var(correction=0) + eps).sqrt())


head_share = Exercise(
    reference=share,
    cases=share_cases,
    axes=("share",),
    praise="the scale is the whole stream's, the mean its own: that is why all shares add up to the logit",
    mistakes={
        "the head gets a norm of its own; the scale must be that of the whole stream": (
            lambda mix, columns, row, stream, weight, eps: row @ normed(columns @ mix, weight, None, eps)
        ),
        "the norm is left out": lambda mix, columns, row, stream, weight, eps: row @ (columns @ mix),
        "the norm's weight is missing": (
            lambda mix, columns, row, stream, weight, eps: share(
                mix, columns, row, stream, torch.ones_like(weight), eps
            )
        ),
        "the part's mean is not subtracted": (
            lambda mix, columns, row, stream, weight, eps: (
                row @ (weight * (columns @ mix) / (stream.var(correction=0) + eps).sqrt())
            )
        ),
        "it subtracts the mean of the stream; each part loses its own": share_less_the_streams_mean,
        "the variance divides by one less than the channels; LayerNorm's divides by all": (
            lambda mix, columns, row, stream, weight, eps: share_by(
                (stream.var(correction=1) + eps).sqrt(), mix, columns, row, weight
            )
        ),
        "eps stands outside the root; it belongs to the variance, under the root": (
            lambda mix, columns, row, stream, weight, eps: share_by(
                stream.std(correction=0) + eps, mix, columns, row, weight
            )
        ),
        "eps is not used": lambda eps, **case: share(**case, eps=0.0),
    },
)


# Open: score_keys


def key_cases() -> Iterator[Case]:
    draw = numbers(2)
    for keys, channels, eps in ((3, 4, 0.01), (6, 16, 0.3), (10, 32, 0.05)):
        yield {
            "query": 2 * draw(channels) + 0.5,
            "keys": draw(keys, channels) * (0.5 + draw(keys, 1).abs() * 3) + 0.3,
            "query_norm": (1 + draw(channels) / 3, draw(channels) / 3),
            "key_norm": (1 + draw(channels) / 3, draw(channels) / 3),
            "eps": eps,
        }


def scores(query: Tensor, keys: Tensor) -> Tensor:
    return einsum(query, keys, "channel, key channel -> key") / math.sqrt(len(query))


score_keys = Exercise(
    reference=lambda query, keys, query_norm, key_norm, eps: scores(
        normed_by(query_norm, query, eps), normed_by(key_norm, keys, eps)
    ),
    cases=key_cases,
    axes=("key",),
    praise="a key's length is gone, its direction is left: no product of the two matrices alone can say that",
    mistakes={
        "this is the product of the two projections; the norms between them are missing": (
            lambda query, keys, query_norm, key_norm, eps: scores(query, keys)
        ),
        "only the query is normalised": (
            lambda query, keys, query_norm, key_norm, eps: scores(normed_by(query_norm, query, eps), keys)
        ),
        "only the keys are normalised": (
            lambda query, keys, query_norm, key_norm, eps: scores(query, normed_by(key_norm, keys, eps))
        ),
        "the norms' weights and biases are missing": (
            lambda query, keys, query_norm, key_norm, eps: scores(
                normed(query, None, None, eps), normed(keys, None, None, eps)
            )
        ),
        "query and key have swapped their norms": (
            lambda query, keys, query_norm, key_norm, eps: scores(
                normed_by(key_norm, query, eps), normed_by(query_norm, keys, eps)
            )
        ),
        "it does not divide by the square root of the channels": (
            lambda query, keys, query_norm, key_norm, eps: (
                scores(normed_by(query_norm, query, eps), normed_by(key_norm, keys, eps)) * math.sqrt(len(query))
            )
        ),
    },
)
