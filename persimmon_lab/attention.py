"""Causal self-attention with query/key layer norm and partial rotary positions, in two equal implementations.

`eager` computes every tensor and passes it through a named tap, so that a forward hook on the tap's module path sees
it or replaces it. `sdpa` hands query, key, value and mask to torch's fused kernel, which never builds the scores.
"""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from persimmon_lab.cache import Cache
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.inputs import has_values
from persimmon_lab.rotary import apply_rotary

HeadTensor = Float[Tensor, "batch head position channel"]
Scores = Float[Tensor, "batch head query key"]
AdditiveMask = Float[Tensor, "#batch 1 query key"]


def causal_mask(
    attention_mask: Bool[Tensor, "batch key"] | Int[Tensor, "batch key"] | Float[Tensor, "batch key"] | None,
    query_length: int,
    key_length: int,
    dtype: torch.dtype,
    device: torch.device,
    documents: Int[Tensor, "batch key"] | None = None,
) -> AdditiveMask:
    """What to add to the scores: 0 where a query may look, the dtype's lowest number where it may not.

    The queries are the last `query_length` of the `key_length` positions. Each sees the positions up to its own, less
    those where `attention_mask` is 0 and, where `documents` numbers them, less those of other documents. The lowest
    number instead of -inf keeps a row that sees nothing finite: its softmax is uniform instead of NaN. Source:
    transformers 4.37.2.
    """
    key_position = torch.arange(key_length, device=device)
    query_position = key_position[key_length - query_length :]
    visible = rearrange(key_position, "key -> 1 1 1 key") <= rearrange(query_position, "query -> 1 1 query 1")
    if attention_mask is not None:
        visible = visible & rearrange(attention_mask.to(device) != 0, "batch key -> batch 1 1 key")
    if documents is not None:
        of_query = rearrange(documents[:, key_length - query_length :], "batch query -> batch 1 query 1")
        visible = visible & (of_query == rearrange(documents, "batch key -> batch 1 1 key"))
    return torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill(~visible, torch.finfo(dtype).min)


def attention_scores(
    query: Float[Tensor, "batch head query channel"], key: Float[Tensor, "batch head key channel"], mask: AdditiveMask
) -> Scores:
    """query . key / sqrt(channel) + mask, but not below the dtype's lowest number."""
    products = einsum(query, key, "batch head query channel, batch head key channel -> batch head query key")
    scores = products / math.sqrt(query.shape[-1]) + mask
    # In float16 the lowest number less 16 is -inf already, and the softmax of a row of nothing but -inf is NaN.
    return scores.clamp(min=torch.finfo(scores.dtype).min)


def attention_pattern(scores: Scores) -> Scores:
    """Softmax over the keys, in float32 (float64 for float64 scores), cast back to the dtype of the scores."""
    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


def fused_attention(
    query: Float[Tensor, "batch head query channel"],
    key: Float[Tensor, "batch head key channel"],
    value: Float[Tensor, "batch head key channel"],
    mask: AdditiveMask | None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch head query channel"]:
    """softmax(query . key / sqrt(channel) + mask) value by torch's fused kernel, which never builds the scores.

    `mask=None` is plain causal attention without a past, or a single query that sees everything.

    The trap: on a CPU with AVX-512 the kernel (torch 2.13) takes a query whose scores are all NaN for one that sees
    nothing, and gives it zeros; in half precision it loses infinite scores as well. So on a CPU, where there are values
    to look at, a query gets NaN that is not finite itself or comes behind a key that is not; under a mask, which is
    added to the NaN, so do those before the key, as in eager.
    """
    is_causal = mask is None and bool(query.shape[-2] > 1)  # a SymBool while torch.export records
    mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout, is_causal=is_causal)
    if query.device.type == "cpu" and has_values(query):
        # A sum that is finite has no summand that is not, and takes a hundredth of the kernel's time.
        total = query.sum(dtype=torch.float32) + key.sum(dtype=torch.float32)
        if not bool(total.isfinite()):
            lost = rearrange(_is_lost(query, key, mask is None), "batch head query -> batch head query 1")
            mixed = mixed.masked_fill(lost, torch.nan)
    return mixed


