"""What every Persimmon model can do besides its forward pass: initialise, resize, tie, report, load and save."""

from typing import Any, Self

import torch
from torch import nn

from persimmon_lab.checkpoints.loading import Pretrained
from persimmon_lab.config import ATTENTION_IMPLEMENTATIONS, PersimmonConfig


class PersimmonPreTrainedModel(Pretrained):
    """The shared base of the body and the heads. The body is `self.model`, or `self` when it is the body."""

    config_class = PersimmonConfig
    base_model_prefix = "model"

    def __init__(self, config: PersimmonConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def body(self) -> Any:  # a class that stands a floor above this one
        """The `PersimmonModel` inside, or itself."""
        return getattr(self, self.base_model_prefix) if self.base_model_prefix else self

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the first weight that is not kept elsewhere (those are on meta)."""
        return next((weight.device for weight in self.parameters() if not weight.is_meta), torch.device("meta"))

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def num_parameters(self) -> int:
        """How many numbers the model holds; tied ones count once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @torch.no_grad()
    def initialize_weights(self, generator: torch.Generator | None = None, only: nn.Module | None = None) -> None:
        """Linear and Embedding weights from N(0, initializer_range), biases and the padding row 0. Source: 4.37.2."""
        for module in (only or self).modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(0.0, self.config.initializer_range, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].zero_()

    def get_input_embeddings(self) -> nn.Module:
        embedding: nn.Module = self.body.embed_tokens
        return embedding

    def set_input_embeddings(self, embedding: nn.Module) -> None:
        self.body.embed_tokens = embedding

    def get_output_embeddings(self) -> nn.Module | None:
        """The projection onto the vocabulary, where there is one."""
        return getattr(self, "lm_head", None)

    def set_output_embeddings(self, projection: nn.Module) -> None:
        self.lm_head = projection

    def tie_weights(self) -> None:
        """Let the output projection share the embedding's tensor where the configuration says so."""
        projection = self.get_output_embeddings()
        if self.config.tie_word_embeddings and projection is not None:
            projection.weight = self.get_input_embeddings().weight

    @torch.no_grad()
    def resize_token_embeddings(self, new_num_tokens: int, generator: torch.Generator | None = None) -> nn.Embedding:
        """Grow or shrink the vocabulary, keeping the rows both have; new rows are N(0, initializer_range).

        Changes the embedding, the output projection and `config.vocab_size`; returns the embedding. Raises ValueError
        for a size below 1, or one that would cut off the padding row.
        """
        padding = self.config.pad_token_id
        if new_num_tokens < 1 or (padding is not None and padding >= new_num_tokens):
            raise ValueError(f"cannot resize the vocabulary to {new_num_tokens} tokens (pad_token_id is {padding})")
        old = self.get_input_embeddings()
        if not isinstance(old, nn.Embedding):
            raise ValueError(f"the embedding is a {type(old).__name__}, not torch's: load the model again to resize it")
        embedding = nn.Embedding(new_num_tokens, old.embedding_dim, old.padding_idx, device=old.weight.device,
                                 dtype=old.weight.dtype)  # fmt: skip
        self.initialize_weights(generator, only=embedding)
        common = min(new_num_tokens, old.num_embeddings)
        embedding.weight[:common] = old.weight[:common]
        self.set_input_embeddings(embedding)
        if (head := self.get_output_embeddings()) is not None:
            weight = head.get_parameter("weight")
            projection = nn.Linear(weight.shape[1], new_num_tokens, bias=False, device=weight.device,
                                   dtype=weight.dtype)  # fmt: skip
            self.initialize_weights(generator, only=projection)
            projection.weight[:common] = weight[:common]
            self.set_output_embeddings(projection)
        self.config.vocab_size = new_num_tokens
        self.tie_weights()
        return embedding

    def gradient_checkpointing_enable(self) -> Self:
        """Recompute each layer in the backward pass instead of keeping its activations (training mode only)."""
        self.body.gradient_checkpointing = True
        return self

    def gradient_checkpointing_disable(self) -> Self:
        self.body.gradient_checkpointing = False
        return self

    def set_attn_implementation(self, implementation: str) -> Self:
        """Choose "sdpa" (fused) or "eager" (every tensor can be looked at)."""
        if implementation not in ATTENTION_IMPLEMENTATIONS:
            raise ValueError(f"attention implementation {implementation!r}; choose 'sdpa' or 'eager'")
        self.config.attn_implementation = implementation
        return self
