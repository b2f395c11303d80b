"""Muon, whose arithmetic is done in the dtype that the machine multiplies fast."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic, steep at zero; Jordan 2024
ITERATIONS = 5
RMS_OF_ADAMW = 0.2  # the usual size of AdamW's updates; Liu et al. 2025, section 2.2


def orthogonal_direction(update: Float[Tensor, "out in"], dtype: torch.dtype) -> Float[Tensor, "out in"]:
    """The nearest orthogonal matrix, roughly: the singular values of `update` become about 0.7 to 1.2.

    Five Newton-Schulz steps X <- a X + (b A + c A A) X with A = X X^T, computed in `dtype`. Source: Jordan et al. 2024,
    Muon.
    """
    a, b, c = COEFFICIENTS
    wide = update.to(dtype)
    is_tall = update.shape[0] > update.shape[1]
    if is_tall:
        wide = wide.T
    wide = wide / wide.norm().clamp(min=1e-7)  # no singular value above 1
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if is_tall else wide


class Muon(torch.optim.Optimizer):
    """Momentum whose direction is made orthogonal, for the matrices inside layers (Jordan et al. 2024).

    Equal to `torch.optim.Muon(..., adjust_lr_fn="match_rms_adamw")` where `dtype` is bfloat16, which is all that one
    knows; a processor that has to emulate bfloat16 takes three quarters of a step for it.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        rate: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(matrices, dict(lr=rate, weight_decay=weight_decay, momentum=momentum))
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # a closure would compute the loss again, for which none asks
        """One update of every matrix; each must have a gradient."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for matrix in group["params"]:
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
                ahead = matrix.grad.lerp(mean, momentum)  # Nesterov's look ahead
                matrix.mul_(1 - rate * group["weight_decay"])
                matrix.add_(
                    orthogonal_direction(ahead, self.dtype), alpha=-rate * RMS_OF_ADAMW * math.sqrt(max(matrix.shape))
                )
