"""What a forward pass returns: fields by attribute, by key and by index, as transformers' `ModelOutput` has them."""

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from dataclasses import dataclass, fields
from typing import Any

from jaxtyping import Float
from torch import Tensor

from persimmon_lab.cache import Cache, LegacyCache


class ModelOutput:
    """Fields that are None are absent: from the keys, from `to_tuple()` and from the indices.

    Iterating gives the keys, so `**output` works; `output[0]` and `output[:2]` count the present fields.
    """

    def _present(self) -> dict[str, Any]:
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if value is not None}

    def to_tuple(self) -> tuple:
        return tuple(self._present().values())

    def __getitem__(self, key: str | int | slice) -> Any:
        return self._present()[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._present())

    def __len__(self) -> int:
        return len(self._present())

    def __contains__(self, key: object) -> bool:
        return key in self._present()

    def get(self, key: str, default: Any = None) -> Any:
        return self._present().get(key, default)

    def keys(self) -> KeysView:
        return self._present().keys()

    def values(self) -> ValuesView:
        return self._present().values()

    def items(self) -> ItemsView:
        return self._present().items()


@dataclass
class BaseModelOutputWithPast(ModelOutput):
    """`last_hidden_state` (batch position hidden), after the final LayerNorm; `hidden_states` layers + 1 of them;
    `attentions` one (batch head query key) per layer; `past_key_values` in the format that went in."""

    last_hidden_state: Float[Tensor, "batch position hidden"]
    past_key_values: Cache | LegacyCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class CausalLMOutputWithPast(ModelOutput):
    """`loss` a float32 scalar in nats per token; `logits` (batch position vocab)."""

    loss: Float[Tensor, ""] | None = None
    logits: Float[Tensor, "batch position vocab"] | None = None
    past_key_values: Cache | LegacyCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class SequenceClassifierOutputWithPast(ModelOutput):
    """`loss` a float32 scalar; `logits` (batch label)."""

    loss: Float[Tensor, ""] | None = None
    logits: Float[Tensor, "batch label"] | None = None
    past_key_values: Cache | LegacyCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
