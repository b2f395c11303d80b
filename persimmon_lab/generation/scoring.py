"""How probable a given text is: log-probabilities of its tokens, and of a set of tokens that might have stood there."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import DynamicCache
from persimmon_lab.field_checks import is_whole, shown
from persimmon_lab.generation.arguments import mask_of, rows_of, whole_ids
from persimmon_lab.generation.context import Context
from persimmon_lab.generation.engines.choosing import runner_for
from persimmon_lab.inputs import check_range
from persimmon_lab.modes import evaluating

LOGITS_AT_ONCE = 2**25  # 128 MiB in float32: 128 positions of a vocabulary of 262,144


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Natural log-probabilities in float32. Column i belongs to what follows position i."""

    tokens: Float[Tensor, "batch following"]
    """Of the token at i + 1, given all before it; one column fewer than there are tokens, and 0 at padding."""
    token_set: Float[Tensor, "batch position choice"] | None
    """Of each id of the given set, after position i; the last column is what might come next."""


def score_tokens(
    model: Any,
    input_ids: Int[Tensor, "batch position"],
    attention_mask: Int[Tensor, "batch position"] | None = None,
    token_set: Sequence[int] | Int[Tensor, "choice"] | None = None,
    *,
    window: int | None = None,
    stride: int | None = None,
    chunk_size: int | None = None,
    engine: str | None = None,
) -> TokenScores:
    """Score every token of `input_ids`, a prompt or what `generate` made of it: from column prompt length - 1 on it is
    the output's scores. As in Adept's API, `token_set` adds ids to compare at each position, such as "yes" and "no".

    A text longer than the model's context is read in windows of `window` positions, which begin `stride` (by default
    half a window) after one another; each token is scored in the first window that holds it and what precedes it, so
    from the second window on at least `window - stride` tokens precede it. Without `window` such a text is read whole,
    with a warning.

    Padding, on either side, is what `attention_mask` says. The model reads `chunk_size` positions at a time; by default
    as many as make 128 MiB of logits, so that the logits of a long text are never there together. It is read without
    dropout, whatever its mode.

    Raises ValueError for no rows or positions, a `chunk_size` below 1, a `window` below 2 or a `stride` that would
    leave tokens out; IndexError for an id of `token_set` that is none.
    """
    input_ids = rows_of(input_ids, model.device)
    batch, length = input_ids.shape
    mask = None if attention_mask is None else mask_of(attention_mask, model.device)
    if mask is not None and mask.shape != input_ids.shape:
        raise ValueError(f"attention_mask is {tuple(mask.shape)} but the ids are {tuple(input_ids.shape)}")
    choices = None if token_set is None else _choices(token_set, model)
    for name, value in (("window", window), ("stride", stride), ("chunk_size", chunk_size)):
        if value is not None and not is_whole(value):
            raise ValueError(f"{name} is {shown(value)}; give a whole number of positions")
    if window is not None:
        return _score_windows(model, input_ids, mask, choices, window, stride, chunk_size, engine)
    if stride is not None:
        raise ValueError(f"stride={stride} is how far windows lie apart; pass window= as well")
    if length > model.config.context_limit:
        warnings.warn(
            f"{length} positions are more than the {model.config.context_limit} that the model knows (context_limit): "
            f"pass window={model.config.context_limit} to read them in windows",
            stacklevel=2,
        )
    chunk_size = max(1, LOGITS_AT_ONCE // (batch * model.config.vocab_size)) if chunk_size is None else chunk_size
    if length < 1 or chunk_size < 1:
        raise ValueError(f"{length} positions in chunks of {chunk_size}; there has to be at least 1 of both")
    following = F.pad(input_ids[:, 1:], (0, 1))
    tokens, sets, start = [], [], 0
    with torch.no_grad(), evaluating(model):
        runner = runner_for(model, engine, rows=input_ids.numel())
        context = Context(runner, input_ids, mask, DynamicCache(), chunk=chunk_size)
        for chunk in context.read(logits_to_keep=0):
            logits = chunk.to(torch.float32)
            total = logits.logsumexp(dim=-1)
            targets = rearrange(following[:, start : start + logits.shape[1]], "batch position -> batch position 1")
            tokens.append(rearrange(logits.gather(-1, targets), "batch position 1 -> batch position") - total)
            if choices is not None:
                sets.append(logits[..., choices] - rearrange(total, "batch position -> batch position 1"))
            start += logits.shape[1]
    scores = torch.cat(tokens, dim=1)[:, :-1]
    if mask is not None:
        scores = scores.masked_fill(mask[:, :-1] * mask[:, 1:] == 0, 0.0)
    return TokenScores(scores, torch.cat(sets, dim=1) if sets else None)


def _choices(token_set: Sequence[int] | Int[Tensor, "choice"], model: Any) -> Int[Tensor, "choice"]:
    """The ids to compare, at least one. An id of -1 would count from the end, and a number alone would be spread."""
    try:
        choices = torch.as_tensor(token_set, device=model.device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"token_set is {shown(token_set)}; give ids, such as [17, 44]") from None
    if choices.ndim != 1 or not len(choices):
        raise ValueError(f"token_set is {shown(token_set)}; give one row of ids, such as [17, 44]")
    choices = whole_ids(choices)
    check_range(choices, model.config.vocab_size, "token id of token_set")
    return choices


def _score_windows(
    model: Any,
    input_ids: Int[Tensor, "batch position"],
    attention_mask: Int[Tensor, "batch position"] | None,
    token_set: Sequence[int] | Int[Tensor, "choice"] | None,
    window: int,
    stride: int | None,
    chunk_size: int | None,
    engine: str | None,
) -> TokenScores:
    stride = window // 2 if stride is None else stride
    if not (window >= 2 and 1 <= stride < window):
        raise ValueError(
            f"window={window}, stride={stride}: a window has at least 2 positions, and the next one begins at least 1 "
            "and fewer than a window later, or a token would have nothing before it"
        )
    length = input_ids.shape[1]
    tokens: list[Tensor] = []
    sets: list[Tensor] = []
    scored = 0  # columns of `tokens` so far; of `sets` one more, once there are some
    for start in range(0, max(length - window, 0) + stride, stride):
        part = slice(start, start + window)
        scores = score_tokens(
            model,
            input_ids[:, part],
            None if attention_mask is None else attention_mask[:, part],
            token_set,
            chunk_size=chunk_size,
            engine=engine,
        )
        tokens.append(scores.tokens[:, scored - start :] if start else scores.tokens)
        if scores.token_set is not None:
            sets.append(scores.token_set[:, scored + 1 - start :] if start else scores.token_set)
        scored = start + scores.tokens.shape[1]
    return TokenScores(torch.cat(tokens, dim=1), torch.cat(sets, dim=1) if sets else None)
