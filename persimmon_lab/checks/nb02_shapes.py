"""Marks for notebook 02, Shapes you can read."""

import math
from collections.abc import Callable, Iterator

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, call, numbers, verdict
from persimmon_lab.mini import load_mini

HEAD_FIRST, THREE_FIRST = "(head three channel)", "(three head channel)"

# Easy: merge_heads


def head_cases() -> Iterator[Case]:
    draw = numbers(0)
    # One case has as many heads as positions and one as many as channels, where a wrong order keeps its shape.
    for shape in ((1, 2, 5, 3), (2, 4, 4, 6), (2, 3, 7, 3)):
        yield {"heads": draw(*shape)}


def merged(pattern: str) -> Callable[..., Tensor]:
    return lambda heads: rearrange(heads, f"batch head position channel -> {pattern}")


def merge_without_moving(heads: Float[Tensor, "batch head position channel"]) -> Float[Tensor, "batch position merged"]:
    """What a reshape alone gives: numbers stay in the order in which they lie."""
    flat = rearrange(heads, "batch head position channel -> batch (head position channel)")
    return rearrange(flat, "batch (position merged) -> batch position merged", position=heads.shape[2])


merge_heads = Exercise(
    reference=merged("batch position (head channel)"),
    cases=head_cases,
    axes=("batch", "position", "(head channel)"),
    praise="each position has its heads side by side again, and dense may mix them",
    mistakes={
        "the channels of all heads are shuffled together: this is (channel head); a head's channels stay together, so "
        "head comes first": merged("batch position (channel head)"),
        "a reshape without moving the position before the head: each row mixes several positions": merge_without_moving,
        "the heads stand in reverse; head 0 comes first": lambda heads: merged("batch position (head channel)")(
            heads.flip(1)
        ),
    },
)


# Medium: layer_norm


def norm_cases() -> Iterator[Case]:
    draw = numbers(1)
    # The rows have a mean of their own, and in one case a spread that eps is not small against.
    for shape, spread, eps in (((1, 5, 8), 1.0, 1e-2), ((2, 3, 16), 20.0, 1e-5), ((2, 4, 4), 1e-3, 1e-5)):
        *leading, hidden = shape
        around = 3 * draw(*leading, 1)
        yield {
            "x": spread * (draw(*shape) + around),
            "weight": draw(hidden),
            "bias": draw(hidden),
            "eps": eps,
        }  # fmt: skip


def normalised(
    axis: int | tuple[int, ...] = -1,
    centre: bool = True,
    unbiased: bool = False,
    outside: bool = False,
    scaled: bool = True,
    shifted: bool = True,
    root: bool = True,
    with_eps: bool = True,
    bias_first: bool = False,
) -> Callable[..., Tensor]:
    """LayerNorm, or one of its near relations."""

    def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        mean = x.mean(dim=axis, keepdim=True) if centre else torch.zeros(())
        variance = (x - mean).square().mean(dim=axis, keepdim=True)
        if unbiased:
            variance = variance * x.shape[-1] / (x.shape[-1] - 1)
        small = eps if with_eps else 0.0
        spread = variance.sqrt() + small if outside else (variance + small).sqrt() if root else variance + small
        if bias_first:
            return ((x - mean) / spread + bias) * weight
        return (x - mean) / spread * (weight if scaled else 1) + (bias if shifted else 0)

    return norm


layer_norm = Exercise(
    reference=normalised(),
    cases=norm_cases,
    axes=("batch", "position", "hidden"),
    praise="each position is centred and scaled by itself, whatever its neighbours are",
    mistakes={
        "the mean is not subtracted: this is RMSNorm, which Persimmon does not use": normalised(centre=False),
        "the variance is divided by hidden - 1, as torch.var does unless told otherwise; LayerNorm divides by hidden": (
            normalised(unbiased=True)
        ),
        "eps stands outside the root; it belongs to the variance, under the root": normalised(outside=True),
        "it divides by the variance; divide by its root": normalised(root=False),
        "it normalises over the positions; each position is normalised by itself, over hidden": normalised(axis=-2),
        "the bias is missing": normalised(shifted=False),
        "the weight is missing": normalised(scaled=False),
        "weight and bias are missing": normalised(scaled=False, shifted=False),
        "eps is forgotten: it is added to the variance, under the root": normalised(with_eps=False),
        "the bias is added before the weight multiplies; the weight comes first": normalised(bias_first=True),
        "mean and variance are taken over everything; each position has its own, over hidden": normalised(
            axis=(0, 1, 2)
        ),
    },
)


# Medium: scores


def score_cases() -> Iterator[Case]:
    draw = numbers(2)
    for batch, head, position, channel in ((1, 2, 5, 4), (2, 3, 3, 8), (2, 2, 6, 6)):
        query, key = draw(2, batch, head, position, channel)
        yield {"query": query, "key": key}


