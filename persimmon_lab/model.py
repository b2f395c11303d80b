"""The Persimmon model: decoder layer and body, with the names and numbers of transformers 4.37.2."""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from persimmon_lab.attention import AdditiveMask, PersimmonAttention, Scores, causal_mask
from persimmon_lab.cache import Cache, DynamicCache, LegacyCache, cache_for
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.inputs import (
    check_ids,
    check_padding,
    check_positions,
    check_range,
    documents_of,
    has_values,
    hides_nothing,
)
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


@dataclass
class _Inputs:
    """What the layers get, of arguments that fit together."""

    hidden: Hidden
    cos: Float[Tensor, "#batch position rotary"]
    sin: Float[Tensor, "#batch position rotary"]
    mask: AdditiveMask | None
    eager: bool
    recompute: bool
    cache: Cache | None
    past_key_values: Cache | LegacyCache | None
    """As it was given; None where nothing is to be remembered."""

    def remembered(self) -> Cache | LegacyCache | None:
        """The past to return after the layers: in the format that went in."""
        if isinstance(self.past_key_values, tuple | list) and isinstance(self.cache, DynamicCache):
            return self.cache.to_legacy_cache()
        return self.past_key_values


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
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Run the layers over new positions, after those that `past_key_values` remembers.

        `attention_mask` covers the past as well: (batch, past + position), 0 for padding. It does not move
        `position_ids`, which count on from the past by default. A cache object comes back as itself, a legacy tuple
        (or nothing) as a legacy tuple; with `use_cache=False` a given past is read but not extended. Asking for
        attentions, or for gradients of left-padded rows, uses eager attention for this call.

        `position_ids` turn queries and keys and hide nothing, with one exception: without a mask, a past and a cache,
        a row whose positions count from 0 and begin again at 0 packs documents, and none of them sees another.

        Raises ValueError for inputs that do not fit together, TypeError for a past that is no cache, and IndexError
        for ids or positions out of range.
        """
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        use_cache = config.use_cache if use_cache is None else use_cache
        return_dict = config.use_return_dict if return_dict is None else return_dict
        given = self._settle(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache, output_attentions
        )

        hidden, hidden_states, attentions = given.hidden, [], []
        for layer in self.layers:
            if output_hidden_states:
                hidden_states.append(hidden)
            run = partial(checkpoint, layer, use_reentrant=False) if given.recompute else layer
            hidden, pattern = run(hidden, given.cos, given.sin, given.mask, given.cache, given.eager)
            if output_attentions:
                attentions.append(pattern)
        hidden = self.final_layernorm(hidden)
        hidden_states.append(hidden)

        output = BaseModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=given.remembered(),
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )
        return output if return_dict else output.to_tuple()

    def _settle(
        self,
        input_ids: Tokens | None,
        attention_mask: Padding | None,
        position_ids: Int[Tensor, "#batch position"] | None,
        past_key_values: Cache | LegacyCache | None,
        inputs_embeds: Hidden | None,
        use_cache: bool,
        eager: bool,
    ) -> _Inputs:
        """Check the arguments of `forward` and fill in what was left out."""
        config = self.config
        recompute = self.gradient_checkpointing and self.training
        if recompute and use_cache:
            warnings.warn("gradient checkpointing keeps no cache: use_cache is False for this call", stacklevel=3)
            use_cache = False
        hidden = self._embedded(input_ids, inputs_embeds)
        cache = cache_for(past_key_values, len(self.layers), extend=use_cache, rows=len(hidden))
        past = cache.get_seq_length()
        if recompute and past:
            raise ValueError(
                f"gradient checkpointing keeps no cache, but past_key_values hold {past} positions; train without a "
                "past, or call gradient_checkpointing_disable()"
            )
        length = past + hidden.shape[1]
        if attention_mask is not None:
            check_padding(attention_mask, len(hidden), length, past)
        if has_values(hidden) and length > config.context_limit:
            warnings.warn(
                f"the text is longer than the {config.context_limit} positions that the model knows (context_limit); "
                "what it says of later ones means little",
                stacklevel=3,
            )
        documents = None
        if position_ids is None:
            position_ids = rearrange(torch.arange(past, length, device=hidden.device), "position -> 1 position")
        else:
            highest = max(config.max_position_embeddings, length)
            check_positions(position_ids, len(hidden), hidden.shape[1], highest)
            if attention_mask is None and not (past or use_cache):
                documents = documents_of(position_ids)
        cos, sin = rotary_tables(position_ids, config, length, hidden.dtype)
        eager = eager or config.attn_implementation == "eager" or _needs_eager(attention_mask, past)
        return _Inputs(
            hidden=hidden,
            cos=cos,
            sin=sin,
            mask=_mask(attention_mask, documents, hidden, length, eager),
            eager=eager,
            recompute=recompute,
            cache=cache if use_cache or past else None,
            past_key_values=(() if past_key_values is None else past_key_values) if use_cache else None,
        )

    def _embedded(self, input_ids: Tokens | None, inputs_embeds: Hidden | None) -> Hidden:
        if input_ids is not None and inputs_embeds is None:
            check_ids(input_ids)
            check_range(input_ids, self.config.vocab_size, "token id")
            embedded: Tensor = self.embed_tokens(input_ids)
            return embedded
        if inputs_embeds is None or input_ids is not None:
            given = "neither" if input_ids is None else "both"
            raise ValueError(f"give either input_ids or inputs_embeds; {given} of them was given")
        check_ids(inputs_embeds, self.config.hidden_size)
        return inputs_embeds


def _needs_eager(attention_mask: Padding | None, past: int) -> bool:
    """Whether gradients may pass through a query that sees nothing, which left padding makes.

    There torch's fused kernel returns the mean of the values, but a wrong gradient.
    """
    if attention_mask is None or not torch.is_grad_enabled():
        return False
    return not has_values(attention_mask) or bool((attention_mask[:, : past + 1] == 0).all(dim=-1).any())


def _mask(
    attention_mask: Padding | None,
    documents: Int[Tensor, "batch position"] | None,
    hidden: Hidden,
    key_length: int,
    eager: bool,
) -> AdditiveMask | None:
    """The additive mask, or None where the fused kernel's own causal mask says the same without one."""
    query_length = hidden.shape[1]
    is_plain = documents is None and (attention_mask is None or hides_nothing(attention_mask))
    if not eager and is_plain and (query_length == 1 or query_length == key_length):
        return None
    return causal_mask(attention_mask, query_length, key_length, hidden.dtype, hidden.device, documents)
