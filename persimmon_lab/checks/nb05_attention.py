"""Marks for notebook 05, Bounded attention: its norm and its mask."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.attention import AdditiveMask, causal_mask
from persimmon_lab.checks.marking import Case, Exercise, Unanswered, Verdict, Wrong, agree, attempt, verdict
from persimmon_lab.checks.nb03_rotary import Vectors, rotate

EPSILON = 1e-5  # Persimmon's layer_norm_eps

# Medium: commuting_norm

UNNORMALISED = "it does not normalise: an input a hundred times as large gives another output"
MEAN = (
    "with weight 1 and bias 0 it does not commute: rotation moves the mean over the channels, so what is subtracted "
    "before it differs from what is subtracted after"
)
WEIGHTS = (
    "with weights it does not commute: rotation mixes channel i with channel i + rotary_dim/2, so the two must share "
    "one weight"
)
BIAS = (
    "with a bias it does not commute: added before rotation to a rotated channel it turns, added after it stands still"
)
UNWEIGHTED = "the weights play no part, or not their whole part: twice the weights must give twice the output"
PASSED_WEIGHT = "a passed channel may keep its own weight: nothing rotates it"
PASSED_BIAS = "a passed channel may keep its bias: nothing rotates it"
MIXED = "a vector alone comes out otherwise than among others: normalise each over its own channels"


def commuting_norm(answer: Callable[..., Vectors]) -> Verdict:
    """Any norm will do that commutes with rotation, bounds its output, and keeps what it can of weights and bias."""
    return verdict(
        _check_commuting, answer, "no mean, one weight a pair, no bias where it turns: now the order is free"
    )


def _check_commuting(answer: Callable[..., Vectors]) -> None:
    generator = torch.Generator().manual_seed(3)
    for channels, rotary_dim, theta in ((8, 4, 100.0), (32, 16, 25000.0), (12, 12, 500.0)):
        x = torch.randn(2, 3, 5, channels, generator=generator)
        weight, bias = torch.randn(2, channels, generator=generator)
        positions = torch.randint(1, 300, (5,), generator=generator)
        for complaint in _complaints(answer, x, weight, bias, positions, theta, rotary_dim):
            raise Wrong(f"{complaint} ({channels} channels, of which {rotary_dim} rotate)")


def _complaints(
    answer: Callable[..., Vectors],
    x: Vectors,
    weight: Float[Tensor, "channel"],
    bias: Float[Tensor, "channel"],
    positions: Int[Tensor, "position"],
    theta: float,
    rotary_dim: int,
) -> Iterator[str]:
    """What is wrong, the first cause first: a later property is only worth asking for when the earlier ones hold."""
    ones, zeros = torch.ones_like(weight), torch.zeros_like(bias)

    def normed(x: Vectors, weight: Tensor, bias: Tensor) -> Vectors:
        return attempt(answer, dict(x=x, weight=weight, bias=bias, rotary_dim=rotary_dim, eps=EPSILON), x.shape)

    def commutes(weight: Tensor, bias: Tensor) -> bool:
        rotated_first = normed(rotate(x, positions, theta, rotary_dim), weight, bias)
        return agree(rotated_first, rotate(normed(x, weight, bias), positions, theta, rotary_dim))

    plain, weighted = normed(x, ones, zeros), normed(x, weight, zeros)
    if not torch.allclose(normed(100 * x, ones, zeros), plain, rtol=0.01, atol=0.01):
        yield UNNORMALISED
    for complaint, *parameters in ((MEAN, ones, zeros), (WEIGHTS, weight, zeros), (BIAS, weight, bias)):
        if not commutes(*parameters):
            yield complaint
    if not agree(normed(x, 2 * weight, zeros), 2 * weighted):
        yield UNWEIGHTED
    passed = slice(rotary_dim, None)
    if not agree(weighted[..., passed], (plain * weight)[..., passed]):
        yield PASSED_WEIGHT
    if not agree(normed(x, weight, bias)[..., passed], (plain * weight + bias)[..., passed]):
        yield PASSED_BIAS
    if not agree(normed(x[1:, 1:, 1:], weight, bias), normed(x, weight, bias)[1:, 1:, 1:]):
        yield MIXED


# Medium: left_padded_mask


def padded_mask(
    lengths: Int[Tensor, "row"],
    width: int,
    dtype: torch.dtype,
    *,
    left: bool = True,
    causal: bool = True,
    padded: bool = True,
    itself: bool = True,
) -> AdditiveMask:
    """The mask of rows of `lengths` tokens in `width` places; the last four say which part to leave out."""
    places = rearrange(torch.arange(width), "place -> 1 place")
    lengths = rearrange(lengths, "row -> row 1")
    real = (places >= width - lengths if left else places < lengths) | (not padded)
    if causal and itself:
        return causal_mask(real, width, width, dtype, real.device)
    seen = rearrange(real, "row key -> row 1 1 key") & torch.ones(width, width, dtype=torch.bool)
    if causal:
        seen = seen & torch.ones(width, width, dtype=torch.bool).tril(-1)
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)


def mask_cases() -> Iterator[Case]:
    for lengths, width, dtype in (([4, 2, 1], 4, torch.float32), ([3, 6], 6, torch.float16), ([5], 7, torch.bfloat16)):
        yield {"lengths": torch.tensor(lengths), "width": width, "dtype": dtype}


MASK = Exercise(
    reference=padded_mask,
    cases=mask_cases,
    axes=("row", "head", "query", "key"),
    praise="the past and itself, less the padding; and a row that sees nothing stays finite",
    mistakes={
        "this pads on the right; with left padding the text stands at the end of the row": (
            lambda **case: padded_mask(**case, left=False)
        ),
        "the future is visible: a query may see keys up to its own place": (
            lambda **case: padded_mask(**case, causal=False)
        ),
        "the padding is visible: keys before the text must be hidden": lambda **case: padded_mask(**case, padded=False),
        "a query does not see itself: its own place is allowed": lambda **case: padded_mask(**case, itself=False),
        "query and key are exchanged: the last axis is the key": (
            lambda **case: rearrange(padded_mask(**case), "row head query key -> row head key query")
        ),
        "it is the other way round: 0 is added where a query may look": (
            lambda dtype, **case: torch.finfo(dtype).min - padded_mask(dtype=dtype, **case)
        ),
        "-1e9 is low in float32 and bfloat16, but it is not the lowest number; torch.finfo(dtype).min is": (
            lambda dtype, **case: padded_mask(dtype=dtype, **case).clamp(min=max(-1e9, torch.finfo(dtype).min))
        ),
    },
)


def left_padded_mask(answer: Callable[..., AdditiveMask]) -> Verdict:
    """`MASK`, with a word on -inf."""
    return verdict(_check_mask, answer, MASK.praise)


def _check_mask(answer: Callable[..., AdditiveMask]) -> None:
    for case in mask_cases():
        infinite = False
        with contextlib.suppress(Wrong, Unanswered):  # whatever is wrong besides, MASK tells
            infinite = bool(attempt(answer, case, padded_mask(**case).shape, finite=False).isinf().any())
        if infinite:
            raise Wrong(
                f"it holds -inf in {case['dtype']}; a query that sees nothing, as padding does, then has a softmax of "
                "0/0. Use torch.finfo(dtype).min"
            )
    MASK._check(answer)