def scored(
    pattern: str = "query key",
    divide: Callable[[Tensor], float] = lambda query: math.sqrt(query.shape[-1]),
    finish: Callable[[Tensor], Tensor] = lambda scores: scores,
) -> Callable[..., Tensor]:
    """query . key over something, with the last two axes in one order or the other, and what is done with it then."""

    def scores(query: Tensor, key: Tensor) -> Tensor:
        products = "batch head query channel, batch head key channel -> batch head"
        return finish(einsum(query, key, f"{products} {pattern}") / divide(query))

    return scores


def masked(scores: Tensor) -> Tensor:
    return scores.masked_fill(torch.ones(scores.shape[-2:]).triu(diagonal=1).bool(), -torch.inf)


scores = Exercise(
    reference=scored(),
    cases=score_cases,
    axes=("batch", "head", "query", "key"),
    praise="the name that both share and the result lacks is summed over: that is all einsum does",
    mistakes={
        "the scores are not divided by the root of the channels": scored(divide=lambda query: 1.0),
        "it divides by the channels; divide by their root": scored(divide=lambda query: query.shape[-1]),
        "rows and columns are exchanged: a row belongs to a query, a column to a key": scored("key query"),
        "it divides by the root of all heads' channels together; each head has its own": scored(
            divide=lambda query: math.sqrt(query.shape[1] * query.shape[-1])
        ),
        "this is the softmax of the scores; asked for are the scores themselves": scored(
            finish=lambda scores: scores.softmax(dim=-1)
        ),
        "the future is masked; here every query meets every key": scored(finish=masked),
        "the future is masked and the softmax taken; asked for are the scores of every query with every key": scored(
            finish=lambda scores: masked(scores).softmax(dim=-1)
        ),
        "it divides by the root of the positions; divide by that of the channels": scored(
            divide=lambda query: math.sqrt(query.shape[2])
        ),
    },
)


# Medium: reorder_rows


def row_cases() -> Iterator[Case]:
    draw = numbers(3)
    for head, channel, hidden in ((2, 3, 6), (3, 4, 12), (4, 2, 24), (5, 2, 10)):
        yield {"weight": draw(3 * head * channel, hidden), "head": head}


def rows(before: str, after: str) -> Callable[..., Tensor]:
    return lambda weight, head: rearrange(weight, f"{before} hidden -> {after} hidden", three=3, head=head)


def reorder_columns(weight: Float[Tensor, "fused hidden"], head: int) -> Float[Tensor, "fused hidden"]:
    """Moves what is read instead of what is written."""
    return rearrange(weight, "fused (channel head) -> fused (head channel)", head=head)


reorder_rows = Exercise(
    reference=rows(THREE_FIRST, HEAD_FIRST),
    cases=row_cases,
    axes=("(head three channel)", "hidden"),
    praise="the rows changed their places and nothing else did; the same pattern, without hidden, does the bias",
    mistakes={
        "this is the way back, from (head three channel) to (three head channel)": rows(HEAD_FIRST, THREE_FIRST),
        "the rows are where they were": lambda weight, head: weight,
        "the channels of a head came apart: this is (head channel three)": rows(THREE_FIRST, "(head channel three)"),
        "it reads the rows as (three channel head); a head's channels lie together, so channel comes last": rows(
            "(three channel head)", HEAD_FIRST
        ),
        "the columns moved; an output of a Linear is a row of its weight": reorder_columns,
    },
)


# Open: which_layout


def which_layout(answer: Callable[..., str]) -> Verdict:
    """Any rule will do that tells, from the trained weights of some layers alone, which layout they are in."""
    praise = "query, key and value differ enough for their rows to give it away; how sure would you be of one layer?"
    return verdict(_check_layout, answer, praise)


def _check_layout(answer: Callable[..., str]) -> None:
    model, _ = load_mini()
    head = model.config.num_attention_heads
    fused = [weight for name, weight in model.state_dict().items() if name.endswith("query_key_value.weight")]
    weights = torch.stack(fused)
    for name, layers in (("all layers", slice(None)), ("the first half", slice(4)), ("the second half", slice(4, None)),
                         ("the even layers", slice(0, None, 2)), ("the odd layers", slice(1, None, 2))):  # fmt: skip
        for layout in (HEAD_FIRST, THREE_FIRST):
            here = rearrange(weights[layers], f"layer {HEAD_FIRST} hidden -> layer {layout} hidden", three=3, head=head)
            guess = call(answer, here, head)
            if not isinstance(guess, str) or guess not in (HEAD_FIRST, THREE_FIRST):
                raise Wrong(f"it returned {guess!r:.80}; return {HEAD_FIRST!r} or {THREE_FIRST!r}")
            if guess != layout:
                raise Wrong(f"of {name} of persimmon-mini in the layout {layout} it says {guess}")
