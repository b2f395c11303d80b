"""The losses of the two heads, always in float32 (float64 for a float64 model)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor

IGNORED = -100  # torch's and transformers' label for "no loss here"


def check_range(ids: Int[Tensor, "*shape"], limit: int, what: str):
    """Raises IndexError that names the first id outside 0 … limit - 1, where it stands and the limit.

    Skipped while torch.compile traces, which cannot follow a decision on values.
    """
    if torch.compiler.is_compiling() or ids.numel() == 0:
        return
    lowest, highest = ids.aminmax()
    if lowest < 0 or highest >= limit:
        where = ((ids < 0) | (ids >= limit)).nonzero()[0].tolist()
        raise IndexError(f"{what} {ids[tuple(where)].item()} at index {where} is outside 0 … {limit - 1}")


def at_least_float32(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The logits in float32, or as they are where they are wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def mean_cross_entropy(logits: Float[Tensor, "row label"], labels: Shaped[Tensor, "row"]) -> Float[Tensor, ""]:
    """Mean -log p, in nats, over the rows whose label is not -100; 0 where there is none."""
    labels = labels.to(logits.device).long()
    check_range(labels[labels != IGNORED], logits.shape[-1], "label")
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    return total / (labels != IGNORED).sum().clamp(min=1)


def causal_lm_loss(
    logits: Float[Tensor, "batch position vocab"], labels: Int[Tensor, "batch position"]
) -> Float[Tensor, ""]:
    """Mean cross entropy, in nats, of each next token: the logits at position p are marked against label p + 1.

    Labels of -100 do not count; when all of them are -100 the loss is 0 (the peers give NaN).
    Raises IndexError for any other label outside the vocabulary.
    """
    # The labels move and not the logits, which are so much larger: a slice of them would be copied, forth and back.
    following = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    return mean_cross_entropy(
        rearrange(at_least_float32(logits), "batch position vocab -> (batch position) vocab"),
        rearrange(following, "batch position -> (batch position)"),
    )


def classification_loss(
    logits: Float[Tensor, "batch label"], labels: Shaped[Tensor, "batch *label"], problem_type: str | None
) -> Float[Tensor, ""]:
    """Mean squared error, cross entropy or binary cross entropy, by `problem_type`.

    Without a `problem_type`: one label is a regression, integer labels name one class each, float labels are one
    yes or no per class. Class labels of -100 do not count; when all of them are -100 the loss is 0 (the peers give
    NaN). Source: transformers 4.37.2, `PersimmonForSequenceClassification`.
    """
    labels, logits = labels.to(logits.device), at_least_float32(logits)
    if problem_type is None:
        by_dtype = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
        problem_type = "regression" if logits.shape[-1] == 1 else by_dtype
    if problem_type == "single_label_classification":
        return mean_cross_entropy(logits, rearrange(labels, "batch ... -> (batch ...)"))
    if labels.numel() != logits.numel():
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not match logits of shape {tuple(logits.shape)}; "
            f"{problem_type} needs one number per logit"
        )
    labels = rearrange(labels, "batch ... -> batch (...)").to(logits.dtype)
    if problem_type == "regression":
        return F.mse_loss(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels)
