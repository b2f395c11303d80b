"""A cache that grows in room that it keeps ahead: what the fast engine writes into."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import DynamicCache, KeyOrValue

Room = Float[Tensor, "layer 2 batch head room channel"]


class ReservedCache(DynamicCache):
    """A DynamicCache in reserved room: a new position is written, and what is there already stays where it lies.

    `room` positions are reserved for all `layers` at the first write; when they are full, twice as many. What it holds
    is one tensor, `reserved`, and how many of its positions are filled; `key_cache` and `value_cache` are views, made
    when they are asked for.

    Whoever does what the room cannot hold (an update with gradients, which a tensor written in place could not be
    trained through, or out of the layers' order; tensors put in place of its own) makes it a DynamicCache for good.
    """

    def __init__(self, layers: int, room: int = 0) -> None:
        self.layers = layers
        self.room = room
        self.reserved: Room | None = None
        """The room, for those who write there themselves and `advance`; None before the first write."""
        self._length = 0
        self._ahead = 0  # layers that `update` has been through, of a step that is not through all of them yet
        self._new = 0  # its positions

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer behind those it holds; return all that it now holds, as views."""
        trains = torch.is_grad_enabled() and key.requires_grad
        if trains or layer_index != self._ahead or (self._ahead and key.shape[-2] != self._new):
            self._leave()
            return self.update(key, value, layer_index)
        self._new = key.shape[-2]
        end = self._length + self._new
        layer = self._room_for(key, end)[layer_index]
        layer[0, :, :, self._length : end] = key
        layer[1, :, :, self._length : end] = value
        self._ahead += 1
        if self._ahead == self.layers:
            self._fill(end)
        return layer[0, :, :, :end], layer[1, :, :, :end]

    def extend(self, new: KeyOrValue) -> tuple[Float[Tensor, "2 batch head position channel"], ...]:
        """Count as many positions more as `new` has as held in every layer, and return each layer's place for them.

        `new` is any tensor of the shape and kind of one layer's new keys. Whoever fails to fill the places crops.
        """
        start = self._length
        room = self._room_for(new, start + new.shape[-2])
        self.advance(new.shape[-2])
        return room[:, :, :, :, start : self._length].unbind()

    def advance(self, positions: int) -> None:
        """Count `positions` more as held, which somebody wrote or will write into the reserved room."""
        self._fill(self._length + positions)

    def has_room(self, positions: int) -> bool:
        """Whether it holds something and can take `positions` more where it lies."""
        return self.reserved is not None and 0 < self._length <= self.reserved.shape[4] - positions

    def reuse(self, room: Room) -> None:
        """Take room that nobody else looks at any more, before anything is held."""
        with torch.inference_mode(False), torch.no_grad():
            self.reserved = room.zero_()

    @property  # type: ignore[override]  # what is put into a list of views would be lost
    def key_cache(self) -> tuple[Tensor, ...]:
        return self._views(0)

    @key_cache.setter
    def key_cache(self, keys: list[Tensor]) -> None:
        self._leave()
        self.key_cache = keys

    @property  # type: ignore[override]  # as above
    def value_cache(self) -> tuple[Tensor, ...]:
        return self._views(1)

    @value_cache.setter
    def value_cache(self, values: list[Tensor]) -> None:
        self._leave()
        self.value_cache = values

    def __len__(self) -> int:
        return self.layers if self._length else self._ahead

    def __getitem__(self, layer_index: int) -> tuple[Tensor, Tensor]:
        return self._view(layer_index, 0), self._view(layer_index, 1)

    def get_seq_length(self, layer_index: int = 0) -> int:
        """How many positions a layer holds; 0 before its first update."""
        return self._length + (self._new if layer_index < self._ahead else 0)

    def reorder_cache(self, rows: Int[Tensor, "new_batch"]) -> None:
        """Keep the given rows of the batch, in that order (repeats allowed), in the same room if they are as many."""
        if self.reserved is None:
            return
        rows = rows.to(self.reserved.device)
        if len(rows) == self.reserved.shape[2]:
            for layer in self.reserved[:, :, :, :, : self._length]:
                layer.copy_(layer.index_select(1, rows))
        else:
            self.reserved = self.reserved.index_select(2, rows)

    def crop(self, length: int) -> None:
        """Forget every position from `length` on (nothing happens when it holds fewer), or the last -length of them;
        the room stays."""
        self._fill(len(range(self._length)[:length]))

    def _fill(self, length: int) -> None:
        self._length = length
        self._ahead = 0
        self._new = 0

    def _view(self, layer_index: int, which: int) -> Tensor:
        if self.reserved is None:
            raise IndexError(f"layer {layer_index} of a cache that holds nothing yet")
        return self.reserved[layer_index, which, :, :, : self.get_seq_length(layer_index)]

    def _views(self, which: int) -> tuple[Tensor, ...]:
        return tuple(self._view(index, which) for index in range(len(self)))

    def _leave(self) -> None:
        """Be a DynamicCache of what is held."""
        held: dict[str, Any] = {"key_cache": list(self.key_cache), "value_cache": list(self.value_cache)}
        self.__class__ = DynamicCache  # type: ignore[assignment]  # whose two lists are all that it has
        self.__dict__ = held

    def _room_for(self, new: KeyOrValue, end: int) -> Room:
        """The room with space for `end` positions, made or enlarged if need be, and what is held in it."""
        if self.reserved is not None and self.reserved.shape[4] >= end:
            if self.reserved.shape[2] == new.shape[0]:
                return self.reserved
            if self._length:
                raise RuntimeError(f"the cache holds {self.reserved.shape[2]} rows, and {new.shape[0]} are to be added")
        batch, heads, _, channels = new.shape
        size = self.room if end <= self.room else max(end, 2 * self._length)
        # Zeros, because a step of fixed shapes multiplies what it masks by 0, and chance numbers may be nan.
        with torch.inference_mode(False), torch.no_grad():  # else nobody outside of it could go on from here
            room = new.new_zeros(self.layers, 2, batch, heads, size, channels)
        if self.reserved is not None and len(self):
            filled = self.get_seq_length()  # of the layers that are ahead
            room[:, :, :, :, :filled] = self.reserved[:, :, :, :, :filled]
        self.reserved = room
        return room
