"""What calling a tokenizer gives back: ids and masks, as lists or as tensors, padded to one length."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from persimmon_lab.field_checks import is_whole, shown

# What stands at a place of padding; input_ids get the pad token.
FILLERS: dict[str, Any] = {
    "input_ids": None,
    "attention_mask": 0,
    "offset_mapping": (0, 0),
    "special_tokens_mask": 1,
    "token_type_ids": 0,
}


class BatchEncoding(dict[str, Any]):
    """A dict whose keys are attributes too: `encoding["input_ids"]`, `encoding.input_ids`, `model(**encoding)`.

    Keys: `input_ids` and `attention_mask` (1 for a token, 0 for padding); `offset_mapping` where it was asked for.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(f"this encoding has no {name!r}, only {list(self)}")
        return self[name]

    def to(self, device: str | int | torch.device) -> Self:
        """Move the tensors to `device` in place, as transformers does, and return this same encoding."""
        for key, value in self.items():
            if isinstance(value, torch.Tensor):
                self[key] = value.to(device)
        return self


def check_tensors(return_tensors: str | None) -> None:
    """ValueError for a kind of tensors that is not made here."""
    if return_tensors not in (None, "pt"):
        raise ValueError(f"return_tensors={return_tensors!r}: expected 'pt' for torch tensors, or None for lists")


def room_for_text(max_length: int | None, special_tokens: int) -> int:
    """How many tokens of a text fit beside its special tokens. ValueError where there is no limit, or no room."""
    if max_length is None:
        raise ValueError("truncation=True needs a max_length: neither the call nor the tokenizer has one")
    if not is_whole(max_length):
        raise ValueError(f"max_length={shown(max_length)}: expected a whole number of tokens")
    if max_length < special_tokens:
        raise ValueError(f"max_length={max_length} has no room for the {special_tokens} special tokens of a text")
    return max_length - special_tokens


def is_cut(truncation: bool | str | None) -> bool:
    """Whether `truncation` asks for it. ValueError for a word that nothing knows."""
    if truncation in (None, False, "do_not_truncate"):
        return False
    if truncation in (True, "longest_first", "only_first"):  # of one text a row they say the same
        return True
    raise ValueError(
        f"truncation={truncation!r}: expected True, 'longest_first', 'only_first', 'do_not_truncate' or False"
    )


def padded_length(
    lengths: list[int], padding: bool | str | None, max_length: int | None, multiple: int | None = None
) -> int | None:
    """The length that rows of these lengths are filled up to, a multiple of `multiple`; None where they stay.

    ValueError for a padding that is not one of `True`, `"longest"`, `"max_length"`, `False`, or that lacks a length.
    """
    if padding in (None, False, "do_not_pad"):
        return None
    if padding in (True, "longest"):
        target = max(lengths, default=0)
    elif padding == "max_length":
        if max_length is None:
            raise ValueError("padding='max_length' needs a max_length: neither the call nor the tokenizer has one")
        if not is_whole(max_length):
            raise ValueError(f"max_length={shown(max_length)}: expected a whole number of tokens")
        target = max_length
    else:
        raise ValueError(f"padding={padding!r}: expected True, 'longest', 'max_length' or False")
    if multiple is not None and not (is_whole(multiple) and multiple >= 1):
        raise ValueError(f"pad_to_multiple_of={multiple}: expected a whole number from 1 on")
    return -(-target // multiple) * multiple if multiple else target


def pad(encoding: BatchEncoding, target: int | None, side: str, pad_token_id: int | None) -> BatchEncoding:
    """The rows of an encoding filled up to `target`; longer ones stay as they are, and so do keys that have no filler.

    ValueError for a side that is none, or where a pad token is needed and there is none.
    """
    if target is None:
        return encoding
    lengths = [len(row) for row in encoding.input_ids]
    if side not in ("left", "right"):
        raise ValueError(f"padding_side={side!r}: expected 'left' or 'right'")
    if pad_token_id is None and any(length < target for length in lengths):
        raise ValueError("padding needs a pad token, and this tokenizer has neither a pad_token nor an eos_token")

    fillers = FILLERS | {"input_ids": pad_token_id}
    padded = BatchEncoding(encoding)
    for key in fillers.keys() & encoding.keys():
        filling = [[fillers[key]] * (target - length) for length in lengths]
        pairs = zip(filling, encoding[key]) if side == "left" else zip(encoding[key], filling)
        padded[key] = [first + second for first, second in pairs]
    return padded


def as_rows(features: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> BatchEncoding:
    """Encodings of one text each, or one encoding of several, as one whose values have a row for each text.

    Rows of ids and of what goes along with them become lists of ints, from lists, arrays or tensors; the values of
    other keys are left as they are. ValueError where there are no input_ids, or not as many rows of each.
    """
    if not isinstance(features, Mapping):
        if odd := [feature for feature in features if not isinstance(feature, Mapping)]:
            raise TypeError(f"expected encodings to pad, such as {{'input_ids': [1, 2]}}, not {odd[0]!r:.80}")
        keys = dict.fromkeys(key for feature in features for key in feature)
        for key in keys:
            if any(key not in feature for feature in features):
                raise ValueError(f"some of the {len(features)} encodings have {key!r} and some have not")
        features = {key: [feature[key] for feature in features] for key in keys} or {"input_ids": []}
    if "input_ids" not in features:
        raise ValueError(f"padding needs input_ids, and these encodings have {list(features)}")
    encoding = BatchEncoding(features)
    for key in FILLERS.keys() & encoding.keys():
        encoding[key] = [as_list(row) for row in as_list(encoding[key])]
        if [len(row) for row in encoding[key]] != [len(row) for row in encoding["input_ids"]]:
            raise ValueError(f"{key} and input_ids have rows of different lengths")
    return encoding


def is_row(ids: Any) -> bool:
    """Whether these are the ids of one text, not a row for each of several."""
    if isinstance(ids, np.ndarray | torch.Tensor):
        return ids.ndim == 1
    return isinstance(ids, list | tuple) and bool(ids) and not isinstance(ids[0], Iterable)


def as_list(values: Any) -> list[Any]:
    row: list[Any] = values.tolist() if isinstance(values, np.ndarray | torch.Tensor) else list(values)
    return row


def to_tensors(encoding: BatchEncoding) -> BatchEncoding:
    """Each key's rows as one tensor, int64 for ids and their like. ValueError where rows have several lengths."""
    lengths = {len(row) for row in encoding.input_ids}
    if len(lengths) > 1:
        raise ValueError(f"texts of {min(lengths)} to {max(lengths)} tokens do not make one tensor; pass padding=True")
    return BatchEncoding({key: as_tensor(key, rows) for key, rows in encoding.items()})


def as_tensor(key: str, rows: Any) -> torch.Tensor:
    if isinstance(rows, torch.Tensor):
        return rows
    if key in FILLERS:
        return torch.tensor(rows, dtype=torch.int64)  # an empty list would become float32 without the dtype
    try:
        if len(rows) and isinstance(rows[0], torch.Tensor):
            return torch.stack(list(rows))
        return torch.as_tensor(np.array(rows) if len(rows) and isinstance(rows[0], np.ndarray) else rows)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{key!r} does not make one tensor ({error}); pad it yourself, or leave it out: only "
            f"{', '.join(FILLERS)} are padded here"
        ) from None
