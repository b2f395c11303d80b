"""Scoring by log-likelihood: which of the given continuations the model holds to be the most probable.

With k choices c_1 ... c_k of a prompt x, the model picks the largest of

    plain      log p(c_i | x)
    per byte   log p(c_i | x) / bytes of c_i
    per token  log p(c_i | x) / tokens of c_i

Plain prefers short choices, since each further token costs; the other two prefer long ones whose end can be guessed.
Where choices differ in length the three disagree, and no one of them is the truth: all are reported.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from persimmon_lab.evaluation.items import Item
from persimmon_lab.generation.scoring import score_tokens
from persimmon_lab.tokenizer import PersimmonTokenizer

PLAIN = "plain"
NORMALISATIONS = (PLAIN, "per byte", "per token")


@dataclass(frozen=True)
class Likelihood:
    """The natural log-probability of a continuation in float32, and its length."""

    log_probability: float
    tokens: int
    bytes: int

    def normalised(self, by: str) -> float:
        """One of NORMALISATIONS."""
        lengths: Mapping[str, int] = {PLAIN: 1, "per byte": self.bytes, "per token": self.tokens}
        return self.log_probability / lengths[by]


def likelihoods(
    model: Any, tokenizer: PersimmonTokenizer, pairs: Sequence[tuple[str, str]], batch_size: int = 16
) -> list[Likelihood]:
    """How probable each continuation is after its prompt: pairs of (prompt, continuation), texts.

    Prompt and continuation are tokenised as one text, as generation would see it. Scored are the tokens from the first
    on that the prompt alone has not: where a piece spans the border, it belongs to the continuation, since nothing else
    makes its probability whole. A prompt without tokens begins with bos.

    ValueError for an empty continuation, and for texts longer than the model's context.
    """
    rows = [row_of(tokenizer, prompt, continuation) for prompt, continuation in pairs]
    limit = model.config.context_limit
    if longest := max((len(ids) for ids, _ in rows if len(ids) > limit), default=0):
        raise ValueError(f"a prompt and its choice make {longest} tokens, and the model has {limit} positions")
    found: dict[int, Likelihood] = {}
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))  # rows of like length share a batch
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        texts = {"input_ids": [rows[index][0] for index in chosen]}
        batch = tokenizer.pad(texts, padding_side="left", return_tensors="pt")
        scores = score_tokens(model, batch.input_ids, batch.attention_mask).tokens.cpu()
        for index, row in zip(chosen, scores):
            ids, shared = rows[index]
            count = len(ids) - shared
            # Padding stands on the left: the last column is the last token's.
            value = float(row[-count:].sum())
            found[index] = Likelihood(value, count, len(pairs[index][1].encode()))
    return [found[index] for index in range(len(rows))]


def row_of(tokenizer: PersimmonTokenizer, prompt: str, continuation: str) -> tuple[list[int], int]:
    """The ids of both as one text, and how many of them the prompt alone begins with."""
    if not continuation:
        raise ValueError(f"an empty continuation of {prompt[-40:]!r}; a choice needs text")
    before, ids = tokenizer.encode(prompt), tokenizer.encode(prompt + continuation)
    shared = len(commonprefix([list(before), list(ids)]))
    if shared == 0:  # nothing to predict the first token from
        bos = tokenizer.bos_token_id
        if bos is None:
            raise ValueError(
                f"no token of the prompt {prompt[-40:]!r} is left before {continuation[:40]!r}, and the tokenizer has "
                "no bos to begin a text with; give a longer prompt"
            )
        ids, shared = [bos, *ids], 1
    if shared == len(ids):
        raise ValueError(f"{continuation!r} after {prompt[-40:]!r} adds no token; a choice needs text of its own")
    return list(ids), shared


def choice_likelihoods(
    model: Any, tokenizer: PersimmonTokenizer, items: Sequence[Item], batch_size: int = 16
) -> list[tuple[Likelihood, ...]]:
    """Those of every choice of every item; () for an item without choices."""
    pairs = [(item.text, choice) for item in items for choice in item.choices]
    flat = iter(likelihoods(model, tokenizer, pairs, batch_size))
    return [tuple(next(flat) for _ in item.choices) for item in items]


def pick(choices: Sequence[Likelihood], by: str) -> int | None:
    """The most probable choice; None where two share the first place, so that who knows nothing gets nothing by it, and
    where a probability is not a number."""
    values = [choice.normalised(by) for choice in choices]
    if not values or any(math.isnan(value) for value in values):
        return None
    best = max(values)
    return values.index(best) if values.count(best) == 1 else None
