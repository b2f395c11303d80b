"""What one forward pass made, by name."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from persimmon_lab.anatomy import Axes, any_layer
from persimmon_lab.trace.names import Activation, matches

SHOWN = 8  # activations that a trace names when it shows itself


class Trace(Mapping[str, Tensor]):
    """The activations of one forward pass, by full name, in the order in which they were made.

    A name may be shortened to its end, `trace["layers.3.mlp"]`, where one activation alone has it. `output` is what the
    model returned; `gradients` has the names too, if they were asked for; `axes` says what each axis means, for this
    package's models.
    """

    def __init__(self) -> None:
        self.output: Any = None
        self.gradients: dict[str, Tensor] = {}
        self.axes: dict[str, Axes] = {}
        self._kept: dict[str, Tensor] = {}

    def keep(self, name: str, tensor: Activation, axes: Axes | None = None) -> None:
        self._kept.pop(name, None)  # a module that runs twice counts with its last run
        self._kept[name] = tensor
        if axes is not None:
            self.axes[name] = axes

    def __getitem__(self, name: str) -> Tensor:
        if name in self._kept:
            return self._kept[name]
        names = self.matching(name)
        if len(names) == 1:
            return self._kept[names[0]]
        if names:
            raise KeyError(f"{name!r} is the end of {len(names)} names, {names[0]!r} first; say which, or use .stacked")
        raise KeyError(f"{name!r} was not captured; there are {', '.join(self._kept) or 'no activations'}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        lines = [f"  {name} {tuple(tensor.shape)}" for name, tensor in self._kept.items()]
        if len(lines) > SHOWN:
            lines = [*lines[: SHOWN - 1], f"  … and {len(lines) - SHOWN + 1} more; .names has all"]
        return "\n".join([f"Trace of {len(self)} activations, {self.nbytes:,} bytes", *lines])

    @property
    def names(self) -> list[str]:
        return list(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all activations; two names of one tensor count twice."""
        return sum(tensor.nbytes for tensor in self._kept.values())

    def matching(self, pattern: str) -> list[str]:
        """The names that a pattern matches, as in `only`."""
        return [name for name in self._kept if matches(name, [pattern])]

    def stacked(self, pattern: str) -> Activation:
        """Every layer's tensor of one kind along a new first axis: (layer, ...) in layer order.

        Raises KeyError where nothing matches, and ValueError where two kinds of module do.
        """
        names = self.matching(pattern)
        if not names:
            raise KeyError(f"nothing that was captured matches {pattern!r}; there are {', '.join(self._kept)}")
        kinds = list(dict.fromkeys(map(any_layer, names)))
        if len(kinds) > 1:
            raise ValueError(f"{pattern!r} matches {' and '.join(kinds)}; stack one of them")
        return torch.stack([self._kept[name] for name in names])
