"""What tells a model from another with the same tokenizer."""

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from persimmon_lab.generation.engines.choosing import some_of
from persimmon_lab.quantisation import rounded_weights


def fingerprint(model: object) -> str | None:
    """Of the names and shapes of the weights, and some numbers of each. None for what has none to look at."""
    parameters = list(_weights_of(model)) if isinstance(model, nn.Module) else []
    if not parameters or any(parameter.is_meta for _, parameter in parameters):
        return None
    digest = hashlib.sha256()
    for name, parameter in parameters:
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(some_of(parameter.detach()).to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]


def _weights_of(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters, and what rounded weights consist of, by their names."""
    yield from model.named_parameters()
    for name, weight in rounded_weights(model).items():
        yield from weight.named_buffers(prefix=name)
