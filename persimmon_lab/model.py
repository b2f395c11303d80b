"""The Persimmon model: decoder layer and body, with the names and numbers of transformers 4.37.2."""

import warnings

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from persimmon_lab.attention import AdditiveMask, PersimmonAttention, Scores, causal_mask
from persimmon_lab.cache import Cache, DynamicCache, LegacyCache
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.losses import check_range
from persimmon_lab.mlp import PersimmonMLP
from persimmon_lab.outputs import BaseModelOutputWithPast
from persimmon_lab.pretrained import PersimmonPreTrainedModel
from persimmon_lab.rotary import rotary_tables

Tokens = Int[Tensor, "batch position"]
Padding = Bool[Tensor, "batch key"] | Int[Tensor, "batch key"] | Float[Tensor, "batch key"]
Hidden = Float[Tensor, "batch position hidden"]


class PersimmonDecoderLayer(nn.Module):
    """`x + attention(norm(x))`, then `x + dropout(mlp(norm(x)))`: pre-norm, with dropout after the MLP alone."""

    read_by_fast_engine = True

    def __init__(self, config: PersimmonConfig, layer_index: int) -> None:
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = PersimmonAttention(config, layer_index)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PersimmonMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        hidden: Hidden,
        cos: Float[Tensor, "#batch position rotary"],
        sin: Float[Tensor, "#batch position rotary"],
        mask: AdditiveMask | None,
        cache: Cache | None = None,
        eager: bool = False,
    ) -> tuple[Hidden, Scores | None]:
        attended, pattern = self.self_attn(self.input_layernorm(hidden), cos, sin, mask, cache, eager)
        hidden = hidden + attended
        return hidden + self.dropout(self.mlp(self.post_attention_layernorm(hidden))), pattern


class PersimmonModel(PersimmonPreTrainedModel):
    """Embedding, decoder layers, final LayerNorm: from token ids to hidden states.

    `PersimmonModel(config, generator=None)` draws its weights from `generator`, or from torch's global one.
    """

    base_model_prefix = ""
    read_by_fast_engine = True

    def __init__(self, config: PersimmonConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.layers = nn.ModuleList(PersimmonDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.initialize_weights(generator)

    def forward(
        self,
        input_ids: Tokens | None = None,
        attention_mask: Padding | None = None,
        position_ids: Int[Tensor, "#batch position"] | None = None,
        past_key_values: Cache | LegacyCache | None = None,
        inputs_embeds: Hidden | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPast | tuple:
        """Run the layers over new positions, after those that `past_key_values` remembers.

        `attention_mask` covers the past as well: (batch, past + position), 0 for padding. It does not move
        `position_ids`, which count on from the past by default. A cache object comes back as itself, a legacy tuple
        (or nothing) as a legacy tuple; with `use_cache=False` a given past is read but not extended. Asking for
        attentions, or for gradients of left-padded rows, uses eager attention for this call.

        Raises ValueError for inputs that do not fit together and IndexError for ids or positions out of range.
        """
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        use_cache = config.use_cache if use_cache is None else use_cache
        return_dict = config.use_return_dict if return_dict is None else return_dict
        if (input_ids is None) == (inputs_embeds is None):
            given = "neither" if input_ids is None else "both"
            raise ValueError(f"give either input_ids or inputs_embeds; {given} of them was given")
        recompute = self.gradient_checkpointing and self.training
        if recompute and use_cache:
            warnings.warn("gradient checkpointing keeps no cache: use_cache is False for this call", stacklevel=2)
            use_cache = False

        if inputs_embeds is None:
            check_range(input_ids, config.vocab_size, "token id")
            inputs_embeds = self.embed_tokens(input_ids)
        batch, query_length, _ = inputs_embeds.shape
        returns_legacy = not isinstance(past_key_values, Cache)
        cache = DynamicCache.from_legacy_cache(past_key_values) if returns_legacy else past_key_values
        if not use_cache and not returns_legacy:
            cache = DynamicCache.from_legacy_cache(cache.to_legacy_cache())  # read it, leave the caller's as it is
        past_length = cache.get_seq_length()
        if recompute and past_length:
            raise ValueError(
                "gradient checkpointing keeps no cache, but past_key_values hold "
                f"{past_length} positions; train without a past, or call gradient_checkpointing_disable()"
            )
        key_length = past_length + query_length

        if position_ids is None:
            position_ids = rearrange(torch.arange(past_length, key_length, device=inputs_embeds.device), "p -> 1 p")
        else:
            check_range(position_ids, max(config.max_position_embeddings, key_length), "position id")
            if position_ids.shape[-1] != query_length:
                raise ValueError(f"position_ids name {position_ids.shape[-1]} positions, the input has {query_length}")
        cos, sin = rotary_tables(position_ids, config, key_length, inputs_embeds.dtype)
        eager = output_attentions or config.attn_implementation == "eager"
        if not eager and attention_mask is not None and torch.is_grad_enabled():
            # Of a query that sees nothing, torch's fused kernel returns the mean of the values, but a wrong gradient.
            eager = bool((attention_mask[:, : past_length + 1] == 0).all(dim=-1).any())
        mask = self._mask(attention_mask, batch, query_length, key_length, inputs_embeds, eager)

        hidden, hidden_states, attentions = inputs_embeds, [], []
        for layer in self.layers:
            if output_hidden_states:
                hidden_states.append(hidden)
            if recompute:
                hidden, pattern = checkpoint(layer, hidden, cos, sin, mask, None, eager, use_reentrant=False)
            else:
                hidden, pattern = layer(hidden, cos, sin, mask, cache if use_cache or past_length else None, eager)
            if output_attentions:
                attentions.append(pattern)
        hidden = self.final_layernorm(hidden)
        hidden_states.append(hidden)

        output = BaseModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=(cache.to_legacy_cache() if returns_legacy else cache) if use_cache else None,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        return output if return_dict else output.to_tuple()

    def _mask(
        self,
        attention_mask: Padding | None,
        batch: int,
        query_length: int,
        key_length: int,
        like: Tensor,
        eager: bool,
    ) -> AdditiveMask | None:
        """The additive mask, or None where the fused kernel's own causal mask says the same without one."""
        if attention_mask is not None and tuple(attention_mask.shape) != (batch, key_length):
            raise ValueError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; expected (batch {batch}, positions "
                f"{key_length}), of which {key_length - query_length} are in the cache"
            )
        plain = query_length == 1 or query_length == key_length
        if not eager and plain and (attention_mask is None or bool((attention_mask != 0).all())):
            return None
        return causal_mask(attention_mask, query_length, key_length, like.dtype, like.device)
