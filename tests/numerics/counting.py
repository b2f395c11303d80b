"""How many of the modules' outputs are alive: what a forward pass holds by itself, and what a walk makes it hold."""

import weakref
from collections.abc import Callable

import torch
from torch import nn

from persimmon_lab.numerics.lockstep import shared_paths


class Counter:
    """Counts, whenever a module of one of the models is done, how many of all their modules' outputs are alive."""

    def __init__(self, *models: nn.Module):
        self.references, self.counts = [], []
        for model in models:
            for path in shared_paths([model]):
                if path != "model":  # whose output is no tensor
                    model.get_submodule(path).register_forward_hook(self.count)

    def count(self, _module, _given, output):
        self.references.append(weakref.ref(output[0] if isinstance(output, tuple) else output))
        self.counts.append(self.alive())

    def alive(self) -> int:
        return sum(reference() is not None for reference in self.references)


@torch.no_grad()
def alive_by_itself(model: nn.Module, forward: Callable[[nn.Module], object]) -> list[int]:
    """The counts of a plain forward pass: the residual stream, query, key and value, …"""
    counter = Counter(model)
    forward(model)
    return counter.counts
