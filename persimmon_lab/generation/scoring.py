"""How probable a given text is: log-probabilities of its tokens, and of a set of tokens that might have stood there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import DynamicCache
from persimmon_lab.generation.context import Context
from persimmon_lab.generation.engines.choosing import runner_for

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
    chunk_size: int | None = None,
    engine: str | None = None,
) -> TokenScores:
    """Score every token of `input_ids`, a prompt or what `generate` made of it: from column prompt length - 1 on it is
    the output's scores. As in Adept's API, `token_set` adds ids to compare at each position, such as "yes" and "no".

    Padding, on either side, is what `attention_mask` says. The model reads `chunk_size` positions at a time; by default
    as many as make 128 MiB of logits, so that the logits of a long text are never there together.

    Raises ValueError for fewer than one position or a `chunk_size` below 1.
    """
    batch, length = input_ids.shape
    chunk_size = max(1, LOGITS_AT_ONCE // (batch * model.config.vocab_size)) if chunk_size is None else chunk_size
    if length < 1 or chunk_size < 1:
        raise ValueError(f"{length} positions in chunks of {chunk_size}; there has to be at least 1 of both")
    input_ids = input_ids.to(model.device)
    mask = None if attention_mask is None else attention_mask.to(model.device, torch.int64)
    choices = None if token_set is None else torch.as_tensor(token_set, device=model.device)
    context = Context(
        runner_for(model, engine, rows=input_ids.numel()), input_ids, mask, DynamicCache(), chunk=chunk_size
    )

    following = F.pad(input_ids[:, 1:], (0, 1))
    tokens, sets, start = [], [], 0
    with torch.no_grad():
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
