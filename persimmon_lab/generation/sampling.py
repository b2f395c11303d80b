"""From logits to the next token: pure functions on the last position's logits.

Every filter takes and returns logits and marks what it removes with -inf, so that filters compose, and the softmax
after them renormalises by itself. Each equals its namesake in `transformers.generation.logits_process`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persimmon_lab.generation_config import GenerationConfig

REMOVED = float("-inf")
LogitsProcessor = Callable[[Int[Tensor, "batch position"], Float[Tensor, "batch vocab"]], Float[Tensor, "batch vocab"]]


def apply_repetition_penalty(
    logits: Float[Tensor, "batch vocab"],
    penalty: float,
    token_ids: Int[Tensor, "batch position"],
    visible: Bool[Tensor, "batch position"] | None = None,
) -> Float[Tensor, "batch vocab"]:
    """Make tokens that occur in `token_ids` less likely (penalty > 1) or likelier (penalty < 1).

    A positive logit is divided by the penalty and a negative one multiplied, so that both move the same way (Keskar et
    al. 2019, arXiv:1909.05858). A token is penalised once however often it occurs. `visible` is false at padding, whose
    id says nothing about the text.
    """
    _require(penalty > 0, "repetition_penalty", penalty, "a number above 0 (1 changes nothing, 1.2 is the paper's)")
    # Hidden positions are pointed at one extra column, which is dropped again.
    if visible is not None:
        token_ids = token_ids.masked_fill(~visible, logits.shape[-1])
    extra_column = logits.new_zeros(logits.shape[0], logits.shape[1] + 1, dtype=torch.bool)
    occurs = extra_column.scatter(1, token_ids, True)[:, :-1]
    return torch.where(occurs, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def forbid_repeated_ngrams(
    logits: Float[Tensor, "batch vocab"], size: int, token_ids: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch vocab"]:
    """Remove every token that would complete a run of `size` tokens which `token_ids` already contains.

    With size 1 no token comes twice. The prompt counts, and so does padding, as in transformers.
    """
    _require(size > 0, "no_repeat_ngram_size", size, "a number of tokens, at least 1")
    length = token_ids.shape[1]
    if length < size:
        return logits
    windows = token_ids.unfold(1, size, 1)  # every run of `size` tokens: (batch, run, token of run)
    begun = rearrange(token_ids[:, length - size + 1 :], "batch token -> batch 1 token")
    repeats = (windows[..., :-1] == begun).all(dim=-1)
    # Runs that begin otherwise are pointed at one extra column, which is dropped again.
    last = windows[..., -1].masked_fill(~repeats, logits.shape[1])
    extra_column = logits.new_zeros(logits.shape[0], logits.shape[1] + 1, dtype=torch.bool)
    return logits.masked_fill(extra_column.scatter(1, last, True)[:, :-1], REMOVED)


def apply_temperature(logits: Float[Tensor, "*batch vocab"], temperature: float) -> Float[Tensor, "*batch vocab"]:
    """logits / temperature: below 1 sharpens the distribution, above 1 flattens it."""
    _require(temperature > 0, "temperature", temperature, "a number above 0; for greedy decoding leave do_sample=False")
    return logits / temperature


def keep_top_k(logits: Float[Tensor, "*batch vocab"], top_k: int, at_least: int = 1) -> Float[Tensor, "*batch vocab"]:
    """Keep the `top_k` largest logits; ties with the smallest of them stay too."""
    _require(isinstance(top_k, int) and top_k > 0, "top_k", top_k, "a whole number above 0")
    smallest_kept = torch.topk(logits, min(max(top_k, at_least), logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < smallest_kept, REMOVED)


def keep_top_p(logits: Float[Tensor, "*batch vocab"], top_p: float, at_least: int = 1) -> Float[Tensor, "*batch vocab"]:
    """Keep the smallest set of most probable tokens whose probabilities reach `top_p` (arXiv:1904.09751).

    The token that crosses `top_p` stays: without it the kept mass would fall short, and a first token above `top_p`
    would leave nothing. Adept's sampler does the same by shifting its mask by one.
    """
    _require(0 <= top_p <= 1, "top_p", top_p, "a probability from 0 to 1")
    ascending, order = torch.sort(logits, descending=False)
    # Seen from the tail: a token goes when it and everything less probable together fit in the 1 - top_p we may lose.
    tail_mass = ascending.softmax(dim=-1).cumsum(dim=-1)
    removed = tail_mass <= 1 - top_p
    removed[..., -at_least:] = False
    return logits.masked_fill(removed.scatter(-1, order, removed), REMOVED)


def keep_min_p(logits: Float[Tensor, "*batch vocab"], min_p: float, at_least: int = 1) -> Float[Tensor, "*batch vocab"]:
    """Keep tokens at least `min_p` times as probable as the most probable one (arXiv:2407.01082)."""
    _require(0 <= min_p <= 1, "min_p", min_p, "a ratio from 0 to 1")
    probabilities = logits.softmax(dim=-1)
    threshold = min_p * probabilities.amax(dim=-1, keepdim=True)
    if at_least > 1:
        threshold = torch.minimum(threshold, probabilities.topk(at_least).values[..., -1:])
    return logits.masked_fill(probabilities < threshold, REMOVED)


def shape_distribution(
    logits: Float[Tensor, "*batch vocab"],
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    at_least: int = 1,
) -> Float[Tensor, "*batch vocab"]:
    """Temperature, then top-k, top-p and min-p, in transformers' order; None (or top_k=0) leaves a filter out, and each
    leaves the `at_least` most probable tokens.

    Adept's sampler takes top-k or top-p, never both: give one of them.
    """
    if temperature != 1.0:
        logits = apply_temperature(logits, temperature)
    if top_k:
        logits = keep_top_k(logits, top_k, at_least)
    if top_p is not None and top_p != 1.0:
        logits = keep_top_p(logits, top_p, at_least)
    if min_p is not None:
        logits = keep_min_p(logits, min_p, at_least)
    return logits


def shape_scores(
    logits: Float[Tensor, "batch vocab"],
    token_ids: Int[Tensor, "batch position"],
    config: GenerationConfig,
    visible: Bool[Tensor, "batch position"] | None = None,
    processors: Sequence[LogitsProcessor] | None = None,
    at_least: int = 1,
    may_end: bool = True,
) -> Float[Tensor, "batch vocab"]:
    """What a token is chosen from, in transformers' order: repetition penalty, no repeated n-grams, no end where the
    text may not end yet, the caller's own `processors` one after the other and, to draw, `shape_distribution`.

    Raises ValueError where n-grams or a processor leave a row no token, or a processor returns another shape, and
    FloatingPointError for nan and infinity from a processor.
    """
    given = logits
    if config.repetition_penalty != 1.0:
        logits = apply_repetition_penalty(logits, config.repetition_penalty, token_ids, visible)
    if config.no_repeat_ngram_size:
        logits = forbid_repeated_ngrams(logits, config.no_repeat_ngram_size, token_ids)
        _require_choice(logits, f"no_repeat_ngram_size={config.no_repeat_ngram_size}")
    if not may_end and config.eos_token_ids():
        ends = torch.tensor(config.eos_token_ids(), device=logits.device)
        logits = logits.index_fill(-1, ends, REMOVED)
    if processors and logits is given:
        logits = logits.clone()  # a processor may write in place, and what the model gave stays what it was
    for processor in processors or ():
        name = f"the logits_processor {getattr(processor, '__name__', type(processor).__name__)}"
        processed = processor(token_ids, logits)
        if not isinstance(processed, Tensor) or processed.shape != logits.shape:
            shape = tuple(processed.shape) if isinstance(processed, Tensor) else type(processed).__name__
            raise ValueError(f"{name} returned {shape}; it has to return scores of shape {tuple(logits.shape)}")
        _require_choice(processed, name)
        logits = processed
    if not config.do_sample:
        return logits
    return shape_distribution(logits, config.temperature, config.top_k, config.top_p, config.min_p, at_least)


def sample(logits: Float[Tensor, "batch vocab"], generator: torch.Generator | None = None) -> Int[Tensor, "batch"]:
    """Draw one token id per row from softmax(logits); without a generator, torch's default one is used."""
    drawn = torch.multinomial(logits.softmax(dim=-1), num_samples=1, generator=generator)
    return rearrange(drawn, "batch 1 -> batch")


