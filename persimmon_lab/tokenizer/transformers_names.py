"""What transformers 4.37.2's tokenizers offer besides encoding, under the same names.

`docs/contract.md` tells of each name; `instead` holds those that are refused, with what to use.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from persimmon_lab.atomic import place_for, write_atomically
from persimmon_lab.elsewhere import Elsewhere
from persimmon_lab.tokenizer.batch_encoding import (
    BatchEncoding,
    as_rows,
    check_tensors,
    is_row,
    pad,
    padded_length,
    to_tensors,
)
from persimmon_lab.tokenizer.files import NO_LIMIT, VOCAB_FILE
from persimmon_lab.tokenizer.instead import NAMES
from persimmon_lab.tokenizer.vocabulary import TokenIds, Vocabulary

SPACED_OUT = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")  # the list of transformers


class TransformersNames(Elsewhere, Vocabulary):
    """Names that collators, trainers and evaluations look up.

    All special tokens are pieces of the sentencepiece model: none was added to it, and there are no classifier's,
    separator's or mask tokens.
    """

    elsewhere = NAMES

    add_bos_token: bool
    add_eos_token: bool
    padding_side: str
    model_max_length: int | None

    is_fast = False  # not one of the tokenizers library
    model_input_names: ClassVar[list[str]] = ["input_ids", "attention_mask"]
    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": VOCAB_FILE}
    pad_token_type_id = 0
    cls_token: str | None = None
    cls_token_id: int | None = None
    sep_token: str | None = None
    sep_token_id: int | None = None
    mask_token: str | None = None
    mask_token_id: int | None = None

    @property
    def truncation_side(self) -> str:
        """The right; ValueError for setting another, which nothing would follow."""
        return "right"

    @truncation_side.setter
    def truncation_side(self, side: str) -> None:
        if side != "right":
            raise ValueError(f"truncation_side={side!r}: texts are cut on the right; cut input_ids[-length:] yourself")

    @property
    def vocab(self) -> dict[str, int]:
        return self.get_vocab()

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens that have a role, by its name."""
        tokens = {role: getattr(self, role) for role in ("bos_token", "eos_token", "unk_token", "pad_token")}
        return {role: token for role, token in tokens.items() if token is not None}

    @property
    def additional_special_tokens(self) -> list[str]:
        return []

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        return []

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        return {}

    @property
    def added_tokens_decoder(self) -> dict[int, str]:
        return {}

    def get_added_vocab(self) -> dict[str, int]:
        return {}

    # What stands around a text

    def special_tokens_around(self) -> tuple[list[int], list[int]]:
        """The ids before and after each text, as `add_bos_token` and `add_eos_token` say."""
        before = [self.bos_token_id] if self.add_bos_token and self.bos_token_id is not None else []
        after = [self.eos_token_id] if self.add_eos_token and self.eos_token_id is not None else []
        return before, after

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many there are around one text."""
        if pair:
            raise TypeError("pair=True: this model reads one text a row")
        return sum(map(len, self.special_tokens_around()))

    @property
    def max_len_single_sentence(self) -> int:
        """How many tokens of a text fit into `model_max_length`; 10**30 and some where nothing limits it."""
        return (self.model_max_length or NO_LIMIT) - self.num_special_tokens_to_add()

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """A text's ids with bos and eos around them; a second text is set after it with its own."""
        before, after = self.special_tokens_around()
        texts = [token_ids_0] if token_ids_1 is None else [token_ids_0, token_ids_1]
        return [index for ids in texts for index in (*before, *ids, *after)]

    def get_special_tokens_mask(
        self, token_ids_0: TokenIds, token_ids_1: TokenIds | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for each special token, 0 for each other, in a row of ids.

        With `already_has_special_tokens` of these ids themselves, as they stand; else of what
        `build_inputs_with_special_tokens` makes of them.
        """
        first, second = self._checked(token_ids_0), None if token_ids_1 is None else self._checked(token_ids_1)
        if already_has_special_tokens:
            if second is not None:
                raise ValueError("already_has_special_tokens=True goes with one row of ids; token_ids_1 was given too")
            special = set(self.all_special_ids)
            return [int(index in special) for index in first]
        before, after = self.special_tokens_around()
        around = [1] * len(before), [1] * len(after)
        rows = [first] if second is None else [first, second]
        return [mark for row in rows for mark in (*around[0], *[0] * len(row), *around[1])]

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
        *,
        padding_side: str | None = None,
    ) -> BatchEncoding:
        """Encodings of several lengths, one dict for each text or one for all, as one batch: what collators call.

        Options as in calling; a mask is made where there is none. Other keys, such as labels, pass as they are, and
        become tensors with the rest where `return_tensors="pt"` asks for it. `verbose` is there for transformers' sake.

        ValueError where rows do not belong together, or make no tensor.
        """
        check_tensors(return_tensors)
        is_one = False
        if isinstance(encoded_inputs, Mapping) and is_row(encoded_inputs.get("input_ids")):
            is_one, encoded_inputs = True, [encoded_inputs]
        encoding = as_rows(encoded_inputs)
        if return_attention_mask is False:
            encoding.pop("attention_mask", None)
        elif "attention_mask" not in encoding:
            encoding["attention_mask"] = [[1] * len(row) for row in encoding.input_ids]
        limit = self.model_max_length if max_length is None else max_length
        length = padded_length(list(map(len, encoding.input_ids)), padding, limit, pad_to_multiple_of)
        encoding = pad(encoding, length, padding_side or self.padding_side, self.pad_token_id)
        if return_tensors == "pt":
            return to_tensors(encoding)
        return BatchEncoding({key: rows[0] for key, rows in encoding.items()}) if is_one else encoding

    # Text

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """A text without the spaces before English punctuation and contractions."""
        for spaced in SPACED_OUT:
            out_string = out_string.replace(spaced, spaced.strip())
        return out_string

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write the vocabulary alone, as tokenizer.model or `filename_prefix`-tokenizer.model; returns its path."""
        folder = place_for(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "-".join(name for name in (filename_prefix, VOCAB_FILE) if name)
        write_atomically(path, self.sp_model.serialized_model_proto())
        return (str(path),)
