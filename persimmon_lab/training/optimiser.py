"""Float32 masters of a bfloat16 model, and the two optimisers that move them: Muon for matrices, AdamW for the rest."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.anatomy import layer_of
from persimmon_lab.training.muon import Muon


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it, float32 on a processor that would have to emulate it: there products in
    bfloat16 take up to ten times as long."""
    if device.type != "cpu" or any(has for name, has in torch.cpu.get_capabilities().items() if name.endswith("bf16")):
        return torch.bfloat16
    return torch.float32


def optimisers_for(
    weights: Mapping[str, nn.Parameter],
    *,
    matrix_rate: float | None,
    rate: float,
    weight_decay: float,
    fused: bool = False,
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest, or for all where `matrix_rate` is None.

    `weights` are by their names in the model. Muon's updates are scaled to AdamW's usual size, so one rate fits
    matrices of every shape; the norms and biases do not decay. `fused` is AdamW's, and changes the last bits.
    """
    by_muon, matrices, vectors = [], [], []
    for name, weight in weights.items():
        if weight.ndim != 2:
            vectors.append(weight)
        elif matrix_rate is not None and layer_of(name) is not None:
            by_muon.append(weight)
        else:
            matrices.append(weight)
    optimisers: list[torch.optim.Optimizer] = []
    if matrix_rate is not None and by_muon:
        optimisers.append(Muon(by_muon, matrix_rate, weight_decay, dtype=fast_dtype(by_muon[0].device)))
    if matrices or vectors:
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimisers.append(torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused))
    return optimisers


class MasterWeights:
    """Trains a low-precision model through float32 copies of its weights.

    bfloat16 keeps 8 bits: an update 500 times smaller than its weight is rounded away. So the model computes in
    bfloat16, its gradients are cast to float32, the masters are updated, and the model gets their rounded values.
    Matrices inside the layers go to Muon (Jordan et al. 2024), which replaces an update by the nearest orthogonal
    matrix; embeddings, head, norms and biases go to AdamW.
    """

    def __init__(self, model: nn.Module, *, matrix_rate: float, rate: float, weight_decay: float) -> None:
        self.model = [parameter for _, parameter in model.named_parameters()]
        self.names = [name for name, _ in model.named_parameters()]
        self.masters = [nn.Parameter(parameter.detach().float().clone()) for parameter in self.model]
        named = dict(zip(self.names, self.masters, strict=True))
        self.optimisers = optimisers_for(
            named, matrix_rate=matrix_rate, rate=rate, weight_decay=weight_decay, fused=True
        )
        self.rates = [matrix_rate, rate]

    def step(self, scale: float, max_norm: float = 1.0) -> Float[Tensor, ""]:
        """One update at `scale` times the rates, the gradient clipped to `max_norm`; returns its norm before that."""
        for name, master, parameter in zip(self.names, self.masters, self.model, strict=True):
            if parameter.grad is None:
                raise ValueError(f"{name} has no gradient; call backward on a loss of the whole model before a step")
            master.grad = parameter.grad.float()
            parameter.grad = None
        norm = nn.utils.clip_grad_norm_(self.masters, max_norm)
        for optimiser, rate in zip(self.optimisers, self.rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * scale
            optimiser.step()
        self.round_into_model()
        return norm

    @torch.no_grad()
    def round_into_model(self) -> None:
        """Give the model the masters' values, rounded to its dtype."""
        for parameter, master in zip(self.model, self.masters, strict=True):
            parameter.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "masters": {name: master.detach() for name, master in zip(self.names, self.masters, strict=True)},
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Start from weights by name, as a model's `state_dict` has them; the model gets them too."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(weights[name])
        self.round_into_model()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; the model gets its weights too."""
        self.load_weights(state["masters"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