@dataclass(frozen=True)
class TokenChoice:
    """How one chosen token stood in the distribution it came from.

    `rank` is 1 for the most probable token; `entropy_bits` is -sum p log2 p over the vocabulary: 0 when the model is
    sure, log2(vocab) when it has no idea; `alternatives` holds (token id, probability), the most probable first.
    """

    token_id: int
    probability: float
    rank: int
    entropy_bits: float
    alternatives: tuple[tuple[int, float], ...]


def describe_choice(logits: Float[Tensor, "vocab"], token_id: int, alternatives: int = 10) -> TokenChoice:
    """The statistics of choosing `token_id` from softmax(logits), in float32."""
    probabilities = logits.to(torch.float32).softmax(dim=-1)
    best = torch.topk(probabilities, min(alternatives, probabilities.shape[0]))
    return TokenChoice(
        token_id=token_id,
        probability=float(probabilities[token_id]),
        rank=1 + int((probabilities > probabilities[token_id]).sum()),
        # xlogy takes 0 log 0 as 0, where filters have removed a token.
        entropy_bits=float(-torch.xlogy(probabilities, probabilities).sum() / math.log(2)),
        alternatives=tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
    )


def _require_choice(scores: Float[Tensor, "batch vocab"], name: str) -> None:
    """Each row has a best token, which is a number."""
    best = scores.amax(dim=-1)
    if not bool((best < math.inf).all()):
        row = int((~(best < math.inf)).nonzero()[0])
        raise FloatingPointError(f"{name} gave nan or infinity in row {row}; a token is removed by -inf")
    if bool((best == REMOVED).any()):
        row = int((best == REMOVED).nonzero()[0])
        raise ValueError(f"{name} removed every token of row {row}; leave at least one")


def _require(holds: bool, name: str, given: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name}={given!r}, but it has to be {expected}")
