"""Activations in: functions that replace what modules make, for as long as a `with` block lasts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from persimmon_lab.trace.eager import eager_attention, needs_eager
from persimmon_lab.trace.names import Site, first_tensor, sites

Replacement = Callable[[Tensor], Tensor]


@contextmanager
def patch(model: nn.Module, functions: Mapping[str, Replacement]) -> Iterator[None]:
    """Within the block, every activation that a pattern names goes through its function, which returns the new one."""
    chosen = [(site, function) for pattern, function in functions.items() for site in sites(model, [pattern])]
    with ExitStack() as stack:
        stack.enter_context(eager_attention(model, needs_eager(model, [site for site, _ in chosen])))
        for site, function in chosen:
            stack.callback(_hook(site, function).remove)
        yield


def _hook(site: Site, function: Replacement):
    def output(_module: nn.Module, _given: Any, made: Any) -> Any:
        if (tensor := first_tensor(made)) is None:
            return made
        new = function(tensor.clone())
        return (new, *made[1:]) if isinstance(made, tuple) else new

    def given(_module: nn.Module, positional: tuple, named: dict) -> tuple[tuple, dict]:
        return (function(positional[0].clone()), *positional[1:]), named

    if site.is_input:
        return site.module.register_forward_pre_hook(given, with_kwargs=True)
    return site.module.register_forward_hook(output)
