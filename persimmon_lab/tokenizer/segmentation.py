"""A text cut into pieces as sentencepiece cuts it, with special tokens matched only on request.

A character without a piece falls back to the pieces of its bytes, `<0xE2>`, in sentencepiece itself, of a vocabulary
that was trained so (`training.corpus.train_tokenizer`); `unigram` does the same for all ways to cut a text.
"""

import re
from collections.abc import Mapping
from typing import Any

from sentencepiece import SentencePieceProcessor

from persimmon_lab.tokenizer.sentencepiece_model import PieceType, retype

BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")

Offsets = list[tuple[int, int]]


class Segmenter:
    """Cuts texts with a sentencepiece model.

    sentencepiece never matches a control piece such as `</s>` in a text, and always matches a user-defined one, such as
    `|ENDOFTEXT|` in Adept's vocabulary. So a text in which a special token is spelt goes through a copy of the model
    where that token is a control piece: same ids, same scores, but what a user typed stays what a user typed.
    """

    def __init__(self, model: SentencePieceProcessor) -> None:
        self.model = model
        self._spelling_out: dict[frozenset[int], SentencePieceProcessor] = {}

    def segment(
        self, text: str, special: Mapping[str, int], parse_special: bool, with_offsets: bool
    ) -> tuple[list[int], Offsets]:
        """The ids of a text and, `with_offsets`, the characters `text[start:end]` that each stands for.

        `special` maps special tokens to ids. With `parse_special` they are matched, and each stretch of text between
        them is cut as a text of its own. ValueError for half a surrogate pair.
        """
        check_characters(text)
        ids: list[int] = []
        offsets: Offsets = []
        start = 0
        for part in split_at(special, text) if parse_special else [text]:
            if parse_special and part in special:
                ids.append(special[part])
                offsets.append((start, start + len(part)))
            elif with_offsets:
                coded = self._model_for(part, special).encode(part, return_type="offset_mapping")
                ids += coded["ids"]
                offsets += [(start + first, start + last) for first, last in whole_characters(coded)]
            else:
                ids += self._model_for(part, special).encode(part)
            start += len(part)
        return ids, offsets

    def _model_for(self, text: str, special: Mapping[str, int]) -> SentencePieceProcessor:
        spelt = frozenset(index for token, index in special.items() if token in text and self._is_matched(index))
        if not spelt:
            return self.model
        if spelt not in self._spelling_out:
            proto = retype(self.model.serialized_model_proto(), spelt, PieceType.CONTROL)
            self._spelling_out[spelt] = SentencePieceProcessor(model_proto=proto)
        return self._spelling_out[spelt]

    def _is_matched(self, index: int) -> bool:
        return not (self.model.is_control(index) or self.model.is_unknown(index))


def split_at(tokens: Mapping[str, int], text: str) -> list[str]:
    """The text before, between and after special tokens, and those tokens, in order; the longest token wins."""
    pattern = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
    return [part for part in re.split(f"({pattern})", text) if part]


def whole_characters(coded: Mapping[str, list[Any]]) -> Offsets:
    """sentencepiece's offsets, but with a character's span on all of its byte pieces, not only on the last."""
    offsets: Offsets = []
    waiting = 0
    for piece, (first, last) in zip(coded["pieces"], coded["offsets"]):
        waiting += 1
        if first < last or not BYTE_PIECE.fullmatch(piece):
            offsets += [(first, last)] * waiting
            waiting = 0
    return offsets


def check_characters(text: object) -> None:
    """TypeError for what is no str, ValueError for a str that no UTF-8 can hold."""
    if not isinstance(text, str):
        raise TypeError(f"expected a str to encode, not {type(text).__name__}: {text!r:.80}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text is {text[error.start]!r}, half of a surrogate pair, which is no "
            "character; decode the bytes it came from with errors='replace'"
        ) from None
