"""A model before its weights: built without drawing any, and which of its modules a tensor is in."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from persimmon_lab.config import PersimmonConfig

Model = TypeVar("Model", bound=nn.Module)


class NoDraws(TorchFunctionMode):
    """Build modules without drawing their first weights: on meta there are no numbers, but torch loads its compiler
    (a second, 76 MB) to draw normal ones all the same."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.Tensor.normal_ or getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def skeleton(model_class: type[Model], config: PersimmonConfig) -> Model:
    """A model on the meta device: every module and every shape, and no number."""
    with torch.device("meta"), NoDraws():
        return model_class(config)


def shapes_in_file(model: nn.Module, tied: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """What a model stores, in its order: the shapes of all its tensors but those that are tied to another."""
    tied = set(tied)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}


def module_of(tensor: str, modules: Iterable[str]) -> str:
    """The innermost of some modules that a tensor is in; the whole model is "". ValueError where it is in none."""
    within = [module for module in modules if module == "" or tensor.startswith(f"{module}.")]
    if not within:
        raise ValueError(f"no device is given for {tensor}; the modules that have one are {', '.join(modules)}")
    return max(within, key=len)
