"""Tokens as widgets show them: with their text, their piece and how probable they were."""

from jaxtyping import Int
from torch import Tensor

from persimmon_lab.generation import TokenChoice
from persimmon_lab.tokenizer import PersimmonTokenizer, StreamingDecoder
from persimmon_lab.viz.html.tokens import Token


def describe_prompt(tokenizer: PersimmonTokenizer, prompt_ids: Int[Tensor, "1 position"]) -> list[Token]:
    """The prompt as the model reads it, special tokens included."""
    decoder = StreamingDecoder(tokenizer, skip_special_tokens=True)
    ids: list[int] = prompt_ids[0].tolist()
    pieces = tokenizer.convert_ids_to_tokens(ids)
    return [Token(decoder.push(index), piece, token_id=index) for index, piece in zip(ids, pieces)]


def described(tokenizer: PersimmonTokenizer, text: str, choice: TokenChoice) -> Token:
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
