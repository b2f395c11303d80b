"""Functions that stand on the way of an activation: from the module that makes it, or to the one that is given it.

torch calls a module's hooks for whoever runs the module. Ours belong to the thread that opened them: what another
thread computes on the same model at the same time passes by, neither seen nor changed.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from threading import get_ident
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from persimmon_lab.trace.names import Site, first_tensor

Passing = Callable[[Tensor | None], Tensor | None]  # None for what is no tensor of floats


def of_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """The hook, for passes of the thread that asks for it; it leaves what others compute as it is."""
    owner = get_ident()

    @wraps(hook)
    def called(*given: Any) -> Any:
        return hook(*given) if get_ident() == owner else None

    return called


class _Hook:
    """What torch calls: hands the first tensor to `function` and puts in its place what comes back."""

    def __init__(self, site: Site, function: Passing, is_last: bool) -> None:
        self.is_input = site.is_input
        self.function = function
        self.is_last = is_last
        self.owner = get_ident()

    def __call__(self, _module: nn.Module, *given: Any) -> Any:
        # In the moment of registering or removing, another thread's pass may call this without the named arguments.
        if get_ident() != self.owner:
            return None
        positional, named, *made = given
        if not self.is_input:
            return self._replaced(made[0])
        if positional:
            return (self._replaced(positional[0]), *positional[1:]), named
        # transformers' layers call their parts by keyword.
        name = next(iter(named), None)
        return positional, named if name is None else named | {name: self._replaced(named[name])}

    def _replaced(self, given: Any) -> Any:
        before = first_tensor(given)
        after = self.function(before)
        if after is before:
            return given
        return (after, *given[1:]) if isinstance(given, tuple) else after


@contextmanager
def hooked(functions: Iterable[tuple[Site, Passing]], is_last: bool = False) -> Iterator[None]:
    """Let the activations at these places go through these functions, in this order, and never after the block.

    Functions of an inner block come after those of an outer one. Those that come last do so in any case: a capture
    sees what the patches made, whichever of the two was opened first.
    """
    with ExitStack() as stack:
        for site, function in functions:
            stack.callback(_register(site, _Hook(site, function, is_last)).remove)
        yield


def _register(site: Site, hook: _Hook) -> RemovableHandle:
    module = site.module
    hooks: Any = module._forward_pre_hooks if site.is_input else module._forward_hooks
    register = module.register_forward_pre_hook if site.is_input else module.register_forward_hook
    handle: RemovableHandle = register(hook, with_kwargs=True)
    if not hook.is_last:
        # torch calls hooks in the order of this OrderedDict and has no method that keeps one at its end.
        for key in [key for key, other in hooks.items() if getattr(other, "is_last", False)]:
            hooks.move_to_end(key)
    return handle
