"""Key/value caches: what attention remembers of the positions it has already seen.

Keys are stored after rotation, each tensor as (batch, head, position, channel). `DynamicCache` grows with every step;
`ReservedCache` does so in room that it keeps ahead; `StaticCache` reserves its room once and fills it. All speak
transformers 4.37's names.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

KeyOrValue = Float[Tensor, "batch head position channel"]
LegacyCache = tuple[tuple[Tensor, Tensor], ...]


class DynamicCache:
    """A cache that concatenates: simple, exact, and a new allocation at every step."""

    def __init__(self):
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

    def reorder_cache(self, rows: Int[Tensor, "new_batch"]):
        """Keep the given rows of the batch, in that order (repeats allowed): what beam search needs."""
        self.key_cache = [key.index_select(0, rows.to(key.device)) for key in self.key_cache]
        self.value_cache = [value.index_select(0, rows.to(value.device)) for value in self.value_cache]

    def crop(self, length: int):
        """Forget every position from `length` on (nothing happens when it holds fewer)."""
        self.key_cache = [key[..., :length, :] for key in self.key_cache]
        self.value_cache = [value[..., :length, :] for value in self.value_cache]

    def to_legacy_cache(self) -> LegacyCache:
        """A tuple of one (key, value) pair per layer."""
        return tuple(zip(self.key_cache, self.value_cache, strict=True))

    @classmethod
    def from_legacy_cache(cls, past_key_values: LegacyCache | None = None) -> "DynamicCache":
        cache = cls()
        for layer_index, (key, value) in enumerate(past_key_values or ()):
            cache.update(key, value, layer_index)
        return cache


class ReservedCache(DynamicCache):
    """A DynamicCache in reserved room: a new position is written, and what is there already stays where it lies.

    `room` positions are reserved at the first update; when they are full, twice as many. With gradients on, updates
    concatenate as DynamicCache does, because a tensor written in place could not be trained through.
    """

    def __init__(self, room: int = 0):
        super().__init__()
        self.room = room
        self._reserved: list[tuple[Tensor, Tensor] | None] = []  # one layer's keys and values, room included

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer behind those it holds; return all that it now holds, as views."""
        if torch.is_grad_enabled() and key.requires_grad:
            return super().update(key, value, layer_index)
        start = self.get_seq_length(layer_index)
        end = start + key.shape[-2]
        keys, values = self._with_room(key, value, layer_index, end)
        keys[:, :, start:end], values[:, :, start:end] = key, value
        self.key_cache[layer_index], self.value_cache[layer_index] = keys[:, :, :end], values[:, :, :end]
        return self[layer_index]

    def reserved(self) -> list[tuple[Tensor, Tensor]]:
        """Each layer's whole room, (batch head room channel), for those who write there themselves and `advance`."""
        return [self._with_room(key, value, i, key.shape[-2]) for i, (key, value) in enumerate(self)]

    def has_room(self, positions: int) -> bool:
        """Whether every layer holds something and can take `positions` more where it lies."""
        if len(self) == 0:
            return False
        held = self.get_seq_length()
        return self._with_room(*self[0], 0, held)[0].shape[2] >= held + positions

    def advance(self, positions: int):
        """Count `positions` more as held, after they were written into the reserved room."""
        end = self.get_seq_length() + positions
        for layer_index, (keys, values) in enumerate(self.reserved()):
            self.key_cache[layer_index], self.value_cache[layer_index] = keys[:, :, :end], values[:, :, :end]

    def reorder_cache(self, rows: Int[Tensor, "new_batch"]):
        """Keep the given rows of the batch, in that order (repeats allowed), in the same room if they are as many."""
        for layer_index, held in enumerate(self):
            chosen = [tensor.index_select(0, rows.to(tensor.device)) for tensor in held]
            if len(rows) == len(held[0]):
                held[0].copy_(chosen[0])
                held[1].copy_(chosen[1])
            else:
                self.key_cache[layer_index], self.value_cache[layer_index] = chosen

    def _with_room(self, key: KeyOrValue, value: KeyOrValue, layer_index: int, end: int) -> tuple[Tensor, Tensor]:
        """The layer's reserved tensors, made or enlarged so that `end` positions fit."""
        if layer_index == len(self):
            self.key_cache.append(key[:, :, :0])
            self.value_cache.append(value[:, :, :0])
        self._reserved += [None] * (len(self) - len(self._reserved))
        held, reserved = self[layer_index], self._reserved[layer_index]
        # Whoever put other tensors in our place (super's update, reorder_cache, a caller) has left the room.
        is_ours = reserved is not None and reserved[0].data_ptr() == held[0].data_ptr()
        if not is_ours or reserved[0].shape[2] < end:
            room = self.room if end <= self.room else max(end, 2 * held[0].shape[2])
            # Zeros, because a step of fixed shapes multiplies what it masks by 0, and chance numbers may be nan.
            reserved = tuple(tensor.new_zeros(*tensor.shape[:2], room, tensor.shape[3]) for tensor in held)
            for larger, tensor in zip(reserved, held, strict=True):
                larger[:, :, : tensor.shape[2]] = tensor
            self._reserved[layer_index] = reserved
        return reserved


class StaticCache:
    """A cache with room for `max_length` positions, reserved at the first update and filled in place.

    Nothing is reallocated while generating. Writing in place makes it unfit for training. Raises ValueError when it
    is full.
    """

    def __init__(self, max_length: int):
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

    def reorder_cache(self, rows: Int[Tensor, "new_batch"]):
        """Keep the given rows of the batch, in that order (repeats allowed)."""
        self.key_cache = [key.index_select(0, rows.to(key.device)) for key in self.key_cache]
        self.value_cache = [value.index_select(0, rows.to(value.device)) for value in self.value_cache]

    def crop(self, length: int):
        """Forget every position from `length` on; the room stays."""
        self.lengths = [min(length, held) for held in self.lengths]

    def to_legacy_cache(self) -> LegacyCache:
        """A tuple of one (key, value) pair of views per layer."""
        return tuple(self[layer_index] for layer_index in range(len(self)))


Cache = DynamicCache | StaticCache
