"""The pieces of a sentencepiece model, and those among them that stand for no text."""

import operator
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int
from sentencepiece import SentencePieceProcessor
from torch import Tensor

END_OF_TEXT = "|ENDOFTEXT|"  # id 71013 in Adept's release, where it begins and ends every document
NO_PIECE = "\ufffd"  # what an id beyond the vocabulary is shown as

TokenIds = Sequence[SupportsIndex] | np.ndarray | Int[Tensor, "..."]


class Vocabulary:
    """Pieces by id and ids by piece; `sp_model` is the sentencepiece processor itself.

    `bos_token` and `eos_token` default to `|ENDOFTEXT|` where the model has it, else to its `<s>` and `</s>`;
    `pad_token` defaults to `eos_token`. ValueError for a special token that is no piece of the model.

    A model may have more rows than there are pieces (padded to a round number, or by `resize_token_embeddings`), and
    write such an id. Each is shown as U+FFFD, as is a byte that makes no character: the unknown piece is no choice,
    since `<unk>` is a special token, which `skip_special_tokens` hides. What is no row of any model, a negative id such
    as a label's -100, is refused.
    """

    def __init__(
        self, sp_model: SentencePieceProcessor, bos_token: str | None, eos_token: str | None, pad_token: str | None
    ) -> None:
        self.sp_model = sp_model
        self.unk_token_id = sp_model.unk_id()
        self.unk_token = sp_model.id_to_piece(self.unk_token_id)
        self.bos_token = bos_token or self._first_known(END_OF_TEXT, "<s>")
        self.eos_token = eos_token or self._first_known(END_OF_TEXT, "</s>")
        self.pad_token = pad_token or self.eos_token
        _ = self.special_tokens  # refuse an unknown token now, not at its first use

    @property
    def vocab_size(self) -> int:
        return self.sp_model.get_piece_size()

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def bos_token_id(self) -> int | None:
        return self._id_of(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        return self._id_of(self.eos_token)

    @property
    def pad_token_id(self) -> int | None:
        return self._id_of(self.pad_token)

    @property
    def special_tokens(self) -> dict[str, int]:
        """What stands for no text: bos, eos, pad, unk, `|ENDOFTEXT|` and sentencepiece's own control pieces."""
        tokens = (self.bos_token, self.eos_token, self.pad_token)
        return self._always_special | {token: self._id_of_piece(token) for token in tokens if token is not None}

    @property
    def all_special_ids(self) -> list[int]:
        return sorted(self.special_tokens.values())

    @property
    def all_special_tokens(self) -> list[str]:
        return [self.sp_model.id_to_piece(index) for index in self.all_special_ids]

    def get_vocab(self) -> dict[str, int]:
        return {self.sp_model.id_to_piece(index): index for index in range(self.vocab_size)}

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...

    @overload
    def convert_tokens_to_ids(self, tokens: list[str] | tuple[str, ...]) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        """The id of each piece; `unk_token_id` for a string that is no piece of the vocabulary."""
        if isinstance(tokens, str):
            return self.sp_model.piece_to_id(tokens)
        return [self.sp_model.piece_to_id(token) for token in tokens]

    @overload
    def convert_ids_to_tokens(self, ids: int, skip_special_tokens: bool = False) -> str: ...

    @overload
    def convert_ids_to_tokens(self, ids: TokenIds, skip_special_tokens: bool = False) -> list[str]: ...

    def convert_ids_to_tokens(self, ids: int | TokenIds, skip_special_tokens: bool = False) -> str | list[str]:
        """The piece of each id as it stands in the vocabulary: `▁` for a space, `<0x0A>` for a byte.

        `skip_special_tokens` leaves special tokens out of a row; an id that comes alone is always answered.
        """
        indices = self._checked(ids)
        if not isinstance(ids, Iterable):
            return self._piece_of(indices[0])
        special = self.special_tokens.values() if skip_special_tokens else ()
        return [self._piece_of(index) for index in indices if index not in special]

    def id_to_bytes(self, token_id: int) -> bytes:
        """What an id adds to a text in the middle of it, in UTF-8; for a byte piece that one byte."""
        [token_id] = self._checked(token_id)
        piece = self._piece_of(token_id)
        if self.is_byte(token_id):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode("utf-8")

    def is_byte(self, token_id: int) -> bool:
        """Whether an id stands for one byte of a character that is no piece; an id beyond the vocabulary does not."""
        return self._has_piece(token_id) and bool(self.sp_model.is_byte(token_id))

    def _has_piece(self, token_id: int) -> bool:
        return 0 <= token_id < self.vocab_size

    def _piece_of(self, token_id: int) -> str:
        piece: str = self.sp_model.id_to_piece(token_id) if self._has_piece(token_id) else NO_PIECE
        return piece

    def text_of(self, ids: list[int]) -> str:
        """sentencepiece's text of ids that are no special tokens."""
        # In pieces it takes one that it does not know as it stands; with ids it has no word for that.
        is_known = all(map(self._has_piece, ids))
        text: str = self.sp_model.decode(ids if is_known else [self._piece_of(index) for index in ids])
        return text

    def _first_known(self, *tokens: str) -> str | None:
        return next((token for token in tokens if self.sp_model.piece_to_id(token) != self.unk_token_id), None)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self._id_of_piece(token)

    def _id_of_piece(self, token: str) -> int:
        index: int = self.sp_model.piece_to_id(token)
        if self.sp_model.id_to_piece(index) != token:
            raise ValueError(f"special token {token!r} is not one of the {self.vocab_size} pieces of this vocabulary")
        return index

    @cached_property
    def _always_special(self) -> dict[str, int]:
        ids = [index for index in range(self.vocab_size) if self.sp_model.is_control(index)]
        ids += [self.unk_token_id, self.sp_model.piece_to_id(END_OF_TEXT)]  # unknown itself where there is none
        return {self.sp_model.id_to_piece(index): index for index in ids}

    def _checked(self, ids: int | TokenIds) -> list[int]:
        row: Any = ids.tolist() if isinstance(ids, np.ndarray | Tensor) else ids
        try:
            indices = [operator.index(index) for index in (row if isinstance(row, Iterable) else [row])]
        except TypeError:
            raise TypeError(f"expected integers in one row, got {row!r:.80}; batch_decode takes several rows") from None
        for index in indices:
            if index < 0:
                raise ValueError(
                    f"token id {index} is none: ids begin at 0; take out what is no token, as labels' -100"
                )
        return indices
