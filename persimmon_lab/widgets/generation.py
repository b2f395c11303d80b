"""What the playground shows, apart from its controls: settings in, tokens with their probabilities out."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from persimmon_lab.generation import decode_steps
from persimmon_lab.tokenizer import StreamingDecoder
from persimmon_lab.tokenizer.chat import NEXT_TURN
from persimmon_lab.viz.tokens import Token

LONGEST_PROMPT_SHOWN = 600  # tokens


@dataclass(frozen=True)
class Settings:
    """What the controls say. Temperature 0 is greedy decoding; top_k 0 and top_p 1 cut nothing."""

    prompt: str
    chat: bool = False
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    max_new_tokens: int = 100
    seed: int = 0

    def generate_arguments(self) -> dict[str, Any]:
        """For `model.generate`. What has a control is said outright, whatever the model's generation_config says."""
        length = {"max_new_tokens": self.max_new_tokens}
        stop = {"stop_strings": [NEXT_TURN]} if self.chat else {}
        if self.temperature == 0:
            return {**length, "do_sample": False, **stop}
        choice = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "seed": self.seed}
        return {**length, "do_sample": True, **choice, **stop}

    def code(self, load: str | None = None) -> str:
        """Python that prints the same text; `load` is the line that makes `model` and `tokenizer`."""
        prompt = f'tokenizer({self.prompt!r}, return_tensors="pt").input_ids'
        if self.chat:
            prompt = f'tokenizer.apply_chat_template({self.prompt!r}, return_tensors="pt")'
        arguments = {"tokenizer": "tokenizer"}
        arguments |= {name: repr(value) for name, value in self.generate_arguments().items()}
        return "\n".join(
            [
                load or "# model and tokenizer are those that the playground was made with",
                f"input_ids = {prompt}",
                "output = model.generate(",
                "    input_ids,",
                *(f"    {name}={value}," for name, value in arguments.items()),
                ")",
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
    return [Token(decoder.push(index), piece) for index, piece in zip(ids, tokenizer.convert_ids_to_tokens(ids))]


def stream_tokens(model: Any, tokenizer: Any, settings: Settings, cancel: threading.Event) -> Iterator[Token]:
    """Generate: one Token per step, until the text ends or `cancel` is set.

    Each carries the text that it completed, a stop string included: the model wrote that too. (`generation.stream`
    holds it back, which moves text from one token to another.) Probabilities are the model's own, before temperature
    and filters. Raises what `generate` raises.
    """
    prompt_ids = encode_prompt(tokenizer, settings)
    decoder = StreamingDecoder(tokenizer, skip_special_tokens=True)
    for index in prompt_ids[0].tolist():
        decoder.push(index)
    for step in decode_steps(model, prompt_ids, tokenizer=tokenizer, **settings.generate_arguments()):
        choice, is_last = step.choice(), step.is_last or cancel.is_set()
        yield Token(
            decoder.push(choice.token_id) + (decoder.finish() if is_last else ""),
            tokenizer.convert_ids_to_tokens(choice.token_id),
            choice.probability,
            choice.rank,
            choice.entropy_bits,
            tuple((tokenizer.convert_ids_to_tokens(index), probability) for index, probability in choice.alternatives),
        )
        if is_last:
            return


def shortened(tokens: Sequence[Token]) -> list[Token]:
    """At most LONGEST_PROMPT_SHOWN of them: the beginning and the end."""
    left_out = len(tokens) - LONGEST_PROMPT_SHOWN
    if left_out <= 0:
        return list(tokens)
    half = LONGEST_PROMPT_SHOWN // 2
    return [*tokens[:half], Token("", f" … {left_out:,} tokens … "), *tokens[-half:]]
