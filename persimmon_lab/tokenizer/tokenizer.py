"""Text to token ids and back: sentencepiece, with the conventions of the models that Adept released.

sentencepiece is the reference: an ordinary text gets exactly the ids that it gives, and ids exactly its text. What is
added here goes around it: special tokens, batches, offsets, the chat format, and files that other libraries read.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jaxtyping import Int
from torch import Tensor

from persimmon_lab.tokenizer.batch_encoding import BatchEncoding, pad, room_for_text, to_tensors
from persimmon_lab.tokenizer.chat import render_chat
from persimmon_lab.tokenizer.files import (
    CONFIG_FILE,
    CONFIG_KEYS,
    FAST_FILE,
    VOCAB_FILE,
    find_folder,
    read_config,
    write_files,
)
from persimmon_lab.tokenizer.segmentation import Segmenter
from persimmon_lab.tokenizer.sentencepiece_model import load_sentencepiece, read_model
from persimmon_lab.tokenizer.tokenizer_json import tokenizer_json
from persimmon_lab.tokenizer.vocabulary import TokenIds, Vocabulary

SPACED_OUT = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")  # the list of transformers


class PersimmonTokenizer(Vocabulary):
    """A sentencepiece model with special tokens; `sp_model` is the sentencepiece processor itself.

    `bos_token` and `eos_token` default to `|ENDOFTEXT|` where the vocabulary has it, else to the `<s>` and `</s>` of
    the model; `pad_token` defaults to `eos_token`. Padding goes to the left unless told otherwise, as generation needs.

    Special tokens are matched in a text only on request (`parse_special=True`): what a user types stays plain text,
    even `|ENDOFTEXT|`, which sentencepiece alone would turn into the id that ends a document.
    """

    def __init__(
        self,
        vocab_file: str | os.PathLike[str],
        *,
        bos_token: str | None = None,
        eos_token: str | None = None,
        pad_token: str | None = None,
        add_bos_token: bool = True,
        add_eos_token: bool = False,
        padding_side: str = "left",
        model_max_length: int | None = None,
    ) -> None:
        super().__init__(load_sentencepiece(Path(vocab_file).expanduser()), bos_token, eos_token, pad_token)
        self.add_bos_token = add_bos_token
        self.add_eos_token = add_eos_token
        self.padding_side = padding_side
        self.model_max_length = model_max_length
        self._segmenter = Segmenter(self.sp_model)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> Self:
        """The tokenizer in a folder, or in a repository of the Hugging Face Hub such as `adept/persimmon-8b-chat`.

        `revision`, `token`, `cache_dir` and `local_files_only` are for the hub, as in `huggingface_hub`. `options` are
        those of the constructor, and go before what tokenizer_config.json says.

        CheckpointNotFoundError (a FileNotFoundError) where there is none, or no tokenizer in it.
        """
        folder = find_folder(
            path_or_id, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        return cls(folder / VOCAB_FILE, **(read_config(folder / CONFIG_FILE) | options))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write tokenizer.model, tokenizer_config.json and tokenizer.json to `folder`, and return their paths.

        transformers reads the last two, through AutoTokenizer or PreTrainedTokenizerFast, to the same ids. Where
        tokenizer.json cannot say what the model does (see `tokenizer_json`) it is left out, with a warning.
        """
        proto = self.sp_model.serialized_model_proto()
        bos_id = self.bos_token_id if self.add_bos_token else None
        eos_id = self.eos_token_id if self.add_eos_token else None
        try:
            fast = tokenizer_json(read_model(proto), self.all_special_ids, bos_id, eos_id)
        except ValueError as error:
            warnings.warn(f"no {FAST_FILE} was written: {error}", stacklevel=2)
            fast = None
        config = {key: getattr(self, key) for key in (*CONFIG_KEYS, "unk_token")}
        return write_files(Path(folder).expanduser(), proto, config, fast)

    # --------------------------------------------------------------------------------------------------- text to ids

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        parse_special: bool = False,
        padding: bool | str = False,
        padding_side: str | None = None,
        truncation: bool = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_offsets_mapping: bool = False,
    ) -> BatchEncoding:
        """Encode one text, or a list of them into one row each.

        - `add_special_tokens`: bos before and eos after each text, as `add_bos_token` and `add_eos_token` say.
        - `parse_special`: take `|ENDOFTEXT|` and the like in the text for the special token; each stretch between them
          is then encoded as a text of its own. Otherwise they are spelt out in ordinary pieces.
        - `padding`: `True` or `"longest"` pads to the longest row, `"max_length"` to `max_length`; on `padding_side`,
          the tokenizer's own where none is given.
        - `truncation`: cut the text on its right so that a row with its bos and eos has at most `max_length`.
        - `return_tensors="pt"`: int64 tensors of shape (batch, position), batch 1 for one text.
        - `return_offsets_mapping`: for each token the characters `text[start:end]` that it stands for; the byte pieces
          of one character share its span, and a piece that stands for no character has an empty one.

        `max_length` defaults to `model_max_length`. ValueError where a row cannot be made as asked, or where a text
        holds half of a surrogate pair, which is no character.
        """
        if return_tensors not in (None, "pt"):
            raise ValueError(f"return_tensors={return_tensors!r}: expected 'pt' for torch tensors, or None for lists")
        if max_length is not None and not truncation and padding != "max_length":
            raise ValueError(f"max_length={max_length} does nothing alone: add truncation=True or padding='max_length'")
        several = isinstance(text, list | tuple)
        texts: Sequence[Any] = text if several else [text]  # cutting refuses what is no str
        before = [self.bos_token_id] if add_special_tokens and self.add_bos_token and self.bos_token else []
        after = [self.eos_token_id] if add_special_tokens and self.add_eos_token and self.eos_token else []
        limit = self.model_max_length if max_length is None else max_length
        room = room_for_text(limit, len(before) + len(after)) if truncation else None
        special = self.special_tokens
        cut = [self._segmenter.segment(one, special, parse_special, return_offsets_mapping) for one in texts]
        encoding = BatchEncoding(input_ids=[before + ids[:room] + after for ids, _ in cut])
        encoding["attention_mask"] = [[1] * len(row) for row in encoding.input_ids]
        if return_offsets_mapping:
            nowhere = [(0, 0)]
            encoding["offset_mapping"] = [
                nowhere * len(before) + offsets[:room] + nowhere * len(after) for _, offsets in cut
            ]
        encoding = pad(encoding, padding, limit, padding_side or self.padding_side, self.pad_token_id)
        if return_tensors == "pt":
            return to_tensors(encoding)
        return encoding if several else BatchEncoding({key: rows[0] for key, rows in encoding.items()})

    def encode(self, text: str, **options: Any) -> list[int] | Int[Tensor, "batch position"]:
        """The ids of one text; `options` as in calling."""
        ids: list[int] | Int[Tensor, "batch position"] = self(text, **options).input_ids
        return ids

    def apply_chat_template(
        self,
        messages: str | Sequence[Mapping[str, str]],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = True,
        return_dict: bool = False,
        **options: Any,
    ) -> str | list[int] | Int[Tensor, "batch position"] | BatchEncoding:
        """A prompt, or messages by turns of human and adept, in Adept's format (see `render_chat`).

        Its ids; with `return_dict` the whole encoding; with `tokenize=False` the text itself. `options` as in calling.
        """
        text = render_chat(messages, add_generation_prompt)
        if not tokenize:
            return text
        encoding = self(text, **options)
        return encoding if return_dict else encoding.input_ids

    # --------------------------------------------------------------------------------------------------- ids to text

    def decode(
        self, token_ids: int | TokenIds, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str:
        """The text of some ids, bytes that make no character as U+FFFD each.

        Special tokens are left out with `skip_special_tokens`, else shown as they are written, and each stretch between
        them is a text of its own, so that this inverts encoding with `parse_special`.
        `clean_up_tokenization_spaces` also takes out the spaces before English punctuation and contractions.

        ValueError for an id outside the vocabulary.
        """
        special = set(self.special_tokens.values())
        texts: list[str] = []
        stretch: list[int] = []
        for index in self._checked(token_ids):
            if index not in special:
                stretch.append(index)
            elif not skip_special_tokens:
                texts += [self.sp_model.decode(stretch), self.sp_model.id_to_piece(index)]
                stretch = []
        text = "".join([*texts, self.sp_model.decode(stretch)])
        for spaced in SPACED_OUT if clean_up_tokenization_spaces else ():
            text = text.replace(spaced, spaced.strip())
        return text

    def batch_decode(self, sequences: Iterable[TokenIds] | Int[Tensor, "batch position"], **options: Any) -> list[str]:
        """`decode` of every row, with its options."""
        return [self.decode(row, **options) for row in sequences]
