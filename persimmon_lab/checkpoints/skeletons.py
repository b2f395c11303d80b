"""A model before its weights: built without drawing any, and which of its modules a tensor is in."""

from collections.abc import Iterable

import torch
from torch.overrides import TorchFunctionMode


class NoDraws(TorchFunctionMode):
    """Build modules without drawing their first weights: on meta there are no numbers, but torch loads its compiler
    (a second, 76 MB) to draw normal ones all the same."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.normal_ or getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)


def module_of(tensor: str, modules: Iterable[str]) -> str:
    """The innermost of some modules that a tensor is in; the whole model is "". ValueError where it is in none."""
    within = [module for module in modules if module == "" or tensor.startswith(f"{module}.")]
    if not within:
        raise ValueError(f"no device is given for {tensor}; the modules that have one are {', '.join(modules)}")
    return max(within, key=len)
