"""Gradients of activations: how much one number that the model says would change with what it thought on the way."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from persimmon_lab.trace.names import Activation


@contextmanager
def marking() -> Iterator[Callable[[Activation], None]]:
    """Hands out what makes a tensor one that gradients are kept of, and sees to it that none stays so afterwards.

    Only tensors before which nothing needs gradients are marked: where all weights are frozen, or a patch put in a
    constant. The mark is on the tensor itself, not on a copy, because a norm and the sum after it read one residual
    stream, and its gradient is the sum over both.
    """
    marked: list[Activation] = []

    def mark(tensor: Activation) -> None:
        if not tensor.requires_grad:
            marked.append(tensor.requires_grad_())

    try:
        yield mark
    finally:
        for tensor in marked:
            tensor.requires_grad_(False)


def gradients(number: Any, of: Mapping[str, Activation]) -> dict[str, Activation]:
    """d number / d activation for each name; 0 where the number does not depend on it. Parameters keep their `.grad`.

    Raises TypeError for what is no tensor and ValueError for more than one number.
    """
    if not isinstance(number, Tensor):
        raise TypeError(f"gradient_of returned {type(number).__name__}; return a tensor, as output.logits[0, -1, 7]")
    if number.numel() != 1:
        raise ValueError(f"gradient_of returned the shape {tuple(number.shape)}; return one number, a sum for example")
    if not number.requires_grad:
        raise ValueError("what gradient_of returned depends on none of the activations; compute it from its argument")
    slopes = torch.autograd.grad(number.sum(), list(of.values()), allow_unused=True)
    return {
        name: torch.zeros_like(tensor) if slope is None else slope
        for (name, tensor), slope in zip(of.items(), slopes, strict=True)
    }


def without_history(output: Any) -> Any:
    """A model's output whose tensors hold on to no graph."""
    if isinstance(output, Tensor):
        return output.detach()
    if isinstance(output, tuple):
        return tuple(map(without_history, output))
    if dataclasses.is_dataclass(output) and not isinstance(output, type):  # this package's outputs, and transformers'
        fields = (field.name for field in dataclasses.fields(output))
        return dataclasses.replace(output, **{name: without_history(getattr(output, name)) for name in fields})
    return output
