"""Key/value caches: what attention remembers of the positions it has already seen.

Keys are stored after rotation, each tensor as (batch, head, position, channel). `DynamicCache` grows with every step;
`StaticCache` reserves its room once and fills it. Both speak transformers 4.37's names. Caches of other libraries serve
as well, if they offer what `Cache` names.
"""

import copy
from collections.abc import Iterator
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

KeyOrValue = Float[Tensor, "batch head position channel"]
LegacyCache = tuple[tuple[Tensor, Tensor], ...]


@runtime_checkable
class Cache(Protocol):
    """What a forward pass asks of a cache. Generation also crops it, and for several answers or beams reorders it."""

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int, /) -> tuple[Tensor, Tensor]:
        """Take the new positions of one layer; return all that it now holds."""

    def get_seq_length(self, layer_index: int = 0, /) -> int:
        """How many positions a layer holds."""


class DynamicCache:
    """A cache that concatenates: simple, exact, and a new allocation at every step."""

    def __init__(self) -> None:
        self.key_cache: list[Tensor] = []
        self.value_cache: list[Tensor] = []

    def __len__(self) -> int:
        """The number of layers that hold something."""
        return len(self.key_cache)

    def __getitem__(self, layer_index: int) -> tuple[Tensor, Tensor]:
        return self.key_cache[layer_index], self.value_cache[layer_index]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.to_legacy_cache())

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int) -> tuple[Tensor, Tensor]:
        """Append the new positions of one layer; return all that the layer now holds."""
        if layer_index == len(self):
            # A value comes as a view of the fused projection; keeping it would keep query and key too, twice the cache.
            self.key_cache.append(key.contiguous())
            self.value_cache.append(value.contiguous())
        elif layer_index > len(self):
            raise IndexError(layer_left_out(layer_index, len(self)))
        else:
            self.key_cache[layer_index] = torch.cat((self.key_cache[layer_index], key), dim=-2)
            self.value_cache[layer_index] = torch.cat((self.value_cache[layer_index], value), dim=-2)
        return self[layer_index]

    def get_seq_length(self, layer_index: int = 0) -> int:
        """How many positions a layer holds; 0 before its first update."""
        return self.key_cache[layer_index].shape[-2] if layer_index < len(self) else 0

    def get_max_length(self) -> int | None:
        """No limit."""
        return None

    def reorder_cache(self, rows: Int[Tensor, "new_batch"]) -> None:
        """Keep the given rows of the batch, in that order (repeats allowed): what beam search needs."""
        _reorder(self.key_cache, rows)
        _reorder(self.value_cache, rows)

    def crop(self, length: int) -> None:
        """Forget every position from `length` on (nothing happens when it holds fewer), or the last -length of them."""
        self.key_cache = [key[..., :length, :] for key in self.key_cache]
        self.value_cache = [value[..., :length, :] for value in self.value_cache]

    def to_legacy_cache(self) -> LegacyCache:
        """A tuple of one (key, value) pair per layer."""
        return tuple(zip(self.key_cache, self.value_cache, strict=True))

    @classmethod
    def from_legacy_cache(cls, past_key_values: LegacyCache | None = None) -> Self:
        cache = cls()
        for layer_index, (key, value) in enumerate(past_key_values or ()):
            cache.update(key, value, layer_index)
        return cache


