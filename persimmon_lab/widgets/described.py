"""Tokens as widgets show them: with their text, their piece and how probable they were."""

from typing import Any

from torch import Tensor

from persimmon_lab.generation import TokenChoice
from persimmon_lab.tokenizer import StreamingDecoder
from persimmon_lab.viz.html.tokens import Token


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
