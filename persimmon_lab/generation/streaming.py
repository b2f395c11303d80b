"""Text as it is generated: never half a character, and nothing of a stop string."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from persimmon_lab.generation.decoding import decode_steps
from persimmon_lab.generation.steps import DecodingStep
from persimmon_lab.generation.stopping import split_at_stop_string
from persimmon_lab.tokenizer import StreamingDecoder


@dataclass(frozen=True, eq=False)
class StreamEvent:
    """One generated token and the text that it completed.

    `text` is empty while a character still lacks bytes or while the text may be the beginning of a stop string; it then
    comes with a later token. The texts of all events, joined, are what follows the prompt.
    """

    token_id: int
    text: str
    step: DecodingStep = field(repr=False)


def decoder_after(tokenizer: Any, prompt_ids: Iterable[int]) -> StreamingDecoder:
    """A decoder, without special tokens, that has read a prompt: `push` then gives the text that a token adds to it.

    A first piece loses its space at the beginning of a text, but not after a prompt.
    """
    decoder = StreamingDecoder(tokenizer, skip_special_tokens=True)
    for token_id in prompt_ids:
        decoder.push(token_id)
    return decoder


def stream(
    model: Any,
    tokenizer: Any,
    prompt: str | Tensor,
    *,
    cancel: threading.Event | None = None,
    **options: Any,
) -> Iterator[StreamEvent]:
    """Continue one prompt and yield a StreamEvent per token, as soon as it is there.

    `prompt` is a text or its ids (1, position); `options` are those of `generate`. Special tokens have no text, a stop
    string is cut off with what its last token brought after it, and so is a character whose last bytes never came.

    Nothing runs ahead: the next token is computed when the next event is asked for, in the thread that asks. So leaving
    the loop ends the generation, errors arrive where the events are used, and a Stop button needs only set `cancel`.
    """
    prompt_ids = tokenizer(prompt, return_tensors="pt").input_ids if isinstance(prompt, str) else prompt
    decoder = decoder_after(tokenizer, prompt_ids[0].tolist())
    waiting = ""
    for step in decode_steps(model, prompt_ids, tokenizer=tokenizer, **options):
        if len(step.token_ids) != 1:
            raise ValueError(
                f"a stream is one text that only grows, but the prompt is {tuple(prompt_ids.shape)} and "
                f"num_return_sequences={step.config.num_return_sequences}, num_beams={step.config.num_beams}; use one "
                "row of it at a time, and generate() for beams"
            )
        token_id = int(step.token_ids)
        stop_strings = step.config.stop_string_list()
        text, waiting = split_at_stop_string(waiting + decoder.push(token_id), stop_strings)
        stopped = any(stop_string in waiting for stop_string in stop_strings)
        if step.is_last and not stopped:
            text += waiting
        yield StreamEvent(token_id, text, step)
        if stopped or (cancel is not None and cancel.is_set()):
            return
