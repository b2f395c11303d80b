"""What every Persimmon model can do besides its forward pass: initialise, resize, tie, report, load and save."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from persimmon_lab.checkpoints.loading import Pretrained
from persimmon_lab.config import ATTENTION_IMPLEMENTATIONS, PersimmonConfig
from persimmon_lab.elsewhere import OF_MODELS, Elsewhere
from persimmon_lab.field_checks import is_whole
from persimmon_lab.quantisation import QuantisedLinear, RoundedWeight, check_plain, rounded_weights


class PersimmonPreTrainedModel(Elsewhere, Pretrained):
    """The shared base of the body and the heads. The body is `self.model`, or `self` when it is the body."""

    elsewhere = OF_MODELS
    config_class = PersimmonConfig
    base_model_prefix = "model"
    # What Trainer and its like ask of a class.
    main_input_name = "input_ids"
    framework = "pt"
    is_parallelizable = False
    supports_gradient_checkpointing = True
    _input_gradients: RemovableHandle | None = None

    def __init__(self, config: PersimmonConfig) -> None:
        super().__init__()
        if not isinstance(config, PersimmonConfig):
            raise TypeError(
                f"config is a {type(config).__name__}; give a PersimmonConfig, as PersimmonConfig(**fields)"
            )
        self.config = config
        self.warnings_issued: dict[str, bool] = {}

    @classmethod
    def can_generate(cls) -> bool:
        return hasattr(cls, "generate")

    @property
    def base_model(self) -> Any:
        """transformers' name of `body`."""
        return self.body

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def padding_idx(self) -> int | None:
        """The id whose embedding is 0 and learns nothing."""
        return self.config.pad_token_id

    @property
    def dummy_inputs(self) -> dict[str, Int[Tensor, "batch position"]]:
        """Three short rows of ids, to run the model once."""
        return {"input_ids": torch.tensor([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]], device=self.device)}

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

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the model holds, of all or `only_trainable` parameters; tied ones count once.

        `exclude_embeddings` leaves out the table of the inputs, and with it the output's where the two are tied.
        """
        left_out = {id(weight) for weight in self.get_input_embeddings().parameters()} if exclude_embeddings else set()
        rounded = {id(weight): weight for weight in rounded_weights(self).values()}
        if exclude_embeddings:
            left_out.add(id(self.get_input_embeddings().weight))
        weights: list[nn.Parameter | RoundedWeight] = [*self.parameters(), *rounded.values()]
        return sum(
            weight.numel() for weight in weights
            if id(weight) not in left_out and (weight.requires_grad or not only_trainable)
        )  # fmt: skip

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Bytes of the parameters, tied ones once, and of the buffers."""
        buffers = self.buffers() if return_buffers else ()
        return sum(tensor.nbytes for tensor in [*self.parameters(), *buffers])

    def estimate_tokens(self, input_dict: Mapping[str, Any]) -> int:
        """How many tokens a batch has, padding included; 0, with one warning, where it has no `input_ids`."""
        if self.main_input_name in input_dict:
            return math.prod(input_dict[self.main_input_name].shape)
        if "estimate_tokens" not in self.warnings_issued:
            self.warnings_issued["estimate_tokens"] = True
            warnings.warn(f"a batch without {self.main_input_name}: its tokens and operations count as 0", stacklevel=2)
        return 0

    def floating_point_ops(self, input_dict: Mapping[str, Any], exclude_embeddings: bool = True) -> int:
        """Of a batch, forward and backward: 6 for each token and parameter. Source: Kaplan et al., 2020."""
        return 6 * self.estimate_tokens(input_dict) * self.num_parameters(exclude_embeddings=exclude_embeddings)

    @torch.no_grad()
    def initialize_weights(self, generator: torch.Generator | None = None, only: nn.Module | None = None) -> None:
        """Linear and Embedding weights from N(0, initializer_range), biases and the padding row 0. Source: 4.37.2."""
        check_plain(only or self, "drawing weights")
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

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.body.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module | None:
        """The projection onto the vocabulary, where there is one."""
        return getattr(self, "lm_head", None)

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def tie_weights(self) -> None:
        """Let the output projection share the embedding's tensor where the configuration says so."""
        projection = self.get_output_embeddings()
        if self.config.tie_word_embeddings and projection is not None:
            weight = self.get_input_embeddings().weight
            if isinstance(weight, RoundedWeight):
                self.set_output_embeddings(QuantisedLinear(weight, bias=None))
            else:
                projection.weight = weight

    @torch.no_grad()
    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        generator: torch.Generator | None = None,
        *,
        pad_to_multiple_of: int | None = None,
    ) -> nn.Embedding:
        """Grow or shrink the vocabulary, keeping the rows both have; new rows are N(0, initializer_range).

        None keeps the size; `pad_to_multiple_of` rounds it up. Changes the embedding, the output projection and
        `config.vocab_size`; returns the embedding. Raises ValueError for a size below 1, or one that would cut off a
        special id.
        """
        check_plain(self, "resizing the vocabulary")
        new_num_tokens = self.config.vocab_size if new_num_tokens is None else new_num_tokens
        if not is_whole(new_num_tokens):
            raise ValueError(f"new_num_tokens is {new_num_tokens!r}; give a whole number of tokens")
        new_num_tokens = int(new_num_tokens)
        if pad_to_multiple_of is not None:
            if isinstance(pad_to_multiple_of, bool) or pad_to_multiple_of < 1:
                raise ValueError(f"pad_to_multiple_of is {pad_to_multiple_of!r}; give a whole number of at least 1")
            new_num_tokens = math.ceil(new_num_tokens / pad_to_multiple_of) * pad_to_multiple_of
        lost = self.config.token_ids_beyond(new_num_tokens) if new_num_tokens < self.config.vocab_size else {}
        if new_num_tokens < 1 or lost:
            told = ", ".join(f"{name} is {ids}" for name, ids in lost.items()) or "there has to be one"
            raise ValueError(f"cannot resize the vocabulary to {new_num_tokens} tokens ({told})")
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

    @property
    def is_gradient_checkpointing(self) -> bool:
        checkpointing: bool = self.body.gradient_checkpointing
        return checkpointing

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None) -> Self:
        """Recompute each layer in the backward pass instead of keeping its activations (training mode only)."""
        if gradient_checkpointing_kwargs not in (None, {}, {"use_reentrant": False}):
            warnings.warn(
                f"gradient_checkpointing_kwargs={gradient_checkpointing_kwargs} is ignored: each layer is recomputed "
                "with use_reentrant=False",
                stacklevel=2,
            )
        self.body.gradient_checkpointing = True
        return self

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, Any] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> Self:
        """`gradient_checkpointing_enable` by the name that transformers 5.23 knows it by.

        Raises NotImplementedError for every second layer or less, and for activations kept elsewhere.
        """
        if every_n_layers != 1 or offload:
            raise NotImplementedError(
                f"every_n_layers={every_n_layers}, offload={offload}: every layer is recomputed, and nothing is moved; "
                "leave both out"
            )
        return self.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> Self:
        self.body.gradient_checkpointing = False
        return self

    def enable_input_require_grads(self) -> None:
        """Let embeddings ask for gradients though their table is frozen: recomputed layers hand none on else, and
        adapters in them learn nothing."""
        self.disable_input_require_grads()
        self._input_gradients = self.get_input_embeddings().register_forward_hook(_ask_for_gradients)

    def disable_input_require_grads(self) -> None:
        if self._input_gradients is not None:
            self._input_gradients.remove()
            self._input_gradients = None

    def set_attn_implementation(self, implementation: str) -> Self:
        """Choose "sdpa" (fused) or "eager" (every tensor can be looked at)."""
        if implementation not in ATTENTION_IMPLEMENTATIONS:
            raise ValueError(f"attention implementation {implementation!r}; choose 'sdpa' or 'eager'")
        self.config.attn_implementation = implementation
        self.body.config.attn_implementation = implementation  # which shares it, unless a classifier shares the body
        return self


def _ask_for_gradients(module: nn.Module, inputs: Any, embedded: Float[Tensor, "..."]) -> None:
    embedded.requires_grad_()
