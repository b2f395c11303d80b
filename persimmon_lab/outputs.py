"""What a forward pass returns: fields by attribute, by key and by index, as transformers' `ModelOutput` has them."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass
from typing import Any, ClassVar, NoReturn, dataclass_transform

import torch.utils._pytree as pytree
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.cache import Cache, LegacyCache


@dataclass_transform(eq_default=False)
class ModelOutput(OrderedDict[str, Any]):
    """An ordered dict of the fields that are not None, a dataclass and a node of torch's pytrees.

    Iterating gives the keys, so `**output` works; `output[0]` and `output[:2]` count the fields that are there. What
    is set by attribute or by key is seen by both. It may be made from pairs, as `DataParallel` does.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclass(eq=False)(cls)
        first = next(iter(cls.__dataclass_fields__))
        cls.__init__.__annotations__[first] |= Mapping | Iterator  # pairs in its place
        pytree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), list(output)),
            lambda values, names: cls(**dict(zip(names, values, strict=True))),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
            flatten_with_keys_fn=lambda output: (
                [(pytree.MappingKey(name), value) for name, value in output.items()],
                list(output),
            ),
        )

    def __post_init__(self) -> None:
        names = list(self.__dataclass_fields__)
        first = getattr(self, names[0])
        if isinstance(first, Mapping | Iterator):
            super().__setattr__(names[0], None)
            for name, value in dict(first).items():
                super().__setattr__(name, value)
        self._is_complete = True  # and lists the fields

    def to_tuple(self) -> tuple[Any, ...]:
        return tuple(self.values())

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if "_is_complete" in vars(self):
            super().clear()
            for field in self.__dataclass_fields__:
                if getattr(self, field) is not None:
                    super().__setitem__(field, getattr(self, field))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"the fields of a {type(self).__name__} stay; set one to None to have it left out")

    __delitem__ = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, name) for name in self.__dataclass_fields__)


class BaseModelOutputWithPast(ModelOutput):
    """`last_hidden_state` (batch position hidden), after the final LayerNorm; `hidden_states` layers + 1 of them;
    `attentions` one (batch head query key) per layer; `past_key_values` in the format that went in."""

    last_hidden_state: Float[Tensor, "batch position hidden"]
    past_key_values: Cache | LegacyCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class CausalLMOutputWithPast(ModelOutput):
    """`loss` a float32 scalar in nats per token; `logits` (batch position vocab)."""

    loss: Float[Tensor, ""] | None = None
    logits: Float[Tensor, "batch position vocab"] | None = None
    past_key_values: Cache | LegacyCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class SequenceClassifierOutputWithPast(ModelOutput):
    """`loss` a float32 scalar; `logits` (batch label)."""

    loss: Float[Tensor, ""] | None = None
    logits: Float[Tensor, "batch label"] | None = None
    past_key_values: Cache | LegacyCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
