"""The bound on scores holds for every input, is exact where it says so, and is nearly reached."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from persimmon_lab import PersimmonConfig, PersimmonModel, load_mini
from persimmon_lab.numerics.bounds import largest_score_found, layer_bound, longest_output, score_bound
from persimmon_lab.rotary import apply_rotary, rotary_tables
from persimmon_lab.trace.capture import capture

WIDTHS = (2, 5, 32, 64)


def norm(channels, seed, spread=0.5, bias=1.0) -> nn.LayerNorm:
    generator = torch.Generator().manual_seed(seed)
    made = nn.LayerNorm(channels, dtype=torch.float64)
    with torch.no_grad():
        made.weight += spread * torch.randn(channels, generator=generator, dtype=torch.float64)
        made.bias += bias * torch.randn(channels, generator=generator, dtype=torch.float64)
    return made.requires_grad_(False)


def tables(config, offsets):
    cos, sin = rotary_tables(offsets[None], config, int(offsets.max()) + 1, torch.float32)
    return cos[0], sin[0]


@pytest.mark.parametrize("channels", [2, 32, 64])
def test_without_weights_the_bound_is_the_square_root_of_the_channels(channels):
    plain = nn.LayerNorm(channels)
    assert float(longest_output(plain.weight, plain.bias)) == pytest.approx(math.sqrt(channels), rel=1e-12)
    assert score_bound(plain, plain) == pytest.approx(math.sqrt(channels), rel=1e-12)


def test_persimmon_8b_is_bounded_by_eight():
    plain = nn.LayerNorm(PersimmonConfig.persimmon_8b().head_dim)
    assert score_bound(plain, plain) == pytest.approx(8.0)


@pytest.mark.parametrize("channels", WIDTHS)
@pytest.mark.parametrize("bias", [0.0, 1e-9, 1.0, 50.0])
def test_no_input_is_longer_and_one_is_as_long(channels, bias):
    made = norm(channels, seed=channels, bias=bias)
    longest = float(longest_output(made.weight, made.bias))
    generator = torch.Generator().manual_seed(1)
    inputs = 1e4 * torch.randn(2000, channels, generator=generator, dtype=torch.float64)
    assert float(made(inputs).norm(dim=-1).max()) <= longest * (1 + 1e-12)

    # Climb from some of them: a convex function's best next step is the way of its gradient.
    inputs = inputs[:20]
    for _ in range(1000):
        inputs = made(inputs) * made.weight
        inputs = inputs - inputs.mean(dim=-1, keepdim=True)
        inputs = 1e4 * inputs / inputs.norm(dim=-1, keepdim=True)
    climbed = float(made(inputs).norm(dim=-1).max())
    assert climbed <= longest * (1 + 1e-9)
    assert climbed == pytest.approx(longest, rel=1e-5)


def test_a_bias_across_the_longest_direction_does_not_trouble_it():
    """The hard case: the bias has no part along the largest eigenvector, so the multiplier is the eigenvalue itself."""
    weight = torch.tensor([2.0, 2.0, 1.0, 1.0])
    # n = (1, -1, 0, 0) * sqrt(2) gives length 2 * 2; the bias along (0, 0, 1, -1) stands across it.
    bias = torch.tensor([0.0, 0.0, 0.1, -0.1])
    # On the circle of n between both directions, with part c of the first: 16c² + (2s + 0.1*sqrt(2))² is largest at ...
    angle = torch.linspace(0, 2 * math.pi, 200_001, dtype=torch.float64)
    squares = (4 * angle.cos()) ** 2 + (2 * angle.sin() + 0.1 * math.sqrt(2)) ** 2
    assert float(longest_output(weight, bias)) == pytest.approx(float(squares.max().sqrt()), rel=1e-8)


def test_it_is_below_the_bound_that_takes_the_largest_weight():
    made = norm(32, seed=3)
    loose = math.sqrt(32) * float(made.weight.abs().max()) + float(made.bias.norm())
    assert float(longest_output(made.weight, made.bias)) < 0.95 * loose


@pytest.mark.parametrize("channels", [8, 32])
@pytest.mark.parametrize("seed", range(3))
def test_no_score_exceeds_the_bound_at_any_offset(channels, seed):
    query_norm, key_norm = norm(channels, seed), norm(channels, seed + 100)
    bound = score_bound(query_norm, key_norm)
    config = PersimmonConfig.tiny(hidden_size=channels, num_attention_heads=1)
    cos, sin = tables(config, torch.arange(40))
    generator = torch.Generator().manual_seed(seed)
    query, key = 100 * torch.randn(2, 1, 50, 40, channels, generator=generator, dtype=torch.float64)
    turned = apply_rotary(query_norm(query), cos[None].double(), sin[None].double())
    scores = turned @ key_norm(key).mT / math.sqrt(channels)
    assert float(scores.abs().max()) <= bound

    found = largest_score_found(query_norm, key_norm, cos, sin)
    assert found.shape == (40,)
    assert float(scores.max()) < float(found.max()) <= bound * (1 + 1e-6)
    assert float(found.max()) > 0.4 * bound


def test_what_the_search_finds_is_a_score_of_head_vectors():
    """At offset 0 with equal weights and no bias the search must end at query = key, and the bound."""
    plain = nn.LayerNorm(16)
    cos, sin = tables(PersimmonConfig.tiny(hidden_size=16, num_attention_heads=1), torch.arange(5))
    found = largest_score_found(plain, plain, cos, sin)
    assert float(found[0]) == pytest.approx(4.0, rel=1e-6)
    assert bool((found <= 4.0 + 1e-5).all())  # the tables are float32


def test_the_search_takes_the_offset_as_query_less_key():
    """Two channels, the whole head rotates: the best score is a cosine that a direct search over angles finds."""
    config = PersimmonConfig.tiny(hidden_size=4, num_attention_heads=1, partial_rotary_factor=1.0)
    query_norm, key_norm = norm(4, 5), norm(4, 6)
    cos, sin = tables(config, torch.tensor([3]))
    generator = torch.Generator().manual_seed(2)
    query, key = 100 * torch.randn(2, 400, 4, generator=generator, dtype=torch.float64)
    turned = apply_rotary(query_norm(query)[None, None], *(table.double().expand(1, 400, 4) for table in (cos, sin)))[
        0, 0
    ]
    scores = turned @ key_norm(key).mT / 2
    found = float(largest_score_found(query_norm, key_norm, cos, sin)[0])
    assert float(scores.max()) <= found
    assert float(scores.max()) > 0.99 * found


def test_the_search_is_the_same_every_time():
    made = norm(8, 1)
    cos, sin = tables(PersimmonConfig.tiny(hidden_size=8, num_attention_heads=1), torch.arange(4))
    assert torch.equal(largest_score_found(made, made, cos, sin), largest_score_found(made, made, cos, sin))
    one, other = (largest_score_found(made, made, cos, sin, starts=1, seed=seed) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_the_shipped_models_scores_stay_inside_their_bounds():
    model, tokenizer = load_mini()
    ids = tokenizer("the king gave seven golden rings to Hannah, the king gave", return_tensors="pt").input_ids
    scores = capture(model, ids, only=["scores"]).stacked("scores")
    visible = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
    bounds = [layer_bound(layer.self_attn) for layer in model.model.layers]
    largest = scores[..., visible].abs().flatten(1).amax(dim=1)
    assert all(0.3 * bound < seen < bound for seen, bound in zip(largest.tolist(), bounds, strict=True))
    assert min(bounds) > math.sqrt(32)  # its weights have grown: the bound of weight 1 would not hold


def test_a_layer_without_the_norm_has_no_bound():
    config = dataclasses.replace(PersimmonConfig.tiny(), qk_layernorm=False)
    with pytest.raises(ValueError, match="layer 0 has no norm on queries and keys"):
        layer_bound(PersimmonModel(config, generator=torch.Generator().manual_seed(0)).layers[0].self_attn)


def test_dtype_and_gradients_of_the_weights_do_not_matter():
    made = norm(32, seed=9).requires_grad_()
    half = float(longest_output(made.weight.bfloat16(), made.bias.bfloat16()))
    assert half == pytest.approx(float(longest_output(made.weight, made.bias)), rel=2e-2)
    assert not longest_output(made.weight, made.bias).requires_grad


def test_the_bound_of_a_layer_is_that_of_its_two_norms():
    config = PersimmonConfig.tiny()
    attention = PersimmonModel(config, generator=torch.Generator().manual_seed(0)).layers[0].self_attn
    attention.q_layernorm, attention.k_layernorm = norm(config.head_dim, 1), norm(config.head_dim, 2, bias=3.0)
    lengths = [float(longest_output(each.weight, each.bias)) for each in (attention.q_layernorm, attention.k_layernorm)]
    assert lengths[1] > 1.5 * lengths[0]
    assert layer_bound(attention) == pytest.approx(lengths[0] * lengths[1] / math.sqrt(config.head_dim))


def test_the_best_of_all_starts_is_kept():
    """Without a bias a query and its negative do as well; with a small one, a start may end on the wrong side."""
    query_norm, key_norm = norm(8, 1, bias=0.2), norm(8, 2, bias=0.2)
    cos, sin = tables(PersimmonConfig.tiny(hidden_size=8, num_attention_heads=1), torch.arange(20))
    alone, together = (largest_score_found(query_norm, key_norm, cos, sin, starts) for starts in (1, 8))
    assert bool((together >= alone - 1e-9).all())
    assert bool((together > alone + 0.01).any())
