"""A batch of texts that grows, and what the model says comes next: the one place where generation calls the model."""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from persimmon_lab.generation.engines.threads import threads_for_steps, working_threads
from persimmon_lab.rotary import has_own_theta

LONG_PROMPT = 4096  # positions to read from which a progress bar appears by itself: seconds on a CPU


class Context:
    """Ids, padding mask and cache of a batch, with room reserved for the tokens to come.

    `run` is called like the model. With `prompt_embeds` the text begins with positions that have no ids. `chunk` is how
    many positions are read at once (None: all); reading in chunks needs a cache. A text that dynamic `rope_scaling`
    gives a base of its own is read at once all the same: its parts would each be rotated by another.
    """

    def __init__(
        self,
        run: Any,
        ids: Int[Tensor, "batch position"],
        mask: Int[Tensor, "batch position_of_mask"] | None,
        cache: Any,
        *,
        new_tokens: int = 0,
        use_cache: bool = True,
        chunk: int | None = None,
        progress: bool | None = None,
        prompt_embeds: Float[Tensor, "batch position_of_embeds hidden"] | None = None,
        embed: Any = None,
    ) -> None:
        self.run = run
        is_tuple = isinstance(run, nn.Module) and not getattr(run.config, "return_dict", True)
        self._as_object = {"return_dict": True} if is_tuple else {}
        self.cache = cache
        self.use_cache = use_cache
        self.chunk = chunk
        self.progress = progress
        self.prompt_embeds = prompt_embeds
        self.embed = embed
        self.has_guessed = False
        self.without_ids = 0 if prompt_embeds is None else prompt_embeds.shape[1]
        self.width = self.prompt_width = self.without_ids + ids.shape[1]
        with torch.inference_mode(False):  # which the next token may be written outside of
            self.ids = F.pad(ids, (0, new_tokens))
        # Default positions would count the padding; these count the tokens. Padding itself gets 0, which nothing sees.
        self.mask: Tensor | None = None
        self.positions: Tensor | None = None
        if mask is not None:
            self.mask = F.pad(mask, (0, new_tokens), value=1)
            self.positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)

    @property
    def sequences(self) -> Int[Tensor, "batch position"]:
        """All ids so far, a view that later tokens do not change."""
        return self.ids[:, : self.width - self.without_ids]

    @property
    def visible(self) -> Bool[Tensor, "batch position"] | None:
        """Which of `sequences` are no padding; None for all of them."""
        return None if self.mask is None else self.mask[:, self.without_ids : self.width].bool()

    @property
    def seen(self) -> int:
        """Positions that the cache holds."""
        return 0 if self.cache is None else int(self.cache.get_seq_length())  # a tensor in some

    def append(self, token_ids: Int[Tensor, "batch"]) -> None:
        """One more token for every row."""
        self.ids[:, self.width - self.without_ids] = token_ids
        self.width += 1

    def keep(self, rows: Int[Tensor, "new_batch"]) -> None:
        """Go on with these rows, in this order (repeats allowed): what beams and several answers need."""
        self.ids = self.ids[rows]
        if self.mask is not None:
            self.mask = self.mask[rows]
        if self.positions is not None:
            self.positions = self.positions[rows]
        if self.prompt_embeds is not None:
            self.prompt_embeds = self.prompt_embeds[rows]
        if self.cache is not None:
            self.cache.reorder_cache(rows)

    def next_logits(self) -> Float[Tensor, "batch vocab"]:
        """Read what is new and return the last position's logits, in float32; errors as `logits_before`."""
        return self.logits_before(self.ids[:, :0])[:, 0]

    def logits_before(self, guesses: Int[Tensor, "batch guess"]) -> Float[Tensor, "batch guess_and_next vocab"]:
        """Read what is new and the guesses behind it; the logits, in float32, before each guess and after the last.

        Guesses are no part of the text: `append` says what follows, and the cache forgets the others the next time.
        Whatever goes wrong or is interrupted on the way, the cache then holds what it held before. Raises
        FloatingPointError for nan and infinity.
        """
        self.forget_guesses()
        seen, width, count = self.seen, self.width, guesses.shape[1]
        try:
            self.ids[:, width - self.without_ids : width - self.without_ids + count] = guesses
            self.width = width + count
            positions = len(self.ids) * (self.width - seen)
            with working_threads(threads_for_steps(self.run.config, self.ids.device, positions)):
                *_, last = self.read(1 + count)
            logits = last[:, -1 - count :].to(torch.float32)
            for place in range(1 + count):
                _require_numbers(logits[:, place], width + place)
        except BaseException:
            if self.cache is not None:
                _rewind(self.cache, seen)
            raise
        finally:
            self.width = width
        self.has_guessed |= count > 0
        return logits

    def forget_guesses(self) -> None:
        """Let the cache hold no more than the text, but for its last token, which is still to be read."""
        if self.has_guessed and self.seen >= self.width:
            _rewind(self.cache, self.width - 1)

    def most_guesses(self, wanted: int) -> int:
        """How many guesses can be read at once: none before the prompt was read, nor where a longer text has another
        rotation; fewer than are read at a time; no more than there is room for, with one token behind them."""
        room = self.ids.shape[1] + self.without_ids - self.width - 1
        most = max(0, min(wanted, room, (self.chunk or self.width) - 1))
        is_read = self.cache is not None and self.seen >= self.width - 1 > 0
        return 0 if not is_read or has_own_theta(self.run.config, self.width + most) else most

    def read(self, logits_to_keep: int = 1) -> Iterator[Float[Tensor, "batch kept vocab"]]:
        """Run what is new through the model, chunk by chunk; yields the last logits of each chunk (0: all of them).

        Raises ValueError where nothing is new, and for chunks of a model that keeps no cache.
        """
        seen = self.seen
        if seen >= self.width:
            raise ValueError(
                f"past_key_values already holds {seen} positions and the prompt has {self.width}; leave at least the "
                f"last one out: past_key_values.crop({self.width - 1})"
            )
        chunk = None if has_own_theta(self.run.config, self.width) else self.chunk
        chunk = chunk or self.width
        starts = range(seen, self.width, chunk)
        if len(starts) > 1:
            shown = self.width - seen >= LONG_PROMPT if self.progress is None else self.progress
            starts = tqdm(starts, desc="reading the prompt", unit="chunk", disable=not shown)
        for start in starts:
            end = min(start + chunk, self.width)
            outputs = self.run(
                **self._inputs(start, end),
                attention_mask=None if self.mask is None else self.mask[:, :end],
                position_ids=None if self.positions is None else self.positions[:, start:end],
                past_key_values=self.cache,
                use_cache=self.use_cache,
                logits_to_keep=logits_to_keep,
                **self._as_object,
            )
            if self.use_cache:
                self.cache = outputs.past_key_values
            if self.cache is None and end < self.width:
                raise ValueError(
                    f"the model kept no cache, so what it read before position {end} would be forgotten (gradient "
                    "checkpointing in training mode keeps none): call eval() or gradient_checkpointing_disable() "
                    f"first, or read all {self.width} positions at once"
                )
            yield outputs.logits

    def _inputs(self, start: int, end: int) -> dict[str, Tensor]:
        if start >= self.without_ids:
            return {"input_ids": self.ids[:, start - self.without_ids : end - self.without_ids]}
        embeds = self.embed(self.sequences)
        if self.prompt_embeds is not None:
            embeds = torch.cat([self.prompt_embeds, embeds], dim=1)
        return {"inputs_embeds": embeds[:, start:end]}


def _rewind(cache: Any, length: int) -> None:
    """Forget what is after `length`, of which the first layers may hold more than the last ones.

    The trap: in transformers 5 `crop` takes how many positions go, below 0, and takes them from every layer.
    """
    layers = getattr(cache, "layers", None)
    if not isinstance(layers, list | tuple):
        cache.crop(length)
        return
    for layer in layers:
        ahead = int(layer.get_seq_length()) - length
        if ahead > 0:
            layer.crop(-ahead)


def _require_numbers(logits: Float[Tensor, "batch vocab"], position: int) -> None:
    # Not true of nan and +inf; -inf is a token that a model may rule out.
    if not logits.amax().item() < math.inf:
        row = int((~(logits < math.inf)).any(dim=1).nonzero()[0])
        raise FloatingPointError(
            f"the model returned nan or infinity for the token at position {position} of row {row}. In float16 a "
            "pre-activation of 256 or more overflows when it is squared (the limit is 65504): load the model with "
            "torch_dtype=torch.bfloat16 or torch.float32. Otherwise look for nan in its weights."
        )
