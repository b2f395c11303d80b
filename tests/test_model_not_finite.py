"""A NaN in query or key, of which torch's fused kernel on a CPU with AVX-512 makes zeros: nothing may hide it."""

import pytest
import torch

from persimmon_lab.attention import attention_pattern, attention_scores, causal_mask, fused_attention
from persimmon_lab.generation.engines.choosing import runner_for
from persimmon_lab.trace import capture, logit_lens
from tests.models import ids, tiny

LENGTH = 7
WEIGHTS = ("q_layernorm.weight", "k_layernorm.weight", "k_layernorm.bias", "query_key_value.bias", "dense.bias")
LEFT = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * LENGTH])


def draw(dtype, batch=2, head=3, channel=16):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, head, LENGTH, channel, generator=generator).to(dtype) for _ in range(3)]


def one_by_one(query, key, value, mask):
    """Attention of a query at a time to the keys that it sees, in float64: what is hidden from it cannot reach it."""
    mixed = torch.zeros_like(value, dtype=torch.float64)[:, :, -query.shape[2] :]
    for row in range(len(query)):
        for place in range(query.shape[2]):
            seen = mask[row % len(mask), 0, place] == 0
            if not seen.any():
                continue
            keys, values = key[row][:, seen].double(), value[row][:, seen].double()
            scores = torch.einsum("hc,hkc->hk", query[row][:, place].double(), keys) / 4
            mixed[row][:, place] = torch.einsum("hk,hkc->hc", scores.softmax(-1), values)
    return mixed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [None, LEFT], ids=["causal", "padded"])
@pytest.mark.parametrize("place", [0, 4, LENGTH - 1])
@pytest.mark.parametrize("which", ["query", "key", "both"])
def test_a_nan_reaches_whoever_sees_it(which, place, masked, dtype):
    query, key, value = draw(dtype)
    for name, tensor in (("query", query), ("key", key)):
        if which in (name, "both"):
            tensor[1, 2, place, 5] = torch.nan
    whole = causal_mask(masked, LENGTH, LENGTH, dtype, query.device)
    expected = one_by_one(query, key, value, whole)
    mixed = fused_attention(query, key, value, None if masked is None else whole)
    seen = (whole == 0).any(-1).expand(2, 3, LENGTH)
    lost = expected.isnan()
    assert lost.any(), "the case is one"
    if masked is not None and which != "query":  # NaN plus the mask is NaN: nobody in that row and head is spared
        lost[1, 2] = True
    assert torch.equal(mixed.isnan()[seen], lost[seen])
    finite = seen[..., None] & ~lost
    assert torch.allclose(mixed.double()[finite], expected[finite], atol=2e-2 if dtype != torch.float32 else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("infinite", [torch.inf, -torch.inf])
def test_an_infinite_query_is_never_a_number(infinite, dtype):
    query, key, value = draw(dtype)
    query[0, 1, 3, 2] = infinite
    lost = fused_attention(query, key, value, None).isnan().all(-1)
    assert lost.nonzero().tolist() == [[0, 1, 3]]


def test_one_query_with_a_past():
    """Decoding: the query sees all keys, and with several new ones the mask says which."""
    query, key, value = draw(torch.float32)
    key[0, 0, 2] = torch.nan
    mixed = fused_attention(query[:, :, -1:], key, value, None).isnan().all(-1)
    assert mixed.nonzero().tolist() == [[0, 0, 0]]
    mask = causal_mask(None, 5, LENGTH, torch.float32, key.device)
    mixed = fused_attention(query[:, :, -5:], key, value, mask).isnan().all(-1)
    assert mixed[0, 0].tolist() == [True] * 5
    assert not mixed.flatten(0, 1)[1:].any(), "other rows and heads"


def test_what_is_finite_is_the_kernel_s():
    query, key, value = draw(torch.float32)
    mask = causal_mask(None, LENGTH, LENGTH, torch.float32, key.device)
    eager = torch.einsum("bhqk,bhkc->bhqc", attention_pattern(attention_scores(query, key, mask)), value)
    assert torch.allclose(fused_attention(query, key, value, None), eager, atol=1e-6)
    kernel = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.equal(fused_attention(query, key, value, None), kernel)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_a_broken_layer_is_seen_in_both_implementations(weight, dtype):
    lost = {}
    for implementation in ("eager", "sdpa"):
        model = tiny(attn_implementation=implementation).to(dtype)
        model.get_parameter(f"model.layers.1.self_attn.{weight}")[:4] = torch.nan
        trace = capture(model, ids(), only=["layers.*[0-9]"])
        lost[implementation] = [bool(stream.isnan().all()) for stream in trace.values()]
        assert logit_lens(model, ids()).isnan().all(-1).all(-1).all(-1).tolist() == [False, False, True]
        assert model(ids()).logits.isnan().all()
    assert lost["eager"] == lost["sdpa"] == [False, True]


def test_the_loss_of_a_broken_model_is_nan():
    model = tiny().train()
    with torch.no_grad():
        model.model.layers[0].self_attn.q_layernorm.weight[3] = torch.nan
    loss = model(ids(), labels=ids()).loss
    loss.backward()
    assert loss.isnan()
    assert model.lm_head.weight.grad.isnan().any()


@pytest.mark.parametrize(
    "weight",
    [
        "self_attn.q_layernorm.weight",
        "self_attn.query_key_value.bias",
        "mlp.dense_h_to_4h.bias",
        "mlp.dense_h_to_4h.weight",
        "post_attention_layernorm.weight",
    ],
)
@pytest.mark.parametrize("engine", [None, "fast", "plain", "int8", "int8-weight-only"])
def test_no_engine_answers_for_a_broken_model(engine, weight):
    model = tiny()
    with torch.no_grad():
        model.get_parameter(f"model.layers.1.{weight}")[3] = torch.nan
    said = {None: "nan or infinity", "plain": "nan or infinity"}.get(
        engine, f"hide that model.layers.1.{weight} has NaN"
    )
    with pytest.raises((FloatingPointError, ValueError), match=said):
        model.generate(ids(), max_new_tokens=3, engine=engine)


@pytest.mark.parametrize("length", [1, 9])
def test_a_query_that_overflows_on_the_way_is_seen_by_the_fast_engine(length):
    """Weights that are finite, and products of them that are not: the norm of an infinity is NaN."""
    model = tiny()
    with torch.no_grad():
        model.model.layers[0].self_attn.query_key_value.bias.view(4, 3, 16)[2, 0] = torch.finfo(torch.float32).max
        # The first half of the head's query is -inf after the norm's variance, and the rest with it.
        fast = runner_for(model, "fast")(ids(length=length), logits_to_keep=0, use_cache=False).logits
        plain = model(ids(length=length)).logits
    assert plain.isnan().all()
    assert fast.isnan().all()
