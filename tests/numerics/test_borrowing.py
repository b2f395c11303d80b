"""A model that computes in another dtype on shared weights is the converted copy, to the bit and without its memory."""

import pytest
import torch

from persimmon_lab.numerics import borrowing
from persimmon_lab.numerics.borrowing import computing_in
from persimmon_lab.numerics.compare import compare, in_dtype
from tests.models import ids, tiny

DTYPES = [torch.float64, torch.float16, torch.bfloat16]


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [False, True])
def test_it_computes_what_a_copy_computes(dtype, tied):
    model = tiny(tie_word_embeddings=tied)
    twin = computing_in(model, dtype)
    expected, found = in_dtype(model, dtype)(ids()).logits, twin(ids()).logits
    assert found.dtype is dtype
    assert torch.equal(found, expected)
    assert all(one is other for one, other in zip(twin.parameters(), model.parameters(), strict=True))
    assert next(model.parameters()).dtype is torch.float32


@torch.no_grad()
def test_every_module_makes_what_the_copys_module_makes():
    model = tiny()
    half = torch.bfloat16
    comparison = compare(in_dtype(model, half), {"twin": computing_in(model, half)}, ids())
    assert {module.distance.relative_error for module in comparison.modules} == {0.0}
    assert len(comparison.modules) > 20


@torch.no_grad()
def test_wide_matrices_are_cast_in_blocks(monkeypatch):
    model = tiny()
    expected = in_dtype(model, torch.float64)(ids()).logits
    largest = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        borrowing.F, "linear", lambda input, weight, bias: largest.append(weight.numel()) or linear(input, weight, bias)
    )
    monkeypatch.setattr(borrowing, "PIECE", 1000)
    found = computing_in(model, torch.float64)(ids()).logits
    assert max(largest) <= 1000 < max(weight.numel() for weight in model.parameters())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_model_does_not_notice_what_its_twin_is_given():
    model = tiny()
    with torch.no_grad():
        before = model(ids()).logits
        twin = computing_in(model, torch.float32).set_attn_implementation("eager")
        twin.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
        assert not twin(ids()).logits.any()
        assert torch.equal(model(ids()).logits, before)
    assert model.config.attn_implementation == "sdpa"


def test_modules_with_weights_of_another_kind_get_copies():
    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return x * self.factor

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), Scale())
    twin = computing_in(model, torch.float64)
    assert twin[1].factor.dtype is torch.float64
    assert model[1].factor.dtype is torch.float32
    x = torch.ones(1, 3, dtype=torch.float64)
    assert torch.equal(twin(x), in_dtype(model, torch.float64)(x))


def test_what_is_left_out_stays_as_it_is():
    twin = computing_in(tiny(), torch.float16, but_for=["model.layers.0.mlp"])
    kinds = {path: type(module).__name__ for path, module in twin.named_modules()}
    assert kinds["model.layers.0.mlp.dense_h_to_4h"] == "Linear"
    assert kinds["model.layers.1.mlp.dense_h_to_4h"] == "BorrowingLinear"
