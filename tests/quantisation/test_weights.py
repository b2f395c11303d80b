"""Rounded weights multiply, are looked up and are stored as the numbers that they stand for."""

import copy
import pickle

import pytest
import torch
from torch import nn

from persimmon_lab.quantisation import FORMATS, QuantisedEmbedding, QuantisedLinear, check_plain, with_rounded_weight
from persimmon_lab.quantisation import weights as module
from persimmon_lab.quantisation.kernels import has_int4_product, has_int8_product
from persimmon_lab.quantisation.rounding import int4_values, int8_values, round_int4, round_int8

SHAPES = [(96, 64), (65, 32), (5, 96)]  # more and fewer rows than whole blocks
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-9}

every_format = pytest.mark.parametrize("name", FORMATS)


def plain(outputs: int, inputs: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(outputs)
    return (torch.randn(outputs, inputs, generator=generator) + torch.linspace(-1, 1, inputs)).to(dtype)


def rounded(name: str, weight: torch.Tensor):
    result = FORMATS[name](*weight.shape, weight.dtype, "cpu")
    rows = result.round(weight, weight.dtype)
    for start in range(0, len(rows), 64):
        result.fill(start, rows[start : start + 64])
    return result


def numbers(name: str, weight: torch.Tensor) -> torch.Tensor:
    """What the rounded weights are, in float64, past all packing."""
    if name == "int8":
        return int8_values(*round_int8(weight, weight.dtype), torch.float64)
    return int4_values(*round_int4(weight, weight.dtype), torch.float64)


@every_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows", [1, 3, module.KERNEL_ROWS + 1])
def test_products_are_those_of_the_numbers(name, shape, dtype, rows):
    weight = plain(*shape, dtype)
    x = torch.randn(rows, shape[1], generator=torch.Generator().manual_seed(0)).to(dtype)
    product = rounded(name, weight).product(x)
    right = x.double() @ numbers(name, weight).T
    assert product.dtype == dtype
    assert (product - right).abs().max() <= TOLERANCE[dtype] * right.abs().max()


@every_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_and_the_whole(name, shape):
    weight = plain(*shape)
    right = numbers(name, weight).float()
    ids = torch.tensor([0, shape[0] - 1, 2, 2])
    torch.testing.assert_close(rounded(name, weight).rows(ids), right[ids], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rounded(name, weight).dequantized(), right, rtol=1e-6, atol=1e-6)


@every_format
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_a_file_come_back(name, dtype):
    weight = plain(65, 64, dtype)
    stored = FORMATS[name].round(weight, dtype)
    assert stored.shape == (65, FORMATS[name].row_bytes(64, dtype))
    assert torch.equal(rounded(name, weight).file_rows(0, 65), stored)
    assert torch.equal(rounded(name, weight).file_rows(64, 65), stored[64:])


def test_what_a_row_of_a_file_is():
    """Codes, then scales, then zeros, the first of two neighbours in the low half of a byte."""
    weight = torch.arange(16.0).repeat_interleave(4)[None]  # 0 to 7 in the first group, 8 to 15 in the second
    row = FORMATS["int4"].round(weight, torch.float32)[0]
    codes, scales, zeros = row[:32], row[32:40].view(torch.float32), row[40:].view(torch.float32)
    assert codes[:4].tolist() == [0x00, 0x00, 0x22, 0x22]
    torch.testing.assert_close(scales, torch.tensor([7 / 15, 7 / 15]))
    torch.testing.assert_close(zeros, torch.tensor([8 * 7 / 15, 8 + 8 * 7 / 15]))
    row = FORMATS["int8"].round(torch.tensor([[-2.0, 1.0]]), torch.float32)[0]
    assert row[:2].view(torch.int8).tolist() == [-127, 64]
    torch.testing.assert_close(row[2:].clone().view(torch.float32), torch.tensor([2 / 127]))


@every_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_of_the_input(name, dtype):
    weight, linear = plain(96, 64, dtype), nn.Linear(64, 96, dtype=dtype)
    layer = with_rounded_weight(linear, rounded(name, weight))
    x = torch.randn(2, 3, 64, dtype=dtype, requires_grad=True)
    output = layer(x)
    assert torch.equal(output.detach(), layer(x.detach()))
    back = torch.randn(2, 3, 96, dtype=dtype)
    output.backward(back)
    right = back.double() @ numbers(name, weight)
    assert (x.grad - right).abs().max() <= TOLERANCE[dtype] * right.abs().max()
    torch.testing.assert_close(linear.bias.grad, back.sum((0, 1)), rtol=0.02, atol=0.02)


@every_format
def test_modules_do_what_they_stand_for(name):
    linear, embedding = nn.Linear(64, 96), nn.Embedding(96, 64, padding_idx=3)
    weight = rounded(name, linear.weight.detach())
    layer, table = with_rounded_weight(linear, weight), with_rounded_weight(embedding, weight)
    right = weight.dequantized()
    for x in (torch.randn(64), torch.randn(2, 3, 64), torch.randn(0, 64), torch.randn(2, 0, 64)):
        torch.testing.assert_close(layer(x), nn.functional.linear(x, right, linear.bias))
    for ids in (torch.tensor(5), torch.tensor([[1, 2], [3, 95]]), torch.zeros(2, 0, dtype=torch.int64)):
        torch.testing.assert_close(table(ids), right[ids])
    assert isinstance(layer, QuantisedLinear)
    assert isinstance(table, QuantisedEmbedding)
    assert (layer.in_features, layer.out_features) == (64, 96)
    assert (table.num_embeddings, table.embedding_dim, table.padding_idx) == (96, 64, 3)
    assert f"64, {name}, float32, emulated" in repr(layer)
    with pytest.raises(TypeError, match="LayerNorm has no weights that could be rounded"):
        with_rounded_weight(nn.LayerNorm(3), weight)


@every_format
def test_a_wrong_product_of_torch_is_not_used(name, monkeypatch):
    """A kernel that forgets the scales, or is missing, is found out; then numbers are multiplied."""
    weight = rounded(name, plain(96, 64, torch.bfloat16))
    right = weight.dequantized()
    operator = {"int8": "_weight_int8pack_mm", "int4": "_weight_int4pack_mm_for_cpu"}[name]

    def wrong(x, codes, *scales):
        return x.new_ones(len(x), 128 if name == "int4" else 96)

    def missing(*arguments):
        raise NotImplementedError

    for other in (wrong, missing):
        has_int4_product.cache_clear()
        has_int8_product.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(torch.ops.aten, operator, other)
            assert not weight.has_kernel
            x = torch.randn(1, 64).to(torch.bfloat16)
            torch.testing.assert_close(weight.product(x), x @ right.T, rtol=0.02, atol=0.05)
    has_int4_product.cache_clear()
    has_int8_product.cache_clear()


@every_format
def test_another_dtype_of_input_is_refused(name):
    with pytest.raises(
        TypeError, match=r"the input is torch.float32, and these int. weights compute in torch.bfloat16"
    ):
        rounded(name, plain(32, 32, torch.bfloat16)).product(torch.ones(1, 32))


@every_format
def test_casts_round_the_scales_alone(name):
    weight = rounded(name, plain(96, 64))
    codes = weight.codes.clone()
    half = copy.deepcopy(weight).to(torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.codes, codes)
    torch.testing.assert_close(half.dequantized().float(), weight.dequantized(), rtol=0.02, atol=0.02)
    assert weight.dtype == torch.float32


@every_format
def test_pickles(name, monkeypatch):
    weight = rounded(name, plain(96, 64))
    data = pickle.dumps(weight)
    assert torch.equal(pickle.loads(data).dequantized(), weight.dequantized())
    if name == "int4":  # another processor
        monkeypatch.setattr(module, "layout_here", lambda: None)
        with pytest.raises(RuntimeError, match="pickled on a processor that lays them out otherwise"):
            pickle.loads(data)


@every_format
def test_what_is_not_done_to_them(name):
    """Nothing that would change a copy, or train nothing, in silence."""
    layer = QuantisedLinear(rounded(name, plain(96, 64)), None)
    for act in (lambda w: w.mul_(2), lambda w: w.T, lambda w: w.data):
        with pytest.raises(AttributeError, match=rf"{name} weights have no .*load the model without quantize"):
            act(layer.weight)
    with pytest.raises(TypeError):
        layer.weight[0] = 0
    with pytest.raises(TypeError, match="weights and no layer"):
        layer.weight(torch.ones(1, 64))
    with pytest.raises(AttributeError):
        layer.get_parameter("weight")
    with pytest.raises(ValueError, match=rf"training needs plain weights, and weight is rounded to {name}"):
        check_plain(layer, "training")
    check_plain(nn.Linear(2, 2), "training")
