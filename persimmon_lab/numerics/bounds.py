"""How large a score can become after the norm on queries and keys, computed from the norm's weights alone.

LayerNorm turns any head vector into n, whose mean is 0 and whose length is at most sqrt(channel), and returns
weight * n + bias. Rotation keeps lengths, so for every input and at every offset, by Cauchy and Schwarz,

    |score| = |query . key| / sqrt(channel) <= longest query * longest key / sqrt(channel).

Weight 1 and bias 0 give sqrt(channel): 8 for Persimmon-8B's heads of 64. Source: Henry et al. 2020, Query-Key
Normalization for Transformers, section 2; Dehghani et al. 2023, ViT-22B, section 2.1, with LayerNorm as here.
"""

import math

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.attention import PersimmonAttention
from persimmon_lab.rotary import apply_rotary

Channels = Float[Tensor, "channel"]
HALVINGS = 100  # of the interval that holds the multiplier; float64 has nothing left to halve after about 60
ROUNDS = 30  # of the search, which gains nothing visible after 20


def longest_output(weight: Channels, bias: Channels) -> Float[Tensor, ""]:
    """The largest length of `weight * n + bias` over all n of mean 0 and length up to sqrt(channel), in float64.

    Exact, although the set has no corner to look at: for any multiplier m at least the largest eigenvalue of
    A = P diag(weight²) P, where P subtracts the mean, the square of the length is at most

        |bias|² + m * channel + sum of g²/(m - eigenvalue),     g = P (weight * bias) along A's eigenvectors,

    and the smallest of these bounds is attained (the trust-region problem; Nocedal and Wright, section 4.3).
    The trap: sqrt(channel) * max|weight| + |bias| is a bound as well, but no vector gets there.
    """
    weight, bias = weight.detach().double().cpu(), bias.detach().double().cpu()
    channels = len(weight)
    subtract_mean = torch.eye(channels, dtype=torch.float64) - 1 / channels
    curvature = einsum(subtract_mean, weight.square(), subtract_mean, "row inner, inner, inner column -> row column")
    eigenvalues, directions = torch.linalg.eigh(curvature)
    slope = einsum(directions, subtract_mean @ (weight * bias), "channel eigen, channel -> eigen").square()
    gaps = eigenvalues[-1] - eigenvalues

    def pull(above: float, power: int) -> float:
        """The sum of g²/(m - eigenvalue)^power at m = the largest eigenvalue + above; 0/0 is 0, for no pull at all."""
        return float(torch.where(slope > 0, slope / (gaps + above) ** power, 0.0).sum())

    low, high = 0.0, math.sqrt(float(slope.sum()) / channels)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if pull(middle, 2) > channels else (low, middle)
    square: Tensor = bias.square().sum() + (eigenvalues[-1] + high) * channels + pull(high, 1)
    return square.sqrt()


def score_bound(query_norm: nn.LayerNorm, key_norm: nn.LayerNorm) -> float:
    """No score behind these two norms is larger, or smaller than its negative, whatever the input and the offset."""
    query, key = (longest_output(norm.weight, norm.bias) for norm in (query_norm, key_norm))
    return float(query * key) / math.sqrt(len(query_norm.weight))


def layer_bound(attention: PersimmonAttention) -> float:
    """`score_bound` of one attention layer, whose heads share their norms."""
    if not attention.qk_layernorm:
        raise ValueError(
            f"layer {attention.layer_index} has no norm on queries and keys (qk_layernorm is False), so nothing bounds "
            "its scores: they grow with the square of the hidden state"
        )
    return score_bound(attention.q_layernorm, attention.k_layernorm)


def _best_partner(towards: Float[Tensor, "start channel"], norm: nn.LayerNorm) -> Float[Tensor, "start channel"]:
    """The output of the norm that has the largest dot product with each `towards`."""
    weight, bias = norm.weight.detach().double(), norm.bias.detach().double()
    pull = towards * weight
    pull = pull - pull.mean(dim=-1, keepdim=True)
    normal: Tensor = math.sqrt(len(weight)) * pull / pull.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    return weight * normal + bias


def largest_score_found(
    query_norm: nn.LayerNorm,
    key_norm: nn.LayerNorm,
    cos: Float[Tensor, "offset rotary"],
    sin: Float[Tensor, "offset rotary"],
    starts: int = 8,
    seed: int = 0,
) -> Float[Tensor, "offset"]:
    """The largest score that a search finds at each offset: what the bound is measured against.

    From random starts, the best query for the key and the best key for the query in turn: each step is exact, so the
    score only grows. Every one is attained by some head vectors, up to the norm's epsilon. `cos` and `sin` are rotary
    tables of the offsets, query position less key position.
    """
    generator = torch.Generator().manual_seed(seed)
    offsets, channels = len(cos), len(query_norm.weight)
    cos, sin = (repeat(table.double(), "offset rotary -> start offset rotary", start=starts) for table in (cos, sin))

    def turned(vectors: Tensor, direction: int) -> Tensor:
        heads = rearrange(vectors, "(start offset) channel -> start 1 offset channel", offset=offsets)
        return rearrange(apply_rotary(heads, cos, direction * sin), "start 1 offset channel -> (start offset) channel")

    query = torch.randn(starts * offsets, channels, generator=generator, dtype=torch.float64)
    for _ in range(ROUNDS):
        key = _best_partner(turned(query, 1), key_norm)
        query = _best_partner(turned(key, -1), query_norm)
    scores = einsum(turned(query, 1), key, "start_offset channel, start_offset channel -> start_offset")
    scores = rearrange(scores, "(start offset) -> start offset", offset=offsets)
    return scores.amax(dim=0) / math.sqrt(channels)
