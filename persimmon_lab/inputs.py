"""Checks of the values of inputs, left out where a tensor has none: on meta, and while a graph is traced."""

from typing import Any

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def has_values(tensor: Tensor) -> bool:
    """Whether a decision may look at the tensor's numbers.

    It may not on the meta device and in a FakeTensor, which have none, nor while torch.compile, torch.export or
    torch.jit.trace record the operations, which would keep the decision for other numbers.
    """
    is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # torch does not list it
    is_recorded = torch.compiler.is_compiling() or is_traced
    return not (is_recorded or tensor.is_meta or isinstance(tensor, FakeTensor))


def check_range(ids: Int[Tensor, "*shape"], limit: int, what: str) -> None:
    """Raises IndexError that names the first id outside 0 … limit - 1, where it stands and the limit.

    Skipped where there are no values to decide on.
    """
    if not has_values(ids) or ids.numel() == 0:
        return
    lowest, highest = ids.aminmax()
    if lowest.item() < 0 or highest.item() >= limit:  # numbers: a tensor of int8 would compare with a limit cut to it
        ids = ids.long()
        where = ((ids < 0) | (ids >= limit)).nonzero()[0].tolist()
        raise IndexError(f"{what} {ids[tuple(where)].item()} at index {where} is outside 0 … {limit - 1}")


def check_ids(input_ids: Any, hidden_size: int | None = None) -> None:
    """Raises TypeError for what is no tensor of whole numbers, and ValueError for one that is not (batch, position).
    With a `hidden_size` it looks at embeddings, (batch, position, hidden)."""
    name, axes = "input_ids", "(batch, position)"
    if hidden_size is not None:
        name, axes = "inputs_embeds", f"(batch, position, {hidden_size})"
    if not isinstance(input_ids, Tensor):
        raise TypeError(f"{name} is a {type(input_ids).__name__}; give a tensor {axes}")
    if hidden_size is None and input_ids.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"input_ids are {input_ids.dtype}; give the ids as whole numbers: input_ids.long()")
    if input_ids.ndim != axes.count(",") + 1 or (hidden_size is not None and input_ids.shape[-1] != hidden_size):
        raise ValueError(f"{name} has shape {tuple(input_ids.shape)}; give {axes}, {name}[None] of a single text")


def check_positions(position_ids: Any, batch: int, length: int, limit: int) -> None:
    """Raises TypeError for positions that are no whole numbers, ValueError for other shapes than (1 or batch, length),
    and IndexError for one outside 0 … limit - 1."""
    if not isinstance(position_ids, Tensor):
        raise TypeError(f"position_ids is a {type(position_ids).__name__}; give a tensor (batch, position)")
    if position_ids.dtype == torch.bool or position_ids.is_floating_point():
        raise TypeError(f"position_ids are {position_ids.dtype}; give the positions as whole numbers")
    if position_ids.ndim != 2 or position_ids.shape[0] not in (1, batch):
        raise ValueError(
            f"position_ids has shape {tuple(position_ids.shape)}; give (batch, position), here ({batch}, {length})"
        )
    check_range(position_ids, limit, "position id")
    if position_ids.shape[-1] != length:
        raise ValueError(f"position_ids name {position_ids.shape[-1]} positions, the input has {length}")


def check_padding(attention_mask: Any, batch: int, length: int, past: int) -> None:
    """Raises TypeError for a mask that is no tensor, and ValueError for another shape than (batch, length), of which
    the first `past` are in a cache."""
    if not isinstance(attention_mask, Tensor):
        raise TypeError(f"attention_mask is a {type(attention_mask).__name__}; give a tensor (batch, position)")
    if tuple(attention_mask.shape) != (batch, length):
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)}; expected (batch {batch}, positions {length}), of "
            f"which {past} are in the cache"
        )


def hides_nothing(attention_mask: Shaped[Tensor, "batch key"]) -> bool:
    """Whether a mask of 1 (text) and 0 (padding) has no 0; False where there are no values to ask.

    Raises ValueError for negative numbers and nan: those of an additive mask mean the opposite.
    """
    if not has_values(attention_mask):
        return False
    if attention_mask.dtype == torch.bool:
        return bool(attention_mask.all())
    is_mask, is_full = torch.stack([(attention_mask >= 0).all(), (attention_mask != 0).all()]).tolist()
    if not is_mask:
        raise ValueError(
            f"attention_mask holds {attention_mask.amin().item()}; give 1 for text and 0 for padding, not what is "
            "added to scores"
        )
    return bool(is_full)


def documents_of(position_ids: Int[Tensor, "batch position"]) -> Int[Tensor, "batch position"] | None:
    """Which document of its row each position belongs to, where a row packs several; None where none does.

    A row packs documents when its positions start at 0 and each is the one before plus one, or 0 again. Any other
    positions, and nothing but zeros, are one document, whatever they turn by. Source: transformers 5.23, which takes
    every step other than one for a new document.
    """
    starts = position_ids[:, 1:] == 0
    counts_on = position_ids[:, 1:] == position_ids[:, :-1] + 1
    is_packed = (
        (position_ids[:, :1] == 0) & (starts | counts_on).all(-1, keepdim=True) & counts_on.any(-1, keepdim=True)
    )
    starts = starts & is_packed
    if has_values(starts) and not bool(starts.any()):
        return None
    return torch.nn.functional.pad(starts, (1, 0)).cumsum(dim=-1)
