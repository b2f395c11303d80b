"""The losses of the two heads, always in float32 (float64 for a float64 model)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from persimmon_lab.field_checks import is_number, shown
from persimmon_lab.inputs import check_range

Losses = Float[Tensor, "batch position"]

IGNORED = -100  # torch's and transformers' label for "no loss here"


def at_least_float32(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The logits in float32, or as they are where they are wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def mean_cross_entropy(
    logits: Float[Tensor, "row label"], labels: Shaped[Tensor, "row"], count: Tensor | int | None = None
) -> Float[Tensor, ""]:
    """Mean -log p, in nats, over the rows whose label is not -100; 0 where there is none. With `count` their sum is
    divided by that instead: what these rows are of a mean over more."""
    labels = labels.to(logits.device).long()
    check_range(labels.masked_fill(labels == IGNORED, 0), logits.shape[-1], "label")
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    if count is None:
        return total / (labels != IGNORED).sum().clamp(min=1)
    return total / _divisor(count, total.device)


def _divisor(count: Tensor | int, device: torch.device) -> Tensor:
    """What a sum of losses is divided by; 1 where nothing counts and the sum is 0. ValueError for what is no count."""
    if not isinstance(count, Tensor) and not (is_number(count) and count >= 0):
        raise ValueError(f"num_items_in_batch is {shown(count)}; it is how many labels count, 0 or more")
    divisor = torch.as_tensor(count, device=device)
    return divisor + (divisor == 0)


def causal_lm_loss(
    logits: Float[Tensor, "batch position vocab"],
    labels: Int[Tensor, "batch position"],
    count: Tensor | int | None = None,
) -> Float[Tensor, ""]:
    """Mean cross entropy, in nats, of each next token: the logits at position p are marked against label p + 1.

    Labels of -100 do not count; when all of them are -100 the loss is 0 (the peers give NaN). `count` as in
    `mean_cross_entropy`.
    Raises IndexError for any other label outside the vocabulary, TypeError for labels that are no whole numbers and
    ValueError for another shape than that of the ids.
    """
    if not isinstance(labels, Tensor) or labels.dtype not in (torch.int64, torch.int32):
        kind = labels.dtype if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise TypeError(f"labels are {kind}; give the ids as a tensor of whole numbers, -100 where none counts")
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels have shape {tuple(labels.shape)}, the input {tuple(logits.shape[:2])}")
    # The labels move and not the logits, which are so much larger: a slice of them would be copied, forth and back.
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return mean_cross_entropy(
        rearrange(at_least_float32(logits), "batch position vocab -> (batch position) vocab"),
        rearrange(following, "batch position -> (batch position)"),
        count,
    )


class LinearCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of `hidden @ weight.T`, of which only a few rows exist at a time.

    The gradients are made on the way, while a piece's logits still lie in the processor's cache: with the vocabulary
    of Persimmon-8B all logits of 4,096 tokens and their gradient would be 8.6 GB. Not differentiable twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Float[Tensor, "row hidden"],
        weight: Float[Tensor, "vocab hidden"],
        labels: Int[Tensor, "row"],
        piece: int,
    ) -> Float[Tensor, ""]:
        counted = labels != IGNORED
        count = counted.sum().clamp(min=1)
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight, dtype=total.dtype)
        for start in range(0, len(hidden), piece):
            part = slice(start, start + piece)
            logits = at_least_float32(hidden[part] @ weight.T)
            label = rearrange(labels[part].clamp(min=0), "row -> row 1")
            normaliser = logits.logsumexp(dim=-1, keepdim=True)
            surprise = rearrange(normaliser - logits.gather(1, label), "row 1 -> row")
            total += surprise.where(counted[part], 0).sum()
            # d loss / d logits = (probability - 1 where it is the label) / count
            probability = logits.sub_(normaliser).exp_()
            probability.scatter_add_(1, label, torch.full_like(label, -1, dtype=probability.dtype))
            probability *= rearrange(counted[part] / count.to(total.dtype), "row -> row 1")
            logit_gradient = probability.to(hidden.dtype)
            torch.mm(logit_gradient, weight, out=hidden_gradient[part])
            weight_gradient += logit_gradient.T @ hidden[part]
        ctx.save_for_backward(hidden_gradient, weight_gradient.to(weight.dtype))
        return total / count

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, ""]) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight = ctx.saved_tensors
        return hidden * gradient.to(hidden.dtype), weight * gradient.to(weight.dtype), None, None


PIECE = 2**20  # logits that exist at a time: 4 MiB in float32


def linear_cross_entropy(
    hidden: Float[Tensor, "batch position hidden"],
    weight: Float[Tensor, "vocab hidden"],
    labels: Int[Tensor, "batch position"],
) -> Float[Tensor, ""]:
    """Mean -log p, in nats and float32, of `labels` under the logits `hidden @ weight.T`, which are never all made.

    Labels stand where they are predicted (no shift); -100 does not count, and where nothing counts the loss is 0.
    Raises IndexError for any other label outside the vocabulary. Equal to `mean_cross_entropy` up to rounding.
    """
    check_range(labels[labels != IGNORED], len(weight), "label")
    apply: Callable[..., Tensor] = LinearCrossEntropy.apply
    return apply(
        rearrange(hidden, "batch position hidden -> (batch position) hidden"),
        weight,
        rearrange(labels, "batch position -> (batch position)"),
        max(1, PIECE // len(weight)),
    )


def classification_loss(
    logits: Float[Tensor, "batch label"],
    labels: Shaped[Tensor, "batch *label"],
    problem_type: str | None,
    count: Tensor | int | None = None,
) -> Float[Tensor, ""]:
    """Mean squared error, cross entropy or binary cross entropy, by `problem_type`.

    Without a `problem_type`: one label is a regression, integer labels name one class each, float labels are one
    yes or no per class. Class labels of -100 do not count; when all of them are -100 the loss is 0 (the peers give
    NaN). With `count` the sum over labels is divided by that instead: what these rows are of a mean over more. Source:
    transformers 4.37.2, `PersimmonForSequenceClassification`.
    """
    labels, logits = labels.to(logits.device), at_least_float32(logits)
    if problem_type is None:
        by_dtype = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        problem_type = "regression" if logits.shape[-1] == 1 else by_dtype
    if problem_type == "single_label_classification":
        if labels.numel() != len(logits):
            raise ValueError(f"labels of shape {tuple(labels.shape)} for {len(logits)} rows; give each its class")
        return mean_cross_entropy(logits, labels.flatten(), count)
    if labels.numel() != logits.numel() or len(labels) != len(logits):
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not match logits of shape {tuple(logits.shape)}; "
            f"{problem_type} needs one number per logit"
        )
    labels = rearrange(labels, "batch ... -> batch (...)").to(logits.dtype)
    loss = F.mse_loss if problem_type == "regression" else F.binary_cross_entropy_with_logits
    if count is None:
        return loss(logits, labels)
    return loss(logits, labels, reduction="sum") / _divisor(count, logits.device)


def surprisal(logits: Float[Tensor, "batch position vocab"], ids: Int[Tensor, "batch position"]) -> Losses:
    """-log p, in nats, of the id at each position under the logits that stand there."""
    losses = F.cross_entropy(
        rearrange(at_least_float32(logits), "batch position vocab -> (batch position) vocab"),
        rearrange(ids, "batch position -> (batch position)"),
        reduction="none",
    )
    return rearrange(losses, "(batch position) -> batch position", batch=len(ids))


def next_token_loss(model: nn.Module, tokens: Int[Tensor, "batch position"]) -> Float[Tensor, "batch target"]:
    """-log p, in nats and float32, of each token after the first of its row: target t is token t + 1."""
    return surprisal(model(tokens[:, :-1], use_cache=False).logits.float(), tokens[:, 1:])
