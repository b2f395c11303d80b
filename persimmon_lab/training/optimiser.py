"""Float32 masters of a bfloat16 model, and the two optimisers that move them: Muon for matrices, AdamW for the rest."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MasterWeights:
    """Trains a low-precision model through float32 copies of its weights.

    bfloat16 keeps 8 bits: an update 500 times smaller than its weight is rounded away. So the model computes in
    bfloat16, its gradients are cast to float32, the masters are updated, and the model gets their rounded values.
    Matrices inside the layers go to Muon (Jordan et al. 2024), which replaces an update by the nearest orthogonal
    matrix; embeddings, head, norms and biases go to AdamW.
    """

    def __init__(self, model: nn.Module, *, matrix_rate: float, rate: float, weight_decay: float):
        self.model = [parameter for _, parameter in model.named_parameters()]
        self.names = [name for name, _ in model.named_parameters()]
        self.masters = [nn.Parameter(parameter.detach().float().clone()) for parameter in self.model]
        named = list(zip(self.names, self.masters, strict=True))
        matrices = [master for name, master in named if ".layers." in name and master.ndim == 2]
        tables = [master for name, master in named if ".layers." not in name and master.ndim == 2]
        vectors = [master for _, master in named if master.ndim != 2]
        self.optimisers = [
            # match_rms_adamw scales each update to AdamW's usual size, so one rate fits matrices of every shape.
            torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(
                [{"params": tables, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
                lr=rate,
                betas=(0.9, 0.95),
                fused=True,
            ),
        ]
        self.rates = [matrix_rate, rate]

    def step(self, scale: float, max_norm: float = 1.0) -> Float[Tensor, ""]:
        """One update at `scale` times the rates, the gradient clipped to `max_norm`; returns its norm before that."""
        for master, parameter in zip(self.masters, self.model, strict=True):
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

    def state_dict(self) -> dict:
        """Everything that the next step depends on."""
        return {
            "masters": {name: master.detach() for name, master in zip(self.names, self.masters, strict=True)},
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state_dict`; the model gets its weights too."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(state["masters"][name])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.round_into_model()