def _is_lost(
    query: Float[Tensor, "batch head query channel"], key: Float[Tensor, "batch head key channel"], is_causal: bool
) -> Bool[Tensor, "batch head query"]:
    """Which queries are not finite or meet a key that is not: one up to their own place, or any of all."""
    broken = ~key.isfinite().all(dim=-1)
    met = broken.cumsum(dim=-1) > 0 if is_causal else broken.any(dim=-1, keepdim=True)
    return ~query.isfinite().all(dim=-1) | met[..., -query.shape[-2] :]


def split_heads(fused: Float[Tensor, "batch position fused"], head_dim: int) -> tuple[HeadTensor, ...]:
    """Query, key and value out of the fused projection, of all its heads.

    The trap: the layout is (head three channel). (three head channel) has the same shape and gives another model.
    """
    # Megatron interleaves q, k, v per head, so the head axis comes first.
    pattern = "batch position (head three channel) -> three batch head position channel"
    query, key, value = rearrange(fused, pattern, three=3, channel=head_dim)
    return query, key, value


class PersimmonAttention(nn.Module):
    """One attention layer: project, normalise query and key per head, rotate, look back, mix, project.

    Taps (identity modules for hooks): `rotated_query`, `rotated_key`, `value` and `head_output`, each
    (batch head position channel), in both implementations; `scores` and `pattern`, each (batch head query key), in
    eager only. Source: transformers 4.37.2 `PersimmonAttention`; query/key norm: Henry et al. 2020.
    """

    read_by_fast_engine = True

    def __init__(self, config: PersimmonConfig, layer_index: int) -> None:
        super().__init__()
        self.layer_index = layer_index
        self.head_dim = config.head_dim
        self.attention_dropout = config.attention_dropout
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        if config.qk_layernorm:
            self.q_layernorm = nn.LayerNorm(config.head_dim, eps=config.layer_norm_eps)
            self.k_layernorm = nn.LayerNorm(config.head_dim, eps=config.layer_norm_eps)
        self.qk_layernorm = config.qk_layernorm
        self.rotated_query = nn.Identity()
        self.rotated_key = nn.Identity()
        self.value = nn.Identity()
        self.scores = nn.Identity()
        self.pattern = nn.Identity()
        self.head_output = nn.Identity()

    def forward(
        self,
        hidden: Float[Tensor, "batch position hidden"],
        cos: Float[Tensor, "#batch position rotary"],
        sin: Float[Tensor, "#batch position rotary"],
        mask: AdditiveMask | None,
        cache: Cache | None = None,
        eager: bool = False,
    ) -> tuple[Float[Tensor, "batch position hidden"], Scores | None]:
        """Returns the layer's output and, in eager, its pattern.

        `mask=None` is plain causal attention without a past, or a single query that sees everything: what the fused
        kernel knows by itself. Eager needs the mask.
        """
        query, key, value = split_heads(self.query_key_value(hidden), self.head_dim)
        if self.qk_layernorm:
            query, key = self.q_layernorm(query), self.k_layernorm(key)
        query = self.rotated_query(apply_rotary(query, cos, sin))
        key = self.rotated_key(apply_rotary(key, cos, sin))
        value = self.value(value)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_index)

        dropout = self.attention_dropout if self.training else 0.0
        pattern = None
        if eager:
            assert mask is not None
            pattern = attention_pattern(self.scores(attention_scores(query, key, mask)))
            pattern = self.pattern(F.dropout(pattern, dropout))
            mixed = einsum(pattern, value, "batch head query key, batch head key channel -> batch head query channel")
        else:
            mixed = fused_attention(query, key, value, mask, dropout)
        mixed = rearrange(self.head_output(mixed), "batch head position channel -> batch position (head channel)")
        return self.dense(mixed), pattern
