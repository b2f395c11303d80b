"""Marks for notebook 08, Remembering: the two caches that it asks for."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import Cache, DynamicCache
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checks.marking import Unanswered, Verdict, Wrong, agree, call, verdict
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.mini import load_mini

KeyOrValue = Float[Tensor, "batch head position channel"]
CACHED = 1e-3  # float32 logits of two orders of summation differ by 1e-5; a wrong position moves them by 0.1

# Medium: reserved_update


@dataclass
class Layer:
    """One layer of a reserved cache: two rooms (batch head room channel), of which the first `length` are filled."""

    keys: KeyOrValue
    values: KeyOrValue
    length: int = 0


Update = Callable[[Layer, Tensor, Tensor], tuple[Tensor, Tensor]]


def reserved_update(answer: Update) -> Verdict:
    """Marks `update(layer, key, value) -> (keys, values)`: by itself, at a full room, and in the shipped model."""
    praise = "written where the text ends, nothing moved, and the shipped model reads it like its own"
    return verdict(_check_update, answer, praise)


def _check_update(answer: Update) -> None:
    generator = torch.Generator().manual_seed(4)
    for batch, heads, channels, room, sizes in (
        (1, 2, 4, 8, (3, 1, 1, 2, 1)),
        (2, 3, 6, 9, (1, 1, 4)),
        (1, 1, 2, 5, (5,)),
    ):
        keys, values = torch.full((2, batch, heads, room, channels), 99.0)
        layer = Layer(keys, values)
        rooms = layer.keys, layer.values
        told = torch.randn(2, batch, heads, sum(sizes), channels, generator=generator)
        for step, new in enumerate(told.split(sizes, dim=-2)):
            _check_step(answer, layer, rooms, new, told, sum(sizes[:step]))
    _check_full_room(answer)
    _check_in_the_model(answer)


def _check_full_room(answer: Update) -> None:
    full = Layer(torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2), length=3)
    try:
        answer(full, torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    except ValueError:
        pass
    except Exception as error:
        raise Wrong(f"a full room raises {type(error).__name__}; raise a ValueError that says so") from error
    else:
        raise Wrong(
            "a full room takes one more token without a word: torch broadcasts it into an empty slice, and it is "
            "forgotten; compare the end with the room, and raise a ValueError"
        )


def _check_step(
    answer: Update, layer: Layer, rooms: tuple[Tensor, Tensor], new: Tensor, told: Tensor, start: int
) -> None:
    """One update after `start` positions: what comes back, what stands in the room, and what the length says."""
    end = start + new.shape[-2]
    returned = _returned(answer, layer, new[0], new[1])
    for name, held, room, fresh, right in zip(
        ("keys", "values"), returned, rooms, new, told[..., :end, :], strict=True
    ):
        where = f"after {end} positions, {new.shape[-2]} of them new"
        if held.shape[-2] == room.shape[-2] > end:
            raise Wrong(
                f"it returns the whole room of {room.shape[-2]} positions; only {end} are filled ({name}, {where})"
            )
        if start and held.shape[-2] == start:
            raise Wrong(f"the new positions are missing from the {name} that it returns ({where})")
        if start and held.shape == fresh.shape and agree(held, fresh):
            raise Wrong(
                f"it returns the new {name} alone ({where}): return all that the layer holds, and let `layer.length` "
                "grow with every update"
            )
        if held.shape != right.shape:
            raise Wrong(f"the {name} have the shape {tuple(held.shape)}; expected {tuple(right.shape)} ({where})")
        if not agree(held, right):
            if start and agree(held[..., start - 1 : end - 1, :], fresh):
                raise Wrong(f"off by one: the first new position was written over the last old one ({name}, {where})")
            if (held == 99.0).any():
                raise Wrong(f"off by one: it leaves a gap that was never written ({name}, {where})")
            if name == "values" and agree(held, returned[0]):
                raise Wrong("the values are the keys; each has a room of its own")
            raise Wrong(f"the {name} are not the old ones followed by the new ones ({where})")
        if not agree(room[..., :end, :], right) or held.data_ptr() != room.data_ptr():
            raise Wrong(
                f"the numbers are right, but the {name} were copied; write into the room and return a view of it"
            )
    if layer.length != end:
        raise Wrong(
            f"`layer.length` is {layer.length} after {end} positions; the next update will write in the wrong place"
        )


def _returned(answer: Update, layer: Layer, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """What an update returns, if it is a pair of tensors. The layer is no tensor, so it is the real one."""
    pair = call(answer, layer, key, value)
    if isinstance(pair, tuple | list) and len(pair) == 2:
        keys, values = pair
        if all(isinstance(held, Tensor) and held.layout == torch.strided for held in pair) and not keys.is_meta:
            return keys, values
    what = f"the shape {tuple(pair.shape)}" if isinstance(pair, Tensor) else repr(pair)[:60]
    raise Wrong(f"it returned {what}; return two tensors, the keys and the values")


class Adapted(DynamicCache):
    """A cache that leaves each layer's update to a given function, in rooms of `room` positions."""

    def __init__(self, update: Update, room: int) -> None:
        super().__init__()
        self.update_layer = update
        self.room = room
        self.layers: list[Layer] = []

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int) -> tuple[Tensor, Tensor]:
        if layer_index == len(self.layers):
            shape = (*key.shape[:2], self.room, key.shape[-1])
            self.layers.append(Layer(key.new_zeros(shape), value.new_zeros(shape)))
        keys, values = self.update_layer(self.layers[layer_index], key, value)
        return keys, values

    def get_seq_length(self, layer_index: int = 0) -> int:
        return self.layers[layer_index].length if layer_index < len(self.layers) else 0


