"""Persimmon that classifies text: the body and a projection of the last token onto labels."""

import warnings
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from persimmon_lab.cache import Cache, LegacyCache
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.inputs import has_values
from persimmon_lab.losses import classification_loss
from persimmon_lab.model import Hidden, Padding, PersimmonModel, Tokens
from persimmon_lab.outputs import SequenceClassifierOutputWithPast
from persimmon_lab.pretrained import PersimmonPreTrainedModel


class PersimmonForSequenceClassification(PersimmonPreTrainedModel):
    """The body and `score`, a projection without bias of each row's last token onto `config.num_labels` labels."""

    # For transformers' Trainer: the loss takes `num_items_in_batch`, and the labels stand where they are predicted.
    accepts_loss_kwargs, loss_type = True, "ForSequenceClassification"

    def __init__(self, config: PersimmonConfig, generator: torch.Generator | None = None) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = PersimmonModel(config, generator)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.initialize_weights(generator, only=self.score)

    def forward(
        self,
        input_ids: Tokens | None = None,
        attention_mask: Padding | None = None,
        position_ids: Int[Tensor, "#batch position"] | None = None,
        past_key_values: Cache | LegacyCache | None = None,
        inputs_embeds: Hidden | None = None,
        labels: Shaped[Tensor, "batch *label"] | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Label logits read off the rightmost token that is not `pad_token_id`, off the last position when there is
        no `pad_token_id` or the input is embeddings; with `labels` a loss (see `classification_loss`). As in
        transformers the mask does not say where a text ends; where it hides what is read, there is a warning.

        `num_items_in_batch` says how many labels there are in all the batches of an accumulated step, so that their
        losses add up to the mean over all of them. transformers' Trainer hands it over.
        """
        return_dict = self.config.use_return_dict if return_dict is None else return_dict
        body = self.model(
            input_ids, attention_mask, position_ids, past_key_values, inputs_embeds, use_cache, output_attentions,
            output_hidden_states, return_dict=True,
        )  # fmt: skip
        hidden = body.last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)
        last = self._last_token(input_ids, hidden)
        if attention_mask is not None:
            _warn_of_hidden(attention_mask[:, -hidden.shape[1] :], last)
        logits = self.score(hidden[rows, last])
        output = SequenceClassifierOutputWithPast(
            loss=None
            if labels is None
            else classification_loss(logits, labels, self.config.problem_type, num_items_in_batch),
            logits=logits,
            past_key_values=body.past_key_values,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
        )
        return output if return_dict else output.to_tuple()

    def _last_token(self, input_ids: Tokens | None, hidden: Hidden) -> Int[Tensor, "batch"]:
        """Each row's position to classify; a row of nothing but padding gives its last position."""
        batch, length, _ = hidden.shape
        last = torch.full((batch,), length - 1, device=hidden.device)
        if input_ids is None:
            return last
        if self.config.pad_token_id is None:
            if batch > 1:
                raise ValueError(
                    f"a batch of {batch} rows, but config.pad_token_id is None: where a padded row ends is unknown; "
                    "set config.pad_token_id or classify one row at a time"
                )
            return last
        is_text = (input_ids != self.config.pad_token_id).to(hidden.device)
        positions = torch.arange(length, device=hidden.device)
        rightmost = torch.where(is_text, positions, -1).amax(dim=-1)
        return torch.where(rightmost < 0, last, rightmost)


def _warn_of_hidden(attention_mask: Padding, last: Int[Tensor, "batch"]) -> None:
    if not has_values(attention_mask):
        return
    is_hidden = attention_mask.to(last.device).gather(1, rearrange(last, "batch -> batch 1")) == 0
    if bool(is_hidden.any()):
        row = int(is_hidden.nonzero()[0, 0])
        warnings.warn(
            f"row {row} is classified by its position {int(last[row])}, which attention_mask hides: fill rows with "
            "config.pad_token_id, and embeddings on the left",
            stacklevel=3,
        )
