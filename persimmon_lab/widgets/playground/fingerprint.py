"""What tells a model from another with the same tokenizer."""

import hashlib

import torch
from torch import nn

from persimmon_lab.generation.engines.choosing import some_of


def fingerprint(model: object) -> str | None:
    """Of the names and shapes of the parameters, and some numbers of each. None for what has none to look at."""
    parameters = list(model.named_parameters()) if isinstance(model, nn.Module) else []
    if not parameters or any(parameter.is_meta for _, parameter in parameters):
        return None
    digest = hashlib.sha256()
    for name, parameter in parameters:
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(some_of(parameter.detach()).to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
