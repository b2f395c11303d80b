"""Which numbers of a tensor a computation reads, seen from the operations that torch runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from persimmon_lab.checks.marking import Case, attempt, invoke

# They take some numbers out and leave the others unread.
SELECTIONS = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_select.default,
    torch.ops.aten.gather.default,
    torch.ops.aten.take.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.embedding.default,
}


class Reads(TorchDispatchMode):
    """While it is on, `broken` becomes True once an operation reads a number of `tensor` where `forbidden` is True.

    A view reads nothing, and a selection what it selects. An operation with a sparse operand knows better than this
    what it reads, and is let through.
    """

    def __init__(self, tensor: Tensor, forbidden: Bool[Tensor, "..."]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types for it
        self.broken = False
        self.tensor = tensor  # kept, so that no other comes to lie where it lay
        self.forbidden = torch.empty_like(tensor, dtype=torch.bool).copy_(forbidden)

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        operands = list(_tensors((args, kwargs)))
        dense = all(operand.layout == torch.strided for operand in operands)
        if dense and any(self._is_part(operand) for operand in operands) and not getattr(func, "is_view", False):
            self.broken |= self._reads(func, args, kwargs, operands)
        return func(*args, **kwargs)

    def _is_part(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() == self.tensor.untyped_storage().data_ptr()

    def _marks(self, part: Tensor) -> Bool[Tensor, "..."]:
        """What is forbidden of a view of the tensor."""
        return self.forbidden.as_strided(part.shape, part.stride(), part.storage_offset())

    def _reads(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], operands: Sequence[Tensor]
    ) -> bool:
        if func in SELECTIONS and isinstance(args[0], Tensor) and self._is_part(args[0]):
            return bool(func(self._marks(args[0]), *args[1:], **kwargs).any())
        return any(bool(self._marks(operand).any()) for operand in operands if self._is_part(operand))


def _tensors(value: object) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)


def watched(
    answer: Callable[..., object],
    case: Case,
    name: str,
    forbidden: Bool[Tensor, "..."],
    shape: torch.Size,
) -> tuple[Tensor, bool]:
    """What an answer makes of a case, finite or not, and whether it read of `case[name]` what is forbidden."""
    broken = False

    def watch(**copies: Any) -> object:
        nonlocal broken
        with Reads(copies[name], forbidden) as reads:
            result = invoke(answer, **copies)
        broken |= reads.broken
        return result

    return attempt(watch, case, shape, finite=False), broken
