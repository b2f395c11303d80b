"""What transformers' classes have and ours do not: asking for it says what to use instead."""

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar


class Elsewhere:
    """A mixin: a name that is looked up in vain and stands in `elsewhere` is refused with what to use.

    The refusal is an AttributeError, so `hasattr` says no and `getattr` takes its default. Names that exist never come
    here, but for the parts of an `nn.Module`; instances keep nothing of it, so they copy and pickle as before.
    """

    elsewhere: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:  # which knows better what a class has, by its own `__getattr__` or without one

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)  # an nn.Module finds its parameters and modules by it
            except AttributeError:
                told = f"{type(self).__name__!r} object has no attribute {name!r}"
                if name in type(self).elsewhere:
                    told = f"{type(self).__name__} has no {name}: use {type(self).elsewhere[name]}"
                raise AttributeError(told) from None


def refuse(function: str, given: Iterable[str], elsewhere: Mapping[str, str]) -> None:
    """Raise TypeError for the arguments among `given` that stand in `elsewhere`, with what to use instead of each."""
    if words := [f"{name} (use {elsewhere[name]})" for name in given if name in elsewhere]:
        raise TypeError(f"{function} does not take {', '.join(words)}")


def ignore(function: str, given: Iterable[str], reasons: Mapping[str, str], stacklevel: int = 3) -> None:
    """Warn of the arguments among `given` that stand in `reasons`: taken, without effect."""
    if words := [f"{name} ({reasons[name]})" for name in given if name in reasons]:
        warnings.warn(f"{function} ignores {', '.join(words)}", stacklevel=stacklevel)


def require_own_inputs(model: object) -> None:
    """Raise NotImplementedError for a model whose `prepare_inputs_for_generation` was replaced, as peft's prompt tuning
    does for a while: who does not call it would leave out what it adds."""
    name = "prepare_inputs_for_generation"
    own = getattr(model, "__dict__", {}).get(name)
    if own is not None and getattr(own, "__func__", own) is not getattr(type(model), name, None):
        raise NotImplementedError(
            f"{name} of this {type(model).__name__} was replaced, and generate() does not call it: what it adds, such "
            "as the virtual tokens of peft's prompt tuning, would be left out. Give them as inputs_embeds, or take an "
            "adapter that changes weights, such as LoRA"
        )