def _check_in_the_model(answer: Update) -> None:
    model, tokenizer = load_mini()
    ids = tokenizer("the king gave seven golden rings to Hannah", return_tensors="pt").input_ids
    difference = largest_difference(model, Adapted(answer, ids.shape[1]), ids, ids.shape[1] - 4)
    if difference > CACHED:
        raise Wrong(f"in the shipped model the logits differ by {difference:.2g} from those without a cache")


def largest_difference(
    model: PersimmonForCausalLM, cache: Cache, ids: Int[Tensor, "batch position"], prefill: int
) -> float:
    """The largest difference of logits: a prefill and single steps through `cache`, against reading it all at once.

    Under dynamic scaling every length has a base of its own, so each step is compared with a reading of that length.
    Raises Wrong where the cache stops.
    """
    worst = 0.0
    with torch.no_grad():
        for start, end in zip((0, *range(prefill, ids.shape[1])), range(prefill, ids.shape[1] + 1)):
            try:
                cached = model(ids[:, start:end], past_key_values=cache, logits_to_keep=1).logits
            except Exception as error:
                raise Wrong(f"in the model it stopped with {type(error).__name__}: {error}") from error
            alone = model(ids[:, :end], use_cache=False, logits_to_keep=1).logits
            worst = max(worst, float((cached - alone).abs().max()))
    return worst


# Open: keys kept before rotation


def unrotated_cache(answer: Callable[[PersimmonConfig], Cache]) -> Verdict:
    """Marks a subclass of DynamicCache, made with a configuration, that turns old keys with the present base.

    In a model of one layer this is exact, and there it is marked. A deeper layer's keys and values come from hidden
    states that an older base had a part in; no cache can repair those.
    """
    praise = "the old keys turn with the present base, and in a model of one layer nothing is left of the drift"
    return verdict(_check_unrotated, answer, praise)


def _check_unrotated(answer: Callable[[PersimmonConfig], Cache]) -> None:
    for kind in (None, "linear", "dynamic"):
        generator = torch.Generator().manual_seed(8)
        model = _one_layer(kind, generator)
        ids = torch.randint(model.config.vocab_size, (2, 24), generator=generator)
        cache = call(answer, model.config)
        if not isinstance(cache, DynamicCache):
            raise Wrong(
                f"it returned a {type(cache).__name__}; derive your class from DynamicCache, so that the model knows it"
            )
        if type(cache).update is DynamicCache.update:
            raise Unanswered
        difference = largest_difference(model, cache, ids, prefill=7)
        if difference <= CACHED:
            continue
        if kind == "dynamic" and abs(difference - largest_difference(model, DynamicCache(), ids, prefill=7)) < 1e-4:
            raise Wrong(
                f"under dynamic scaling it is as wrong as DynamicCache (logits differ by {difference:.2g}): the old "
                "keys still stand where an older base turned them"
            )
        told = f"under {kind} scaling" if kind else "without scaling"
        raise Wrong(f"{told} the logits differ by {difference:.2g} from those without a cache")


def _one_layer(scaling: str | None, generator: torch.Generator) -> PersimmonForCausalLM:
    """A random model whose weights are far enough from 0 that attention matters."""
    rope_scaling = None if scaling is None else {"type": scaling, "factor": 3.0}
    config = PersimmonConfig.tiny(num_hidden_layers=1, max_position_embeddings=12, rope_scaling=rope_scaling)
    model = PersimmonForCausalLM(config, generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    return model
