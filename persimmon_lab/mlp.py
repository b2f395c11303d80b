"""The feed-forward block: up, squared ReLU, down. No gate."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.config import PersimmonConfig


def squared_relu(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """relu(x)^2: zero for negative inputs, so most neurons stay silent.

    The trap: float16 ends at 65504, so the square is infinite from x = 256 on. Source: So et al. 2021, Primer.
    """
    return F.relu(x).square()


def gelu_tanh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """GELU by its tanh approximation, which transformers calls "gelu_new"."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2": squared_relu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


def activation_named(name: str | Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The activation of a `hidden_act`: a name of transformers' or a function. Raises ValueError for other names."""
    if callable(name):
        return name
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act is {name!r}; choose one of {', '.join(ACTIVATIONS)}, or give a function")
    return ACTIVATIONS[name]


class PersimmonMLP(nn.Module):
    """`dense_4h_to_h(act(dense_h_to_4h(x)))`; the tap `activations` shows the neurons after the squared ReLU."""

    read_by_fast_engine = True

    def __init__(self, config: PersimmonConfig) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = activation_named(config.hidden_act)
        self.activations = nn.Identity()
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Float[Tensor, "batch position hidden"]) -> Float[Tensor, "batch position hidden"]:
        output: Tensor = self.dense_4h_to_h(self.activations(self.act(self.dense_h_to_4h(hidden))))
        return output
