"""Persimmon that writes text: the body and a projection onto the vocabulary."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.cache import Cache, LegacyCache
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.generation.decoding import generate
from persimmon_lab.losses import causal_lm_loss
from persimmon_lab.model import Hidden, Padding, PersimmonModel, Tokens
from persimmon_lab.outputs import CausalLMOutputWithPast
from persimmon_lab.pretrained import PersimmonPreTrainedModel


class PersimmonForCausalLM(PersimmonPreTrainedModel):
    """The body and `lm_head`, a projection without bias onto the vocabulary; `generate` writes text with it."""

    _tied_weights_keys = ("lm_head.weight",)
    read_by_fast_engine = True  # see generation/engines/choosing.py; a subclass has to say so of itself
    generate = generate

    def __init__(self, config: PersimmonConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        self.model = PersimmonModel(config, generator)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.initialize_weights(generator, only=self.lm_head)
        self.tie_weights()

    def forward(
        self,
        input_ids: Tokens | None = None,
        attention_mask: Padding | None = None,
        position_ids: Int[Tensor, "#batch position"] | None = None,
        past_key_values: Cache | LegacyCache | None = None,
        inputs_embeds: Hidden | None = None,
        labels: Tokens | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Next-token logits for every position, or for the last `logits_to_keep` of them; with `labels` a loss.

        Arguments and errors as in `PersimmonModel.forward`. Labels stand at their own positions (the shift by one
        happens inside); -100 is ignored. The vocabulary is large: 16k positions of 262,144 float32 logits are 17 GB,
        so generation keeps one.
        """
        if labels is not None and logits_to_keep:
            raise ValueError(f"labels need every position's logits; logits_to_keep is {logits_to_keep}, not 0")
        return_dict = self.config.use_return_dict if return_dict is None else return_dict
        body = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache, output_attentions,
            output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.lm_head(body.last_hidden_state[:, -logits_to_keep:])
        output = CausalLMOutputWithPast(
            loss=None if labels is None else causal_lm_loss(logits, labels),
            logits=logits,
            past_key_values=body.past_key_values,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
        )
        return output if return_dict else output.to_tuple()
