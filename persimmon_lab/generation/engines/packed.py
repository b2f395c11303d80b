"""Linear layers laid out for speed: the same product, on weights that were rearranged or rounded beforehand.

A single row against a matrix costs what it takes to stream the matrix in, and a CPU streams a plain (output, input)
matrix at a third to a half of what memory gives. oneDNN has blocked layouts that stream at full speed. torch reaches
them by private operators, so `can_pack` tries them first, and the plain product stands in where they are missing.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.quantisation.modules import QuantisedLinear
from persimmon_lab.quantisation.rounding import int8_scales
from persimmon_lab.quantisation.weights import Int8Weight

Rows = Float[Tensor, "row input"]
Product = Float[Tensor, "row output"]

ONE_ROW_SIZE = 1024  # rows and columns from which a matrix has OneRowLinear's layout for a single row of float32


class PlainLinear:
    """`F.linear` on the weight as it is, then a relu if asked for. Without gradients."""

    def __init__(self, linear: nn.Linear, relu: bool = False) -> None:
        # The parameter itself and no alias of it, which would keep the old numbers alive when the model moves away.
        self.weight = linear.weight
        self.bias = linear.bias
        self.relu = relu

    @torch.no_grad()
    def __call__(self, x: Rows) -> Product:
        product = F.linear(x, self.weight, self.bias)
        return product.relu_() if self.relu else product


class PackedLinear:
    """oneDNN's product on its own layout of the weight, with bias and relu in the same pass over the result."""

    rows = 32  # of x that oneDNN is told to expect: it has one layout for a single row and one for more

    def __init__(self, linear: nn.Linear, relu: bool = False) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), self.rows)
        self.product = torch.ops.mkldnn._linear_pointwise.default
        self.arguments: tuple[Any, ...] = (self.weight, linear.bias, "relu" if relu else "none", [], "")

    def __call__(self, x: Rows) -> Product:
        product: Tensor = self.product(x, *self.arguments)
        return product


class OneRowLinear(PackedLinear):
    """The layout that streams a large float32 matrix fastest past a single row, and is slower at everything else."""

    rows = 1


class Int8Linear:
    """Weights rounded to int8 by output row, rows of x to 8 bits as they come; products are summed in int32."""

    def __init__(self, linear: nn.Linear, relu: bool = False) -> None:
        weight = linear.weight.detach().to(torch.float32)
        scales = int8_scales(weight)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        with warnings.catch_warnings():  # torch means to drop its quantised tensors, and has no other way in yet
            warnings.filterwarnings("ignore", message=".*quantized tensor creation functions.*", category=UserWarning)
            rounded = torch.quantize_per_channel(weight, scales.to(torch.float64), zeros, axis=0, dtype=torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().to(torch.float32)
        self.weight = torch.ops.quantized.linear_prepack(rounded, bias)
        self.product = torch.ops.quantized.linear_relu_dynamic if relu else torch.ops.quantized.linear_dynamic
        # Without VNNI pairs of products are summed in 16 bits, which 8 bits of x could overflow.
        self.seven_bits = not torch.cpu._is_vnni_supported()

    def __call__(self, x: Rows) -> Product:
        product: Tensor = self.product(x.to(torch.float32), self.weight, self.seven_bits)
        return product.to(x.dtype)


class RoundedLinear:
    """The product of a module whose weights are rounded already: nothing is copied."""

    def __init__(self, linear: QuantisedLinear, relu: bool = False) -> None:
        self.weight = linear.weight
        self.bias = linear.bias
        self.relu = relu

    @torch.no_grad()
    def __call__(self, x: Rows) -> Product:
        product = self.weight.product(x)
        product = product if self.bias is None else product.add_(self.bias)
        return product.relu_() if self.relu else product


class Int8WeightLinear(RoundedLinear):
    """Weights rounded to int8 by output row; x stays as it is and the sums are float32."""

    def __init__(self, linear: nn.Linear, relu: bool = False) -> None:
        weight = linear.weight.detach()
        outputs, inputs = weight.shape
        rounded = Int8Weight(outputs, inputs, weight.dtype, weight.device)
        rounded.fill(0, Int8Weight.round(weight, weight.dtype))
        super().__init__(QuantisedLinear(rounded, linear.bias), relu)


Linear = PlainLinear | PackedLinear | Int8Linear | RoundedLinear
LinearKind = type[PlainLinear] | type[PackedLinear] | type[Int8Linear] | type[Int8WeightLinear]
LayOut = Callable[..., Linear]  # (nn.Linear or QuantisedLinear, relu): a kind, or what chooses one


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine's torch has oneDNN's packed product for `dtype` and it gives what `F.linear` gives."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    linear = nn.Linear(32, 32, dtype=dtype)
    with torch.no_grad():
        nn.init.constant_(linear.weight, 0.25)
        x = torch.ones(1, 32, dtype=dtype)
        try:
            return torch.equal(PackedLinear(linear, relu=True)(x), PlainLinear(linear, relu=True)(x))
        except (AttributeError, NotImplementedError, RuntimeError):
            return False


def best_kind(linear: nn.Linear, rows: int) -> LinearKind:
    """The fastest exact product for `rows` rows of x: packed on a CPU that can, else plain.

    Which layout is the better one was measured by `benchmarks/layouts.py`.
    """
    weight = linear.weight
    if weight.device.type != "cpu" or not torch.backends.mkldnn.enabled or not can_pack(weight.dtype):
        return PlainLinear
    if rows == 1 and weight.dtype == torch.float32 and min(weight.shape) >= ONE_ROW_SIZE:
        return OneRowLinear
    return PackedLinear
