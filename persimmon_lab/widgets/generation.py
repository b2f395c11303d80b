"""What the playground shows, apart from its controls: settings in, tokens with their probabilities out."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.generation import TokenChoice, decode_steps
from persimmon_lab.generation.sampling import describe_choice
from persimmon_lab.tokenizer import StreamingDecoder
from persimmon_lab.tokenizer.chat import NEXT_TURN
from persimmon_lab.viz.tokens import Token

LONGEST_PROMPT_SHOWN = 600  # tokens
MODEL_AND_TOKENIZER = "# model and tokenizer are those that the playground was made with"


@dataclass(frozen=True)
class Settings:
    """What the controls say. Temperature 0 is greedy decoding; top_k 0, top_p 1 and min_p 0 cut nothing."""

    prompt: str
    chat: bool = False
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    max_new_tokens: int = 100
    seed: int = 0

    def generate_arguments(self) -> dict[str, Any]:
        """For `model.generate`. What has a control is said outright, whatever the model's generation_config says."""
        length = {"max_new_tokens": self.max_new_tokens}
        stop = {"stop_strings": [NEXT_TURN]} if self.chat else {}
        if self.temperature == 0:
            return {**length, "do_sample": False, **stop}
        filters = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        return {**length, "do_sample": True, **filters, "seed": self.seed, **stop}

    def says(self) -> str:
        """How the next token is chosen, in a few words; what cuts nothing is not said."""
        if self.temperature == 0:
            return "greedy"
        filters = [
            f"top-k {self.top_k}" if self.top_k else "",
            f"top-p {self.top_p:g}" if self.top_p < 1 else "",
            f"min-p {self.min_p:g}" if self.min_p > 0 else "",
        ]
        return " · ".join([f"temperature {self.temperature:g}", *filter(None, filters), f"seed {self.seed}"])

    def prompt_code(self) -> str:
        """A Python expression for the prompt's ids."""
        if self.chat:
            return f'tokenizer.apply_chat_template({self.prompt!r}, return_tensors="pt")'
        return f'tokenizer({self.prompt!r}, return_tensors="pt").input_ids'

    def generate_code(self, input_ids: str) -> str:
        """A call of `model.generate` that continues the ids under that name."""
        arguments = {"tokenizer": "tokenizer"}
        arguments |= {name: repr(value) for name, value in self.generate_arguments().items()}
        lines = [f"    {input_ids},", *(f"    {name}={value}," for name, value in arguments.items())]
        return "\n".join(["model.generate(", *lines, ")"])

    def code(self, load: str | None = None) -> str:
        """Python that prints the same text; `load` is the line that makes `model` and `tokenizer`."""
        return "\n".join(
            [
                load or MODEL_AND_TOKENIZER,
                f"input_ids = {self.prompt_code()}",
                f"output = {self.generate_code('input_ids')}",
                "print(tokenizer.decode(output[0], skip_special_tokens=True))",
            ]
        )


def encode_prompt(tokenizer: Any, settings: Settings) -> Tensor:
    """The prompt's ids (1, position), in the chat format if the settings say so."""
    if settings.chat:
        return tokenizer.apply_chat_template(settings.prompt, return_tensors="pt")
    return tokenizer(settings.prompt, return_tensors="pt").input_ids


def describe_prompt(tokenizer: Any, prompt_ids: Tensor) -> list[Token]:
    """The prompt as the model reads it, special tokens included."""
    decoder, ids = StreamingDecoder(tokenizer, skip_special_tokens=True), prompt_ids[0].tolist()
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return [Token(decoder.push(index), piece, token_id=index) for index, piece in zip(ids, pieces)]


def described(tokenizer: Any, text: str, choice: TokenChoice) -> Token:
    """A chosen token with the text that it completed."""
    return Token(
        text,
        tokenizer.convert_ids_to_tokens(choice.token_id),
        choice.probability,
        choice.rank,
        choice.entropy_bits,
        tuple((tokenizer.convert_ids_to_tokens(index), probability) for index, probability in choice.alternatives),
        choice.token_id,
    )


def forced_token(
    tokenizer: Any, before: Int[Tensor, "1 position"], logits: Float[Tensor, "vocab"], token_id: int
) -> Token:
    """A token that a reader chose to follow the ids `before`, as it stood in the model's own distribution."""
    text = decoder_after(tokenizer, before).push(token_id)
    return described(tokenizer, text, describe_choice(logits, token_id))


def decoder_after(tokenizer: Any, ids: Int[Tensor, "1 position"]) -> StreamingDecoder:
    """A decoder that has read these ids: a piece loses its space where a text begins, but not after a prompt."""
    decoder = StreamingDecoder(tokenizer, skip_special_tokens=True)
    for index in ids[0].tolist():
        decoder.push(index)
    return decoder


def stream_tokens(
    model: Any,
    tokenizer: Any,
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
    decoder = decoder_after(tokenizer, ids)
    for step in decode_steps(model, ids, tokenizer=tokenizer, **settings.generate_arguments()):
        choice, is_last = step.choice(), step.is_last or cancel.is_set()
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
    return [*tokens[:half], Token("", f" … {left_out:,} tokens … "), *tokens[-half:]]
