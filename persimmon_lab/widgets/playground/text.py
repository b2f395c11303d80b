"""The text of the playground: a prompt in, tokens with their probabilities out."""

import threading
from collections.abc import Callable, Iterator, Sequence

from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.generation import decode_steps
from persimmon_lab.generation.engines.decodable import Decodable
from persimmon_lab.generation.sampling import describe_choice
from persimmon_lab.generation.streaming import decoder_after
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.chat import render_chat
from persimmon_lab.viz.html.tokens import Token
from persimmon_lab.viz.signs import counted
from persimmon_lab.widgets.described import described
from persimmon_lab.widgets.playground.settings import Settings

LONGEST_PROMPT_SHOWN = 600  # tokens


def encode_prompt(tokenizer: PersimmonTokenizer, settings: Settings) -> Int[Tensor, "1 position"]:
    """The prompt's ids (1, position), in the chat format if the settings say so."""
    text = render_chat(settings.prompt) if settings.chat else settings.prompt
    ids: Int[Tensor, "1 position"] = tokenizer(text, return_tensors="pt").input_ids
    return ids


def forced_token(
    tokenizer: PersimmonTokenizer, before: Int[Tensor, "1 position"], logits: Float[Tensor, "vocab"], token_id: int
) -> Token:
    """A token that a reader chose to follow the ids `before`, as it stood in the model's own distribution."""
    text = decoder_after(tokenizer, before[0].tolist()).push(token_id)
    return described(tokenizer, text, describe_choice(logits, token_id))


def stream_tokens(
    model: Decodable,
    tokenizer: PersimmonTokenizer,
    settings: Settings,
    cancel: threading.Event,
    ids: Int[Tensor, "1 position"] | None = None,
    keep: Callable[[Float[Tensor, "vocab"]], None] = lambda logits: None,
) -> Iterator[Token]:
    """Generate: one Token per step, until the text ends or `cancel` is set. Continues `ids`, else the prompt.

    Each carries the text that it completed, a stop string included: the model wrote that too. (`generation.stream`
    holds it back, which moves text from one token to another.) Probabilities are the model's own, before temperature
    and filters; `keep` gets the logits they come from, before the Token is yielded. Raises what `generate` raises.
    """
    ids = encode_prompt(tokenizer, settings) if ids is None else ids
    decoder = decoder_after(tokenizer, ids[0].tolist())
    for step in decode_steps(model, ids, tokenizer=tokenizer, **settings.generate_arguments()):
        choice = step.choice()
        is_last = step.is_last or cancel.is_set()
        keep(step.logits[0])
        yield described(tokenizer, decoder.push(choice.token_id) + (decoder.finish() if is_last else ""), choice)
        if is_last:
            return


def shortened(tokens: Sequence[Token]) -> list[Token]:
    """At most LONGEST_PROMPT_SHOWN of them: the beginning and the end."""
    left_out = len(tokens) - LONGEST_PROMPT_SHOWN
    if left_out <= 0:
        return list(tokens)
    half = LONGEST_PROMPT_SHOWN // 2
    return [*tokens[:half], Token("", f" … {counted(left_out, 'token')} … "), *tokens[-half:]]
