"""Persimmon that writes text: the body and a projection onto the vocabulary."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from persimmon_lab.cache import Cache, LegacyCache, cache_for
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.elsewhere import OF_DECODING, OF_MODELS
from persimmon_lab.field_checks import is_whole, shown
from persimmon_lab.generation.decoding import generate
from persimmon_lab.losses import causal_lm_loss
from persimmon_lab.model import Hidden, Padding, PersimmonModel, Tokens
from persimmon_lab.outputs import CausalLMOutputWithPast
from persimmon_lab.pretrained import PersimmonPreTrainedModel


class PersimmonForCausalLM(PersimmonPreTrainedModel):
    """The body and `lm_head`, a projection without bias onto the vocabulary; `generate` writes text with it."""

    elsewhere = OF_MODELS | OF_DECODING
    _tied_weights_keys = ("lm_head.weight",)
    read_by_fast_engine = True  # see generation/engines/choosing.py; a subclass has to say so of itself
    # What Trainer asks before it counts the labels of a step, all but the first of each row, and hands the number over.
    accepts_loss_kwargs, loss_type = True, "ForCausalLM"
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
        num_items_in_batch: Tensor | int | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Next-token logits for every position, or for the last `logits_to_keep` of them; with `labels` a loss.

        Arguments and errors as in `PersimmonModel.forward`. Labels stand at their own positions (the shift by one
        happens inside); -100 is ignored. The vocabulary is large: 16k positions of 262,144 float32 logits are 17 GB,
        so generation keeps one.

        `num_items_in_batch` is what the sum of the losses is divided by, in place of the labels of this batch: how many
        there are in all the batches of an accumulated step, so that their losses add up to the mean over tokens.
        transformers' Trainer hands it over.
        """
        if not is_whole(logits_to_keep) or logits_to_keep < 0:
            raise ValueError(f"logits_to_keep is {shown(logits_to_keep)}; give how many last positions, 0 for all")
        if labels is not None and logits_to_keep:
            raise ValueError(f"labels need every position's logits; logits_to_keep is {logits_to_keep}, not 0")
        return_dict = self.config.use_return_dict if return_dict is None else return_dict
        body = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache, output_attentions,
            output_hidden_states, return_dict=True,
        )  # fmt: skip
        logits = self.lm_head(body.last_hidden_state[:, -logits_to_keep:])
        output = CausalLMOutputWithPast(
            loss=None if labels is None else causal_lm_loss(logits, labels, num_items_in_batch),
            logits=logits,
            past_key_values=body.past_key_values,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
        )
        return output if return_dict else output.to_tuple()

    def get_decoder(self) -> PersimmonModel:
        return self.model

    def set_decoder(self, decoder: PersimmonModel) -> None:
        self.model = decoder

    def prepare_inputs_for_generation(
        self,
        input_ids: Tokens,
        past_key_values: Cache | LegacyCache | None = None,
        attention_mask: Padding | None = None,
        inputs_embeds: Float[Tensor, "batch prompt hidden"] | None = None,
        position_ids: Int[Tensor, "#batch key"] | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What a decoding loop of transformers calls the model with next: the ids that the cache does not hold yet, at
        positions that count what `attention_mask` shows. `inputs_embeds` are for the first call. Others are left out.

        Our own `generate` never asks; where this was replaced, as by peft's prompt tuning, it refuses.
        """
        seen = cache_for(past_key_values, len(self.model.layers)).get_seq_length()
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
        inputs: dict[str, Any] = {"input_ids": input_ids[:, seen:]}
        if inputs_embeds is not None and not seen:
            inputs = {"inputs_embeds": inputs_embeds}
        return inputs | {
            "position_ids": None if position_ids is None else position_ids[:, seen:],
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "attention_mask": attention_mask,
        }

    def compute_transition_scores(
        self,
        sequences: Tokens,
        scores: Sequence[Float[Tensor, "row vocab"]],
        beam_indices: Int[Tensor, "batch step"] | None = None,
        normalize_logits: bool = False,
    ) -> Float[Tensor, "batch longest"]:
        """The scores of the tokens that were chosen, from what `generate` returns with `return_dict_in_generate=True`
        and `output_scores=True`; with `normalize_logits` their log-probabilities.

        `beam_indices` says which row of `scores` each token of a row was chosen from, -1 after its end, where the
        result is 0; without it each row has its own.
        """
        table = torch.stack(list(scores))  # (step row vocab)
        if normalize_logits:
            table = table.log_softmax(dim=-1)
        steps = torch.arange(len(table), device=table.device)
        if beam_indices is None:
            tokens = sequences[:, -len(table) :]
            if len(tokens) != table.shape[1]:
                raise ValueError(
                    f"{len(tokens)} sequences, but scores of {table.shape[1]} rows: of beams, say by beam_indices "
                    "which row each token was chosen from"
                )
            return table[steps, rearrange(torch.arange(len(tokens), device=table.device), "batch -> batch 1"), tokens]
        chosen = beam_indices >= 0
        longest = int(chosen.sum(dim=-1).max())
        chosen = chosen[:, :longest]
        rows = beam_indices[:, :longest].clamp(min=0)
        return table[steps[:longest], rows, sequences[:, -longest:]].masked_fill(~chosen, 0.0)
