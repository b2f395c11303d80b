"""A model that computes in another dtype on weights that it shares, so that the 8B is compared where it fits once.

Beside the model it takes one matrix at a time, cast while its module runs: 268 MB for the largest piece of the 8B in
float32, where a copy in float32 is 37.6 GB.
"""

import copy
from collections.abc import Sequence
from itertools import chain
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.quantisation import check_plain

Model = TypeVar("Model", bound=nn.Module)

PIECE = 2**26  # numbers of a matrix that are cast at a time: one of the 8B's MLP, a sixteenth of its head


class BorrowingLinear(nn.Linear):
    """`nn.Linear` in another dtype than its weights'; a wide one in blocks of rows."""

    computed_in: torch.dtype

    def forward(self, input: Float[Tensor, "*row inner"]) -> Float[Tensor, "*row outer"]:
        rows = max(1, PIECE // self.in_features)
        blocks = [
            F.linear(
                input,
                self.weight[start : start + rows].to(self.computed_in),
                None if self.bias is None else self.bias[start : start + rows].to(self.computed_in),
            )
            for start in range(0, self.out_features, rows)
        ]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=-1)


class BorrowingLayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` in another dtype than its weights'."""

    computed_in: torch.dtype

    def forward(self, input: Float[Tensor, "*row hidden"]) -> Float[Tensor, "*row hidden"]:
        weight = None if self.weight is None else self.weight.to(self.computed_in)
        bias = None if self.bias is None else self.bias.to(self.computed_in)
        return F.layer_norm(input, self.normalized_shape, weight, bias, self.eps)


class BorrowingEmbedding(nn.Embedding):
    """`nn.Embedding` that casts what it looks up."""

    computed_in: torch.dtype

    def forward(self, input: Int[Tensor, "*position"]) -> Float[Tensor, "*position hidden"]:
        return super().forward(input).to(self.computed_in)


BORROWERS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: BorrowingLinear,
    nn.LayerNorm: BorrowingLayerNorm,
    nn.Embedding: BorrowingEmbedding,
}


def computing_in(model: Model, dtype: torch.dtype, but_for: Sequence[str] = ()) -> Model:
    """The same model on the same weights, but for what it computes in: what `compare.in_dtype(model, dtype)` computes,
    to the bit but for blocks of a wide matrix, without a copy. `but_for` are paths of modules that stay as they are.

    Its parameters are the model's own, in their dtype (which is what its `dtype` says): change neither in place. A new
    parameter, and its configuration, are its own. A weight that `dtype` cannot hold shows in what its module makes.
    Modules with weights that are no Linear, LayerNorm or Embedding get copies of theirs.
    """
    check_plain(model, "computing in another dtype")
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, shared)
    for path, module in twin.named_modules():
        weights = list(module.parameters(recurse=False))
        kept = any(f"{path}.".startswith(f"{other}.") for other in but_for)
        if kept or all(weight.dtype is dtype for weight in weights):
            continue
        if type(module) in BORROWERS:
            module.__class__ = BORROWERS[type(module)]
            module.computed_in = dtype
            continue
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(weight.detach().to(dtype), weight.requires_grad))
    return twin
