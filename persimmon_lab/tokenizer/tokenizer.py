"""Text to token ids and back: sentencepiece, with the conventions of the models that Adept released.

sentencepiece is the reference: an ordinary text gets exactly the ids that it gives, and ids exactly its text. What is
added here goes around it: special tokens, batches, offsets, the chat format, and files that other libraries read.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, overload

from jaxtyping import Int
from torch import Tensor

from persimmon_lab.atomic import place_for
from persimmon_lab.elsewhere import no_keywords_left
from persimmon_lab.tokenizer.batch_encoding import (
    BatchEncoding,
    check_tensors,
    is_cut,
    pad,
    padded_length,
    room_for_text,
    to_tensors,
)
from persimmon_lab.tokenizer.chat import render_chat
from persimmon_lab.tokenizer.files import (
    CONFIG_FILE,
    CONFIG_KEYS,
    FAST_FILE,
    checked,
    find_vocabulary,
    read_config,
    read_json,
    warn_of_unfollowed,
    write_files,
)
from persimmon_lab.tokenizer.from_tokenizer_json import ends_of_a_text, load_vocabulary
from persimmon_lab.tokenizer.instead import (
    CALL,
    CALL_IGNORED,
    CHAT_ARGUMENTS,
    CONSTRUCTOR,
    LOADING,
    LOADING_IGNORED,
    SAVING,
    SAVING_IGNORED,
    TOKENIZE,
)
from persimmon_lab.tokenizer.segmentation import Segmenter
from persimmon_lab.tokenizer.sentencepiece_model import read_model
from persimmon_lab.tokenizer.tokenizer_json import tokenizer_json
from persimmon_lab.tokenizer.transformers_names import TransformersNames
from persimmon_lab.tokenizer.vocabulary import TokenIds

Messages = str | Sequence[Mapping[str, str]]


class PersimmonTokenizer(TransformersNames):
    """A sentencepiece model with special tokens; `sp_model` is the sentencepiece processor itself.

    `bos_token` and `eos_token` default to `|ENDOFTEXT|` where the vocabulary has it, else to the `<s>` and `</s>` of
    the model; `pad_token` defaults to `eos_token`. Padding goes to the left unless told otherwise, as generation needs.

    Special tokens are matched in a text only on request (`parse_special=True`): what a user types stays plain text,
    even `|ENDOFTEXT|`, which sentencepiece alone would turn into the id that ends a document.

    What transformers 4.37.2's tokenizers offer is here under the same names, or refused with what to use instead.
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
        clean_up_tokenization_spaces: bool = False,
        **refused: Any,
    ) -> None:
        no_keywords_left("PersimmonTokenizer", refused, CONSTRUCTOR)
        options = checked(
            {
                "bos_token": bos_token,
                "eos_token": eos_token,
                "pad_token": pad_token,
                "add_bos_token": add_bos_token,
                "add_eos_token": add_eos_token,
                "padding_side": padding_side,
                "model_max_length": model_max_length,
                "clean_up_tokenization_spaces": clean_up_tokenization_spaces,
            },
            "PersimmonTokenizer()",
        )
        tokens = (options.pop(name) for name in ("bos_token", "eos_token", "pad_token"))
        super().__init__(load_vocabulary(Path(vocab_file).expanduser()), *tokens)
        self.add_bos_token: bool = options["add_bos_token"]
        self.add_eos_token: bool = options["add_eos_token"]
        self.padding_side: str = options["padding_side"]
        self.model_max_length: int | None = options["model_max_length"]
        self.clean_up_tokenization_spaces: bool = options["clean_up_tokenization_spaces"]
        self.name_or_path = ""
        self._segmenter = Segmenter(self.sp_model)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        resume_download: bool = False,
        **options: Any,
    ) -> Self:
        """The tokenizer in a folder, or in a repository of the Hugging Face Hub such as `adept/persimmon-8b-chat`.

        `revision`, `token`, `cache_dir` and `local_files_only` are for the hub, as in `huggingface_hub`. `options` are
        those of the constructor, and go before what tokenizer_config.json says. Where there is no tokenizer.model, as
        in what transformers saved, tokenizer.json is read, to the same ids. What the files ask for besides, and is not
        done here, is told in a warning.

        CheckpointNotFoundError (a FileNotFoundError) where there is none, or no tokenizer in it.
        """
        named: dict[str, Any] = {name: options.pop(name) for name in LOADING if name in options}
        named |= {"force_download": force_download, "resume_download": resume_download}
        no_keywords_left("from_pretrained", named, LOADING, LOADING_IGNORED)
        vocab_file = find_vocabulary(
            pretrained_model_name_or_path,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        settings = read_config(vocab_file.with_name(CONFIG_FILE)) | options
        if vocab_file.name == FAST_FILE:
            settings = ends_of_a_text(read_json(vocab_file), str(vocab_file)) | settings
        tokenizer = cls(vocab_file, **settings)
        warn_of_unfollowed(vocab_file.parent, len(tokenizer))
        tokenizer.name_or_path = str(pretrained_model_name_or_path)
        return tokenizer

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], legacy_format: bool | None = None, **refused: Any
    ) -> list[Path]:
        """Write tokenizer.model, tokenizer_config.json and tokenizer.json to a folder, and return their paths.

        transformers reads the last two, through AutoTokenizer or PreTrainedTokenizerFast, to the same ids. Where
        tokenizer.json cannot say what the model does (see `tokenizer_json`) it is left out, with a warning.
        """
        no_keywords_left("save_pretrained", {**refused, "legacy_format": legacy_format}, SAVING, SAVING_IGNORED)
        folder = place_for(save_directory)
        proto = self.sp_model.serialized_model_proto()
        bos_id = self.bos_token_id if self.add_bos_token else None
        eos_id = self.eos_token_id if self.add_eos_token else None
        try:
            fast = tokenizer_json(read_model(proto), self.all_special_ids, bos_id, eos_id)
        except ValueError as error:
            warnings.warn(f"no {FAST_FILE} was written: {error}", stacklevel=2)
            fast = None
        config = {key: getattr(self, key) for key in (*CONFIG_KEYS, "unk_token")}
        return write_files(folder, proto, config, fast)

    # --------------------------------------------------------------------------------------------------- text to ids

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        parse_special: bool = False,
        padding: bool | str = False,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        return_offsets_mapping: bool = False,
        verbose: bool | None = None,
        **refused: Any,
    ) -> BatchEncoding:
        """Encode one text, or a list of them into one row each.

        - `add_special_tokens`: bos before and eos after each text, as `add_bos_token` and `add_eos_token` say.
        - `parse_special`: take `|ENDOFTEXT|` and the like in the text for the special token; each stretch between them
          is then encoded as a text of its own. Otherwise they are spelt out in ordinary pieces.
        - `padding`: `True` or `"longest"` pads to the longest row, `"max_length"` to `max_length`; on `padding_side`,
          the tokenizer's own where none is given; the length is then rounded up to a multiple of `pad_to_multiple_of`.
        - `truncation`: cut the text on its right so that a row with its bos and eos has at most `max_length`.
        - `return_tensors="pt"`: int64 tensors of shape (batch, position), batch 1 for one text.
        - `return_attention_mask=False`: no mask.
        - `return_offsets_mapping`: for each token the characters `text[start:end]` that it stands for; the byte pieces
          of one character share its span, and a piece that stands for no character has an empty one.

        `max_length` defaults to `model_max_length`. ValueError where a row cannot be made as asked, or where a text
        holds half of a surrogate pair, which is no character.
        """
        no_keywords_left("a call of the tokenizer", {**refused, "verbose": verbose}, CALL, CALL_IGNORED)
        check_tensors(return_tensors)
        cutting = is_cut(truncation)
        if max_length is not None and not cutting and padding != "max_length":
            raise ValueError(f"max_length={max_length} does nothing alone: add truncation=True or padding='max_length'")
        several = isinstance(text, list | tuple)
        texts: Sequence[Any] = text if several else [text]  # cutting refuses what is no str
        before, after = self.special_tokens_around() if add_special_tokens else ([], [])
        limit = self.model_max_length if max_length is None else max_length
        room = room_for_text(limit, len(before) + len(after)) if cutting else None
        special = self.special_tokens
        cut = [self._segmenter.segment(one, special, parse_special, return_offsets_mapping) for one in texts]
        encoding = BatchEncoding(input_ids=[before + ids[:room] + after for ids, _ in cut])
        if return_attention_mask is not False:
            encoding["attention_mask"] = [[1] * len(row) for row in encoding.input_ids]
        if return_offsets_mapping:
            nowhere = [(0, 0)]
            encoding["offset_mapping"] = [
                nowhere * len(before) + offsets[:room] + nowhere * len(after) for _, offsets in cut
            ]
        length = padded_length(list(map(len, encoding.input_ids)), padding, limit, pad_to_multiple_of)
        encoding = pad(encoding, length, padding_side or self.padding_side, self.pad_token_id)
        if return_tensors == "pt":
            return to_tensors(encoding)
        return encoding if several else BatchEncoding({key: rows[0] for key, rows in encoding.items()})

    def encode(self, text: str, **options: Any) -> list[int] | Int[Tensor, "batch position"]:
        """The ids of one text; `options` as in calling."""
        ids: list[int] | Int[Tensor, "batch position"] = self(text, **options).input_ids
        return ids

    def tokenize(self, text: str, *, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """The pieces of one text, as they stand in the vocabulary; `options` as in calling."""
        no_keywords_left("tokenize", {name: options.pop(name) for name in TOKENIZE if name in options}, TOKENIZE)
        ids: list[int] = self(text, add_special_tokens=add_special_tokens, **options).input_ids
        return self.convert_ids_to_tokens(ids)

    @overload
    def apply_chat_template(
        self, conversation: Messages, *, tokenize: Literal[False], add_generation_prompt: bool = True, **options: Any
    ) -> str: ...

    @overload
    def apply_chat_template(
        self, conversation: Messages, *, return_dict: Literal[True], add_generation_prompt: bool = True, **options: Any
    ) -> BatchEncoding: ...

    @overload
    def apply_chat_template(
        self, conversation: Messages, *, return_tensors: str, add_generation_prompt: bool = True, **options: Any
    ) -> Int[Tensor, "batch position"]: ...

    @overload
    def apply_chat_template(
        self, conversation: Messages, *, add_generation_prompt: bool = True, **options: Any
    ) -> list[int]: ...

    def apply_chat_template(
        self,
        conversation: Messages,
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = True,
        return_dict: bool = False,
        **options: Any,
    ) -> str | list[int] | Int[Tensor, "batch position"] | BatchEncoding:
        """A prompt, or messages by turns of human and adept, in Adept's format (see `render_chat`).

        Its ids; with `return_dict` the whole encoding; with `tokenize=False` the text itself. `options` as in calling.
        """
        named = {name: options.pop(name) for name in CHAT_ARGUMENTS if name in options}
        no_keywords_left("apply_chat_template", named, CHAT_ARGUMENTS)
        text = render_chat(conversation, add_generation_prompt)
        if not tokenize:
            return text
        encoding = self(text, **options)
        return encoding if return_dict else encoding.input_ids

    # --------------------------------------------------------------------------------------------------- ids to text

    def decode(
        self,
        token_ids: int | TokenIds,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """The text of some ids; bytes that make no character, and ids beyond the vocabulary, as U+FFFD each.

        Special tokens are left out with `skip_special_tokens`, else shown as they are written, and each stretch between
        them is a text of its own, so that this inverts encoding with `parse_special`.
        `clean_up_tokenization_spaces` also takes out the spaces before English punctuation and contractions; None means
        as the tokenizer's own setting says, which is not to.

        ValueError for a negative id.
        """
        special = set(self.special_tokens.values())
        texts: list[str] = []
        stretch: list[int] = []
        for index in self._checked(token_ids):
            if index not in special:
                stretch.append(index)
            elif not skip_special_tokens:
                texts += [self.text_of(stretch), self.sp_model.id_to_piece(index)]
                stretch = []
        text = "".join([*texts, self.text_of(stretch)])
        if clean_up_tokenization_spaces is None:
            clean_up_tokenization_spaces = self.clean_up_tokenization_spaces
        return self.clean_up_tokenization(text) if clean_up_tokenization_spaces else text

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of pieces, special tokens as they are written."""
        return self.decode(self.convert_tokens_to_ids(tokens))

    def batch_decode(self, sequences: Iterable[TokenIds] | Int[Tensor, "batch position"], **options: Any) -> list[str]:
        """`decode` of every row, with its options."""
        return [self.decode(row, **options) for row in sequences]
