"""Key/value caches: what attention remembers of the positions it has already seen.

Keys are stored after rotation, each tensor as (batch, head, position, channel). `DynamicCache` grows with every step;
`ReservedCache` does so in room that it keeps ahead; `StaticCache` reserves its room once and fills it. All speak
transformers 4.37's names.
"""

import operator
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

KeyOrValue = Float[Tensor, "batch head position channel"]
LegacyCache = tuple[tuple[Tensor, Tensor], ...]
Room = Float[Tensor, "layer 2 batch head room channel"]


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

    `room` positions are reserved for all `layers` at the first write; when they are full, twice as many. With gradients
    on, updates concatenate as DynamicCache does, because a tensor written in place could not be trained through.
    """

    def __init__(self, layers: int, room: int = 0):
        super().__init__()
        self.layers, self.room = layers, room
        self._reserved: Room | None = None
        self._views: list[Tensor] = []  # of the room, as key_cache and value_cache hold them

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer behind those it holds; return all that it now holds, as views."""
        if torch.is_grad_enabled() and key.requires_grad:
            return super().update(key, value, layer_index)
        start = self.get_seq_length(layer_index)
        end = start + key.shape[-2]
        room = self._with_room(key, end)[layer_index]
        room[0, :, :, start:end], room[1, :, :, start:end] = key, value
        held = slice(layer_index, layer_index + 1)  # of the lists: assigning to it appends where nothing is yet
        self.key_cache[held], self.value_cache[held] = ([part] for part in room[:, :, :, :end])
        self._views = self.key_cache + self.value_cache
        return self[layer_index]

    def extend(self, new: KeyOrValue) -> tuple[Float[Tensor, "2 batch head position channel"], ...]:
        """Count as many positions more as `new` has as held in every layer, and return each layer's place for them.

        `new` is any tensor of the shape and kind of one layer's new keys. Whoever fails to fill the places crops.
        """
        start = self.get_seq_length()
        end = start + new.shape[-2]
        room = self._with_room(new, end)
        self._show(room, end)
        return room[:, :, :, :, start:end].unbind()

    @property
    def reserved(self) -> Room | None:
        """The room, for those who write there themselves and `advance`; None where what is held does not lie in it."""
        # Whoever put other tensors in our place (super's update, reorder_cache, a caller) has left the room.
        held = self.key_cache + self.value_cache
        is_ours = len(held) == len(self._views) and all(map(operator.is_, held, self._views))
        return self._reserved if is_ours else None

    def has_room(self, positions: int) -> bool:
        """Whether all layers hold something and can take `positions` more where it lies."""
        room = self.reserved
        return len(self) == self.layers and room is not None and room.shape[4] >= self.get_seq_length() + positions

    def advance(self, positions: int):
        """Count `positions` more as held, after they were written into the reserved room."""
        self._show(self.reserved, self.get_seq_length() + positions)

    def reorder_cache(self, rows: Int[Tensor, "new_batch"]):
        """Keep the given rows of the batch, in that order (repeats allowed), in the same room if they are as many."""
        if self.reserved is None or len(rows) != self.reserved.shape[2]:
            return super().reorder_cache(rows)
        rows = rows.to(self.reserved.device)
        for room in self.reserved[:, :, :, :, : self.get_seq_length()]:
            room.copy_(room.index_select(1, rows))
        return None

    def crop(self, length: int):
        """Forget every position from `length` on (nothing happens when it holds fewer); the room stays."""
        is_ours = self.reserved is not None
        super().crop(length)
        if is_ours:
            self._views = self.key_cache + self.value_cache

    def _show(self, room: Room, end: int):
        """Hold `end` positions of every layer."""
        keys, values = room[:, :, :, :, :end].unbind(1)
        self.key_cache, self.value_cache = list(keys.unbind()), list(values.unbind())
        self._views = self.key_cache + self.value_cache

    def _with_room(self, new: KeyOrValue, end: int) -> Room:
        """The room with space for `end` positions, made or enlarged if need be, and what is held in it."""
        room = self.reserved
        if room is not None and room.shape[4] >= end and room.shape[2] == new.shape[0]:
            return room
        batch, heads, _, channels = new.shape
        size = self.room if end <= self.room else max(end, 2 * self.get_seq_length())
        # Zeros, because a step of fixed shapes multiplies what it masks by 0, and chance numbers may be nan.
        room = new.new_zeros(self.layers, 2, batch, heads, size, channels)
        for layer, pair in zip(room, self, strict=False):
            for place, held in zip(layer, pair, strict=True):
                place[:, :, : held.shape[2]] = held
        lengths = [key.shape[2] for key in self.key_cache]
        self.key_cache = [layer[0, :, :, :length] for layer, length in zip(room, lengths, strict=False)]
        self.value_cache = [layer[1, :, :, :length] for layer, length in zip(room, lengths, strict=False)]
        self._reserved, self._views = room, self.key_cache + self.value_cache
        return room


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
