"""A cache that grows in room that it keeps ahead: what the fast engine writes into."""

import operator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import DynamicCache, KeyOrValue

Room = Float[Tensor, "layer 2 batch head room channel"]


class ReservedCache(DynamicCache):
    """A DynamicCache in reserved room: a new position is written, and what is there already stays where it lies.

    `room` positions are reserved for all `layers` at the first write; when they are full, twice as many. With gradients
    on, updates concatenate as DynamicCache does, because a tensor written in place could not be trained through.
    """

    def __init__(self, layers: int, room: int = 0) -> None:
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

    def reuse(self, room: Room) -> None:
        """Take room that nobody else looks at any more, before anything is held."""
        with torch.inference_mode(False), torch.no_grad():
            self._reserved = room.zero_()

    def has_room(self, positions: int) -> bool:
        """Whether all layers hold something and can take `positions` more where it lies."""
        room = self.reserved
        return len(self) == self.layers and room is not None and room.shape[4] >= self.get_seq_length() + positions

    def advance(self, positions: int) -> None:
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

    def crop(self, length: int) -> None:
        """Forget every position from `length` on (nothing happens when it holds fewer); the room stays."""
        is_ours = self.reserved is not None
        super().crop(length)
        if is_ours:
            self._views = self.key_cache + self.value_cache

    def _show(self, room: Room, end: int) -> None:
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
        with torch.inference_mode(False), torch.no_grad():  # else nobody outside of it could go on from here
            room = new.new_zeros(self.layers, 2, batch, heads, size, channels)
        for layer, pair in zip(room, self, strict=False):
            for place, held in zip(layer, pair, strict=True):
                place[:, :, : held.shape[2]] = held
        lengths = [key.shape[2] for key in self.key_cache]
        self.key_cache = [layer[0, :, :, :length] for layer, length in zip(room, lengths, strict=False)]
        self.value_cache = [layer[1, :, :, :length] for layer, length in zip(room, lengths, strict=False)]
        self._reserved, self._views = room, self.key_cache + self.value_cache
        return room
