"""The part of an activation that is kept: some heads, some positions, or all of it; never more memory than it has."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from persimmon_lab.anatomy import Axes
from persimmon_lab.field_checks import is_whole
from persimmon_lab.trace.names import Activation

HEAD_AXES = ("head",)
POSITION_AXES = ("position", "query")  # of scores and pattern the rows: a query's row is kept with all its keys


@dataclass(frozen=True)
class Slices:
    """Which heads and positions to keep; None keeps all. What has no such axis is kept whole.

    Positions count within the pass, so that -1 is its last, also while generating with a cache.
    """

    heads: Sequence[int] | None = None
    positions: Sequence[int] | None = None

    def check(self, names: Mapping[str, Axes | None]) -> None:
        """Raises ValueError where heads or positions are asked for of activations of which none has any, TypeError for
        what are no lists of whole numbers."""
        for what, wanted, axes in (("heads", self.heads, HEAD_AXES), ("positions", self.positions, POSITION_AXES)):
            if wanted is not None and not (isinstance(wanted, Iterable) and all(map(is_whole, wanted))):
                raise TypeError(f"{what} is {wanted!r}; give whole numbers in a list, such as [0, -1]")
            if wanted is not None and not any(set(known or ()) & set(axes) for known in names.values()):
                raise ValueError(f"{what}={list(wanted)}, but no axis of {what} is known of {', '.join(names)}")
            if wanted is not None and not len(wanted):
                raise ValueError(f"{what} is empty; leave it out to keep all of them")

    def of_axis(self, axis: str) -> Sequence[int] | None:
        """The indices to keep along an axis, None for all."""
        return self.heads if axis in HEAD_AXES else self.positions if axis in POSITION_AXES else None

    def cut(self, sizes: Sequence[int], axes: Axes | None, name: str) -> tuple[int, ...]:
        """The shape that is left of a shape. Raises IndexError for a head or position that is not there."""
        left = list(sizes)
        for dimension, axis in enumerate(axes or ()):
            if (wanted := self.of_axis(axis)) is not None:
                size = sizes[dimension]
                if outside := [index for index in wanted if not -size <= index < size]:
                    raise IndexError(f"{name} has {size} on its axis {axis!r}; {outside} was asked for")
                left[dimension] = len(wanted)
        return tuple(left)

    def take(self, tensor: Activation, axes: Axes | None, name: str) -> Activation:
        """The part to keep, without gradient history, in memory of its own where it would hold on to more."""
        self.cut(tensor.shape, axes, name)
        kept = tensor.detach()
        for dimension, axis in enumerate(axes or ()):
            if (wanted := self.of_axis(axis)) is not None:
                indices = torch.tensor([index % kept.shape[dimension] for index in wanted], device=kept.device)
                kept = kept.index_select(dimension, indices.long())
        # A view, such as the value within the fused projection, would keep all that it is a view of.
        return kept if _owns_its_memory(kept) else kept.clone()


def _owns_its_memory(tensor: Tensor) -> bool:
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
