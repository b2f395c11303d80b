"""What may be asked of the values of an input, and when: tensors without values have none to ask."""

import torch
from jaxtyping import Int
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
