"""What generation asks of a model, and nothing else of it: so `model.generate` can stand on generation."""

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from persimmon_lab.cache import Cache
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.outputs import CausalLMOutputWithPast


@runtime_checkable
class Decodable(Protocol):
    """A causal language model that the decoding loop can call; one of its own that has these is decoded as well.

    `generation_config` may be there besides; where it is missing, the defaults hold.
    """

    config: PersimmonConfig

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""

    @property
    def dtype(self) -> torch.dtype:
        """What its cache will be in, for the estimate of memory."""

    def get_input_embeddings(self) -> nn.Module:
        """What makes embeddings of ids, for prompts that begin with embeddings."""

    def __call__(
        self,
        input_ids: Int[Tensor, "batch position"] | None = None,
        attention_mask: Int[Tensor, "batch key"] | Bool[Tensor, "batch key"] | None = None,
        position_ids: Int[Tensor, "batch position"] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Float[Tensor, "batch position hidden"] | None = None,
        use_cache: bool = True,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast | Any:
        """`.logits` of the last `logits_to_keep` positions (0: of all) and `.past_key_values`, the cache extended."""
