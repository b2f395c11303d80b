"""Activations out: what modules make while a model runs, by name."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.trace.eager import eager_attention, needs_eager
from persimmon_lab.trace.names import Activation, first_tensor, matches, sites


class Trace(Mapping[str, Tensor]):
    """What one forward pass made, by name, in the order of computing."""

    def __init__(self, output: Any = None):
        self.output = output
        self.gradients: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name in self._kept:
            return self._kept[name]
        found = [each for each in self._kept if matches(each, [name])]
        if len(found) == 1:
            return self._kept[found[0]]
        raise KeyError(f"{name!r} is not in this trace")

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def names(self) -> list[str]:
        return list(self._kept)

    def stacked(self, pattern: str) -> Activation:
        """Every layer's tensor that matches, along a new first axis."""
        return torch.stack([self._kept[name] for name in self._kept if matches(name, [pattern])])


@contextmanager
def _keeping(model: nn.Module, only, heads, positions, differentiable: bool = False) -> Iterator[list]:
    chosen = sites(model, only)
    steps, whole = [], {}

    def keep(name: str, tensor: Tensor):
        if differentiable:
            tensor = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
            whole[name] = tensor
        kept = tensor.detach()
        if kept.ndim == 4 and heads is not None:
            kept = kept[:, list(heads)]
        if positions is not None:
            kept = kept[..., list(positions), :]
        steps[-1]._kept[name] = kept
        return tensor

    def hook(site):
        def output(_module, _given, made):
            if (tensor := first_tensor(made)) is None:
                return made
            seen = keep(site.name, tensor)
            return (seen, *made[1:]) if isinstance(made, tuple) else seen

        def given(_module, positional, named):
            return (keep(site.name, positional[0]), *positional[1:]), named

        if site.is_input:
            return site.module.register_forward_pre_hook(given, with_kwargs=True)
        return site.module.register_forward_hook(output)

    def begin(*_):
        steps.append(Trace())

    def end(_module, _given, made):
        steps[-1].output = made

    with ExitStack() as stack:
        stack.enter_context(eager_attention(model, needs_eager(model, chosen)))
        stack.callback(model.register_forward_pre_hook(begin).remove)
        for site in chosen:
            stack.callback(hook(site).remove)
        stack.callback(model.register_forward_hook(end).remove)
        yield steps, whole


def capture(
    model: nn.Module,
    ids: Int[Tensor, "batch position"] | None = None,
    *,
    only: Iterable[str] | None = None,
    heads: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    gradient_of: Callable[[Any], Tensor] | None = None,
    **forward_arguments: Any,
) -> Trace:
    """Run the model once and keep what the named modules make."""
    arguments = {"use_cache": False} | forward_arguments
    with (
        torch.set_grad_enabled(gradient_of is not None),
        _keeping(model, only, heads, positions, gradient_of is not None) as (steps, whole),
    ):
        model(ids, **arguments)
        trace = steps[-1]
        if gradient_of is not None:
            gradients = torch.autograd.grad(gradient_of(trace.output), list(whole.values()), allow_unused=True)
            trace.gradients = dict(zip(whole, gradients, strict=True))
    return trace


@contextmanager
def capturing(
    model: nn.Module,
    *,
    only: Iterable[str] | None = None,
    heads: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
) -> Iterator[list[Trace]]:
    """Within the block, one Trace per forward pass."""
    with _keeping(model, only, heads, positions) as (steps, _):
        yield steps
