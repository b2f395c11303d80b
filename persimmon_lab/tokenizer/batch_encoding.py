"""What calling a tokenizer gives back: ids and masks, as lists or as tensors, padded to one length."""

from typing import Any, Self

import torch


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


def room_for_text(max_length: int | None, special_tokens: int) -> int:
    """How many tokens of a text fit beside its special tokens. ValueError where there is no limit, or no room."""
    if max_length is None:
        raise ValueError("truncation=True needs a max_length: neither the call nor the tokenizer has one")
    if max_length < special_tokens:
        raise ValueError(f"max_length={max_length} has no room for the {special_tokens} special tokens of a text")
    return max_length - special_tokens


def pad(
    encoding: BatchEncoding, padding: bool | str, max_length: int | None, side: str, pad_token_id: int | None
) -> BatchEncoding:
    """The rows of an encoding filled up as `padding` says; rows that are longer already stay as they are.

    ValueError for a padding that is not one of `True`, `"longest"`, `"max_length"`, `False`, or that lacks a length, a
    side or a pad token.
    """
    lengths = [len(row) for row in encoding.input_ids]
    if padding in (False, "do_not_pad"):
        return encoding
    if padding in (True, "longest"):
        target = max(lengths, default=0)
    elif padding == "max_length":
        if max_length is None:
            raise ValueError("padding='max_length' needs a max_length: neither the call nor the tokenizer has one")
        target = max_length
    else:
        raise ValueError(f"padding={padding!r}: expected True, 'longest', 'max_length' or False")
    if side not in ("left", "right"):
        raise ValueError(f"padding_side={side!r}: expected 'left' or 'right'")
    if pad_token_id is None and any(length < target for length in lengths):
        raise ValueError("padding needs a pad token, and this tokenizer has neither a pad_token nor an eos_token")

    fillers: dict[str, Any] = {"input_ids": pad_token_id, "attention_mask": 0, "offset_mapping": (0, 0)}
    padded = BatchEncoding()
    for key, rows in encoding.items():
        filling = [[fillers[key]] * (target - length) for length in lengths]
        pairs = zip(filling, rows) if side == "left" else zip(rows, filling)
        padded[key] = [first + second for first, second in pairs]
    return padded


def to_tensors(encoding: BatchEncoding) -> BatchEncoding:
    """Each list of rows as one int64 tensor. ValueError where the rows have several lengths."""
    lengths = {len(row) for row in encoding.input_ids}
    if len(lengths) > 1:
        raise ValueError(f"texts of {min(lengths)} to {max(lengths)} tokens do not make one tensor; pass padding=True")
    # An empty list would become float32 without the dtype.
    return BatchEncoding({key: torch.tensor(rows, dtype=torch.int64) for key, rows in encoding.items()})
