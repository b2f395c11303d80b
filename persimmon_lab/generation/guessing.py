"""Guessing ahead: several tokens are guessed cheaply, and the model reads them all at once (speculative decoding).

A step of a small batch takes as long as its weights take to be read, so reading eight tokens costs little more than
reading one. Every token is still chosen as ever, from the model's own logits; a guess only says which choice may have
been prepared. The tokens that equal their guesses are kept, and the first one that does not ends the step.

So a guess never changes what is chosen, in greedy decoding and in sampling alike: the same draws in the same order.
What changes is how many rows a product has, and with it the last bits: where two logits are as good as equal, another
token may win. Source: Leviathan et al. 2022, "Fast Inference from Transformers via Speculative Decoding", whose rule
this is for guesses that are certain; transformers' `prompt_lookup_num_tokens` and `assistant_model`.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import DynamicCache
from persimmon_lab.generation.context import Context
from persimmon_lab.generation.engines.choosing import runner_for
from persimmon_lab.generation.engines.decodable import Decodable
from persimmon_lab.generation.engines.fast import FastRunner
from persimmon_lab.generation_config import GenerationConfig

Ids = Int[Tensor, "1 position"]


@runtime_checkable
class Guesser(Protocol):
    def __call__(self, ids: Ids, most: int) -> list[int]:
        """At most `most` ids that may follow `ids`; none where it has no guess."""


@dataclass(frozen=True)
class PromptLookup:
    """Guesses that the text says again what it said before: what followed its last tokens the last time.

    It looks for the last `longest` tokens, and for fewer where they are new. Of several places the last one is taken
    that is followed by enough, else the one that is followed by most.
    """

    longest: int

    def __call__(self, ids: Ids, most: int) -> list[int]:
        row = ids[0]
        for size in range(min(self.longest, len(row) - 1), 0, -1):
            windows = row[:-1].unfold(0, size, 1)  # (place, size): each has a token behind it
            places = (windows == row[-size:]).all(dim=1).nonzero()[:, 0] + size
            if len(places):
                enough = places[places <= len(row) - most]
                start = int(enough[-1] if len(enough) else places[0])
                found: list[int] = row[start : start + most].tolist()
                return found
        return []


class Assistant:
    """Guesses what a smaller model of the same vocabulary would say, greedily; its cache goes along with the text."""

    def __init__(self, model: Decodable, engine: str | None, room: int) -> None:
        self.run = runner_for(model, engine)
        self.cache: Any = self.run.new_cache(room) if isinstance(self.run, FastRunner) else DynamicCache()
        self.read = torch.empty(1, 0, dtype=torch.int64, device=model.device)

    def __call__(self, ids: Ids, most: int) -> list[int]:
        shared = min(self.read.shape[1], ids.shape[1] - 1)
        differs = (self.read[:, :shared] != ids[:, :shared]).nonzero()
        self.cache.crop(int(differs[0, 1]) if len(differs) else shared)
        context = Context(self.run, ids, None, self.cache, new_tokens=most)
        guesses: list[int] = []
        for _ in range(most):
            context.append(context.next_logits().argmax(dim=-1))
            guesses.append(int(context.sequences[0, -1]))
        self.read = context.sequences[:, :-1]  # the last one was chosen and not read
        return guesses


class ReadingAhead:
    """Gives the logits of a context one place after the other, and reads several at once where guesses allow it."""

    def __init__(self, context: Context, guesser: Guesser, at_a_time: int) -> None:
        self.context, self.guesser, self.at_a_time = context, guesser, at_a_time
        self._guesses: list[int] = []
        self._read: list[Tensor] = []  # after each of the guesses

    def next_logits(self) -> Float[Tensor, "batch vocab"]:
        """As `Context.next_logits`."""
        context = self.context
        if self._guesses and int(context.sequences[0, -1]) == self._guesses.pop(0):
            return self._read.pop(0)
        most = context.most_guesses(self.at_a_time)
        self._guesses = self.guesser(context.sequences, most) if most else []
        ids = torch.tensor(self._guesses, dtype=torch.int64, device=context.ids.device)
        first, *self._read = context.logits_before(rearrange(ids, "guess -> 1 guess")).unbind(dim=1)
        return first


def reading_ahead(
    context: Context,
    model: Decodable,
    assistant_model: Any,
    config: GenerationConfig,
    new_tokens: int,
    engine: str | None,
) -> Context | ReadingAhead:
    """The context, or what reads it ahead by the guesses that were asked for.

    Raises ValueError for guesses of several rows, with beams or without a cache, for two who would guess, and for an
    assistant of another vocabulary.
    """
    lookup = config.prompt_lookup_num_tokens
    if assistant_model is None and not lookup:
        return context
    name = f"prompt_lookup_num_tokens={lookup}" if assistant_model is None else "assistant_model"
    if assistant_model is not None and lookup:
        raise ValueError(f"both assistant_model and prompt_lookup_num_tokens={lookup} would guess; pass one of them")
    rows = len(context.ids) * config.num_return_sequences
    if rows > 1 or config.num_beams > 1 or not config.use_cache:
        raise ValueError(
            f"{name} guesses for one text; here are {rows} rows, num_beams={config.num_beams} and "
            f"use_cache={config.use_cache}: pass a single prompt for one answer, without beams and with a cache"
        )
    if assistant_model is None:
        assert lookup is not None
        return ReadingAhead(context, PromptLookup(config.max_matching_ngram_size), lookup)
    ours, theirs = model.config.vocab_size, assistant_model.config.vocab_size
    if ours != theirs:
        raise ValueError(f"the assistant_model has {theirs} ids and the model {ours}: its guesses mean other tokens")
    assistant = Assistant(assistant_model, engine, context.width + new_tokens)
    return ReadingAhead(context, assistant, config.num_assistant_tokens)