class StaticCache:
    """A cache with room for `max_length` positions, reserved at the first update and filled in place.

    Nothing is reallocated while generating. Writing in place makes it unfit for training. Raises ValueError when it
    is full.
    """

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.key_cache: list[Tensor] = []
        self.value_cache: list[Tensor] = []
        self.lengths: list[int] = []

    def __len__(self) -> int:
        return len(self.key_cache)

    def __getitem__(self, layer_index: int) -> tuple[Tensor, Tensor]:
        filled = slice(0, self.lengths[layer_index])
        return self.key_cache[layer_index][..., filled, :], self.value_cache[layer_index][..., filled, :]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(self.to_legacy_cache())

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer into its room; return the filled part as a view."""
        if layer_index == len(self):
            room = (*key.shape[:2], self.max_length, key.shape[-1])
            self.key_cache.append(key.new_zeros(room))
            self.value_cache.append(value.new_zeros(room))
            self.lengths.append(0)
        if layer_index >= len(self):
            raise IndexError(layer_left_out(layer_index, len(self)))
        start = self.lengths[layer_index]
        end = start + key.shape[-2]
        if end > self.max_length:
            raise ValueError(f"{end} positions do not fit into a StaticCache of {self.max_length}; make a larger one")
        self.key_cache[layer_index][..., start:end, :] = key
        self.value_cache[layer_index][..., start:end, :] = value
        self.lengths[layer_index] = end
        return self[layer_index]

    def get_seq_length(self, layer_index: int = 0) -> int:
        """How many positions a layer holds; 0 before its first update."""
        return self.lengths[layer_index] if layer_index < len(self) else 0

    def get_max_length(self) -> int | None:
        return self.max_length

    def reorder_cache(self, rows: Int[Tensor, "new_batch"]) -> None:
        """Keep the given rows of the batch, in that order (repeats allowed)."""
        _reorder(self.key_cache, rows)
        _reorder(self.value_cache, rows)

    def crop(self, length: int) -> None:
        """Forget every position from `length` on, or the last -length of them; the room stays."""
        self.lengths = [len(range(held)[:length]) for held in self.lengths]

    def to_legacy_cache(self) -> LegacyCache:
        """A tuple of one (key, value) pair of views per layer."""
        return tuple(self[layer_index] for layer_index in range(len(self)))


def layer_left_out(layer_index: int, held: int) -> str:
    """What to say where layers come in another order than they count themselves."""
    return (
        f"layer {layer_index} comes where the cache expects layer {held}: number the layers anew after some were taken "
        "out or moved (layer.self_attn.layer_index), or pass use_cache=False"
    )


def _reorder(tensors: list[Tensor], rows: Int[Tensor, "new_batch"]) -> None:
    """One tensor after the other, each giving back its old room: beams fill the memory as it is."""
    for index, tensor in enumerate(tensors):
        tensors[index] = tensor.index_select(0, rows.to(tensor.device))


class ForeignCache:
    """Another library's cache as attention needs it: what a layer holds, without the room that is empty yet."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int) -> tuple[Tensor, Tensor]:
        """As the cache's own. Raises ValueError for one that has forgotten something, as a sliding window does."""
        length = self.get_seq_length(layer_index) + key.shape[-2]
        key, value = self.cache.update(key, value, layer_index)
        if key.shape[-2] < length:
            raise ValueError(
                f"past_key_values, a {type(self.cache).__name__}, gave back {key.shape[-2]} of {length} positions; "
                "Persimmon attends to all of them: use a cache that keeps them"
            )
        return key[..., :length, :], value[..., :length, :]

    def get_seq_length(self, layer_index: int = 0) -> int:
        return int(self.cache.get_seq_length(layer_index))  # a tensor in some


def cache_for(
    past_key_values: object, layers: int | None = None, extend: bool = True, rows: int | None = None
) -> Cache:
    """The cache that a forward pass of so many layers reads, and extends only if it may: else it is a copy.

    `past_key_values` is None, a legacy tuple, a cache of ours or any other object that `Cache` describes, as those of
    transformers. Raises TypeError for anything else, and ValueError for what another model with more layers or fewer
    has filled: its first layers would fit, and be read in silence; and for another number of `rows`, which a cache
    with reserved room would spread over all of its own. What is not given is not looked at.
    """
    if past_key_values is None or isinstance(past_key_values, tuple | list):
        cache: Cache = DynamicCache.from_legacy_cache(_pairs(past_key_values or ()))
    elif isinstance(past_key_values, DynamicCache | StaticCache):
        cache = past_key_values if extend else DynamicCache.from_legacy_cache(past_key_values.to_legacy_cache())
    elif isinstance(past_key_values, Cache) and not isinstance(past_key_values, type):
        cache = ForeignCache(past_key_values if extend else copy.deepcopy(past_key_values))
    else:
        raise TypeError(
            f"past_key_values is a {type(past_key_values).__name__}; give a cache, with `update` and `get_seq_length`, "
            "or a tuple of one (key, value) pair per layer"
        )
    held = _layers_of(cache)
    # Fewer are right before the first positions: most caches make room for a layer when it is reached.
    if layers is not None and held != layers and (held > layers or (held and cache.get_seq_length())):
        raise ValueError(
            f"past_key_values hold {held} layers and the model has {layers}; give what this model returned, or none"
        )
    if rows is not None and isinstance(cache, DynamicCache | StaticCache) and len(cache):
        remembered = cache[0][0].shape[0]
        if remembered != rows:
            raise ValueError(
                f"past_key_values hold {remembered} rows and the input has {rows}; give the cache of these texts, or "
                "say by past_key_values.reorder_cache(rows) which of its rows they go on with"
            )
    return cache


def _pairs(past_key_values: tuple[Any, ...] | list[Any]) -> LegacyCache:
    for index, pair in enumerate(past_key_values):
        if not (
            isinstance(pair, tuple | list)
            and len(pair) == 2
            and all(isinstance(held, Tensor) and held.ndim == 4 for held in pair)
        ):
            raise TypeError(
                f"past_key_values[{index}] is a {type(pair).__name__} that is no (key, value) pair; of each layer give "
                "two tensors (batch, head, position, channel)"
            )
    return tuple((key, value) for key, value in past_key_values)


def _layers_of(cache: Cache) -> int:
    """How many layers a cache has room for; 0 where it does not tell."""
    if isinstance(cache, ForeignCache):  # `layers` in transformers 5, `key_cache` before; a len may count positions
        named = (getattr(cache.cache, name, None) for name in ("layers", "key_cache"))
        return next((len(held) for held in named if isinstance(held, list | tuple)), 0)
    return len(cache) if isinstance(cache, DynamicCache | StaticCache) else 0
