"""Who sees whom: causality, padding, and rows that see nothing."""

import pytest
import torch

from persimmon_lab.attention import attention_pattern, attention_scores, causal_mask
from tests.models import ids, tiny
from tests.tolerances import TOLERANCE

IMPLEMENTATIONS = pytest.mark.parametrize("implementation", ["eager", "sdpa"])
LEFT = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
HOLES = torch.tensor([[1, 0, 1, 1, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 1, 0]])
NOTHING = torch.zeros(2, 9, dtype=torch.long)


@IMPLEMENTATIONS
@torch.no_grad()
def test_the_future_is_not_seen(implementation):
    model = tiny(attn_implementation=implementation)
    other = ids()
    other[:, 5:] = 7
    changed = model(other).logits - model(ids()).logits
    assert changed[:, :5].abs().max() == 0
    assert changed[:, 5:].abs().amin(dim=(0, 2)).max() > 0


@IMPLEMENTATIONS
@pytest.mark.parametrize("mask", [LEFT, HOLES], ids=["left", "holes"])
@torch.no_grad()
def test_padding_is_not_seen(implementation, mask):
    """Whatever stands at masked positions, the others come out the same."""
    model = tiny(attn_implementation=implementation)
    other = ids().masked_fill(mask == 0, 99)
    changed = model(other, attention_mask=mask).logits - model(ids(), attention_mask=mask).logits
    assert changed[mask == 1].abs().max() == 0


@IMPLEMENTATIONS
@torch.no_grad()
def test_left_padding_with_counted_positions_changes_nothing(implementation):
    model = tiny(attn_implementation=implementation)
    positions = (LEFT.cumsum(-1) - 1).clamp(min=0)
    padded = model(ids(), attention_mask=LEFT, position_ids=positions).logits[0, 3:]
    assert torch.allclose(padded, model(ids()[:1, 3:]).logits[0], atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("mask", [LEFT, HOLES, NOTHING], ids=["left", "holes", "nothing"])
@torch.no_grad()
def test_both_implementations_agree_even_on_rows_that_see_nothing(mask):
    eager, sdpa = (tiny(attn_implementation=name)(ids(), attention_mask=mask).logits for name in ("eager", "sdpa"))
    assert torch.allclose(eager, sdpa, atol=TOLERANCE[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@IMPLEMENTATIONS
@torch.no_grad()
def test_rows_that_see_nothing_stay_finite(implementation, dtype):
    model = tiny(attn_implementation=implementation, qk_layernorm=False).to(dtype)
    assert model(ids(), attention_mask=NOTHING).logits.isfinite().all()
    assert model(ids(), attention_mask=LEFT).logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_large_negative_score_does_not_fall_out_of_the_format(dtype):
    """In float16 the lowest number minus 16 is already -inf, and a row of nothing but -inf is a softmax of NaN."""
    query = torch.full((1, 1, 3, 16), 8.0, dtype=dtype)
    scores = attention_scores(query, -query, causal_mask(NOTHING[:1, :3], 3, 3, dtype, query.device))
    assert torch.allclose(attention_pattern(scores), torch.full((1, 1, 3, 3), 1 / 3, dtype=dtype))


def test_a_mask_may_be_integer_boolean_or_float():
    model = tiny()
    expected = model(ids(), attention_mask=HOLES).logits
    for dtype in (torch.bool, torch.float32, torch.int32):
        assert torch.equal(model(ids(), attention_mask=HOLES.to(dtype)).logits, expected)


@IMPLEMENTATIONS
@torch.no_grad()
def test_a_mask_of_ones_is_no_mask(implementation):
    model = tiny(attn_implementation=implementation)
    ones = torch.ones(2, 9, dtype=torch.long)
    assert torch.equal(model(ids(), attention_mask=ones).logits, model(ids()).logits)


def test_the_mask_does_not_move_positions():
    model = tiny()
    by_default = model(ids(), attention_mask=LEFT).logits
    assert torch.equal(model(ids(), attention_mask=LEFT, position_ids=torch.arange(9)[None]).logits, by_default)


def test_the_pattern_is_a_distribution_over_what_is_visible():
    for pattern in tiny()(ids(), attention_mask=HOLES, output_attentions=True).attentions:
        visible = torch.ones(9, 9).tril().bool() & HOLES[:, None, None, :].bool()
        assert pattern.masked_select(~visible).max() == 0
        assert torch.allclose(pattern.sum(-1), torch.ones(2, 4, 9))
