"""The modules of a model that have rounded weights, in the places of nn.Linear and nn.Embedding."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.quantisation.weights import RoundedWeight


class _Product(torch.autograd.Function):
    """`x @ weight.T`, with a gradient for x and none for the weight."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "row input"], weight: RoundedWeight) -> Float[Tensor, "row output"]:
        ctx.weight = weight
        return weight.product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.weight.transposed_product(gradients[0]), None


class QuantisedLinear(nn.Module):
    """`x @ weight.T + bias` with rounded weights. Gradients reach x and the bias."""

    read_by_fast_engine = True

    def __init__(self, weight: RoundedWeight, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight = weight
        self.bias = bias

    @property
    def in_features(self) -> int:
        return self.weight.inputs

    @property
    def out_features(self) -> int:
        return self.weight.outputs

    def forward(self, x: Float[Tensor, "*leading input"]) -> Float[Tensor, "*leading output"]:
        rows = x.flatten(0, -2) if x.ndim > 1 else x[None]
        if torch.is_grad_enabled() and x.requires_grad:
            product: Tensor = _Product.apply(rows, self.weight)  # type: ignore[no-untyped-call]  # torch gives it no types
        else:
            product = self.weight.product(rows)
        product = product if self.bias is None else product + self.bias
        return product.unflatten(0, x.shape[:-1]) if x.ndim > 1 else product[0]


class QuantisedEmbedding(nn.Module):
    """Rows of rounded weights by their ids."""

    read_by_fast_engine = True

    def __init__(self, weight: RoundedWeight, padding_idx: int | None) -> None:
        super().__init__()
        self.weight = weight
        self.padding_idx = padding_idx

    @property
    def num_embeddings(self) -> int:
        return self.weight.outputs

    @property
    def embedding_dim(self) -> int:
        return self.weight.inputs

    def forward(self, ids: Int[Tensor, "*position"]) -> Float[Tensor, "*position hidden"]:
        return self.weight.rows(ids.flatten()).unflatten(0, ids.shape) if ids.ndim else self.weight.rows(ids[None])[0]


Quantised = QuantisedLinear | QuantisedEmbedding


def with_rounded_weight(module: nn.Module, weight: RoundedWeight) -> Quantised:
    """What does what a Linear or an Embedding did, on rounded weights; a bias stays what it was.

    Raises TypeError for any other module.
    """
    if isinstance(module, nn.Linear):
        return QuantisedLinear(weight, module.bias)
    if isinstance(module, nn.Embedding):
        return QuantisedEmbedding(weight, module.padding_idx)
    raise TypeError(
        f"a {type(module).__name__} has no weights that could be rounded; give an nn.Linear or nn.Embedding"
    )


def rounded_weights(model: nn.Module) -> dict[str, RoundedWeight]:
    """The rounded weights in a model, by the names that their parameters would have; a tied one goes by both."""
    return {
        f"{path}.weight" if path else "weight": module.weight
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, Quantised)
    }


def check_plain(model: nn.Module, what: str) -> None:
    """Raises ValueError that says what cannot be done, for a model with rounded weights."""
    if weights := rounded_weights(model):
        name, weight = next(iter(weights.items()))
        raise ValueError(
            f"{what} needs plain weights, and {name} is rounded to {weight.format}: load the model without quantize, "
            "from the checkpoint that was rounded"
        )
