"""Marks for notebook 08, Remembering."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.cache import Cache, DynamicCache
from persimmon_lab.checks.exercise import Exercise, Unanswered, Verdict, Wrong, agree, call, verdict
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.heads import PersimmonForCausalLM
from persimmon_lab.mini import load_mini

Number = Float[Tensor, ""]
KeyOrValue = Float[Tensor, "batch head position channel"]

# Easy: longest_context


def bytes_a_position(layers: int, heads: int, head_dim: int, bytes_per_number: int, batch: int) -> int:
    return 2 * layers * heads * head_dim * bytes_per_number * batch


def fitting(free_bytes: int, **sizes: int) -> int:
    return free_bytes // bytes_a_position(**sizes)


def fitted(change: Callable[..., float]) -> Callable[..., Number]:
    return lambda **case: torch.tensor(float(change(**case)))


def memory_cases() -> Iterator[dict]:
    # The 8B on what an 80 GB card has left beside its weights, the shipped model, and one that fits nothing.
    for free, layers, heads, head_dim, width, batch in (
        (61_205_649_408, 36, 64, 64, 2, 3),
        (1_000_000_000, 8, 8, 32, 4, 5),
        (12_345, 3, 5, 7, 2, 2),
        (100, 2, 4, 8, 4, 2),
    ):
        yield {
            "free_bytes": free,
            "layers": layers,
            "heads": heads,
            "head_dim": head_dim,
            "bytes_per_number": width,
            "batch": batch,
        }


longest_context = Exercise(
    reference=fitted(fitting),
    cases=memory_cases,
    axes=(),
    praise="bytes a position, times the rows, and only whole positions count",
    mistakes={
        "twice too long: a layer keeps a key and a value": fitted(
            lambda free_bytes, **sizes: 2 * free_bytes // bytes_a_position(**sizes)
        ),
        "this counts query, key and value; the query is used once and never kept": fitted(
            lambda free_bytes, **sizes: 2 * free_bytes // (3 * bytes_a_position(**sizes))
        ),
        "this is the memory of one layer; every layer has keys and values of its own": fitted(
            lambda layers, **case: fitting(layers=1, **case)
        ),
        "this is the memory of one head; every head has keys and values of its own": fitted(
            lambda heads, **case: fitting(heads=1, **case)
        ),
        "these are the positions of all rows together; each row of the batch needs its own": fitted(
            lambda batch, **case: fitting(batch=1, **case)
        ),
        "half a position cannot be kept: round down to a whole number": fitted(
            lambda free_bytes, **sizes: free_bytes / bytes_a_position(**sizes)
        ),
    },
)


# Medium: new_positions


def counted_from_start(attention_mask: Int[Tensor, "batch key"], past: int) -> Int[Tensor, "batch position"]:
    """Each new token's number among its row's own tokens, from 0; 0 at padding."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)[:, past:]


def padded_cases() -> Iterator[dict]:
    generator = torch.Generator().manual_seed(0)
    for past, new, pads in ((0, 6, (0, 2, 5)), (5, 1, (0, 3, 1)), (4, 3, (2, 0, 1)), (3, 4, (5, 1, 0)), (7, 1, (6,))):
        mask = torch.ones(len(pads), past + new, dtype=torch.int64)
        for row, count in enumerate(pads):
            mask[row, :count] = 0
        order = torch.randperm(len(pads), generator=generator)
        yield {"attention_mask": mask[order], "past": past}


def plain_positions(attention_mask: Int[Tensor, "batch key"], past: int) -> Int[Tensor, "batch position"]:
    return torch.arange(past, attention_mask.shape[1]).expand(len(attention_mask), -1)


new_positions = Exercise(
    reference=counted_from_start,
    cases=padded_cases,
    axes=("batch", "position"),
    praise="each row counts its own tokens, and goes on counting where the cache ends",
    mistakes={
        "it restarts at 0 with the new tokens; they go on from what the cache holds": (
            lambda attention_mask, past: (attention_mask[:, past:].cumsum(dim=-1) - 1).clamp(min=0)
        ),
        "it is one too high: the first token of a row has position 0": (
            lambda attention_mask, past: attention_mask.cumsum(dim=-1)[:, past:]
        ),
        "padding is counted: it takes a column, not a position": plain_positions,
        "padding comes out as -1, which no table has; use 0, nobody looks at it": (
            lambda attention_mask, past: (attention_mask.cumsum(dim=-1) - 1)[:, past:]
        ),
        "it adds `past` to positions that already count the past": (
            lambda attention_mask, past: counted_from_start(attention_mask, past) + past
        ),
    },
)


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
        layer = Layer(*torch.full((2, batch, heads, room, channels), 99.0))
        rooms = layer.keys, layer.values
        told = torch.randn(2, batch, heads, sum(sizes), channels, generator=generator)
        for step, new in enumerate(told.split(sizes, dim=-2)):
            _check_step(answer, layer, rooms, new, told, sum(sizes[:step]))
    full = Layer(*torch.zeros(2, 1, 1, 3, 2), length=3)
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
    _check_in_the_model(answer)


def _check_step(
    answer: Update, layer: Layer, rooms: tuple[Tensor, Tensor], new: Tensor, told: Tensor, start: int
) -> None:
    """One update after `start` positions: what comes back, what stands in the room, and what the length says."""
    end = start + new.shape[-2]
    given = _returned(answer, layer, *new)
    for name, held, room, fresh, right in zip(("keys", "values"), given, rooms, new, told[..., :end, :], strict=True):
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
            if name == "values" and agree(held, given[0]):
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
    given = call(answer, layer, key, value)
    if not (isinstance(given, tuple | list) and len(given) == 2 and all(isinstance(each, Tensor) for each in given)):
        what = f"the shape {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)[:60]
        raise Wrong(f"it returned {what}; return two tensors, the keys and the values")
    return tuple(given)


class Adapted(DynamicCache):
    """A cache that leaves each layer's update to a given function, in rooms of `room` positions."""

    def __init__(self, update: Update, room: int):
        super().__init__()
        self.update_layer, self.room, self.layers = update, room, []

    def update(self, key: KeyOrValue, value: KeyOrValue, layer_index: int) -> tuple[Tensor, Tensor]:
        if layer_index == len(self.layers):
            shape = (*key.shape[:2], self.room, key.shape[-1])
            self.layers.append(Layer(key.new_zeros(shape), value.new_zeros(shape)))
        return tuple(self.update_layer(self.layers[layer_index], key, value))

    def get_seq_length(self, layer_index: int = 0) -> int:
        return self.layers[layer_index].length if layer_index < len(self.layers) else 0


def _check_in_the_model(answer: Update) -> None:
    model, tokenizer = load_mini()
    ids = tokenizer("the king gave seven golden rings to Hannah", return_tensors="pt").input_ids
    difference = largest_difference(model, Adapted(answer, ids.shape[1]), ids, ids.shape[1] - 4)
    if difference > CACHED:
        raise Wrong(f"in the shipped model the logits differ by {difference:.2g} from those without a cache")


CACHED = 1e-3  # float32 logits of two orders of summation differ by 1e-5; a wrong position moves them by 0.1


def largest_difference(
    model: PersimmonForCausalLM, cache: Cache, ids: Int[Tensor, "batch position"], prefill: int
) -> float:
    """The largest difference of logits: a prefill and single steps through `cache`, against reading it all at once.

    Under dynamic scaling every length has a base of its own, so each step is compared with a reading of that length.
    """
    worst = 0.0
    with torch.no_grad():
        for start, end in zip((0, *range(prefill, ids.shape[1])), range(prefill, ids.shape[1] + 1)):
            cached = model(ids[:, start:end], past_key_values=cache, logits_to_keep=1).logits
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
        scaling = None if kind is None else {"type": kind, "factor": 3.0}
        generator = torch.Generator().manual_seed(8)
        config = PersimmonConfig.tiny(num_hidden_layers=1, max_position_embeddings=12, rope_scaling=scaling)
        model = PersimmonForCausalLM(config, generator).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # far enough from 0 that attention matters
                if parameter.ndim == 2:
                    parameter.mul_(6)
        ids = torch.randint(config.vocab_size, (2, 24), generator=generator)
        cache = call(answer, config)
        if not isinstance(cache, DynamicCache):
            raise Wrong(
                f"it returned a {type(cache).__name__}; derive your class from DynamicCache, so that the model knows it"
            )
        if type(cache).update is DynamicCache.update:
            raise Unanswered
        try:
            difference = largest_difference(model, cache, ids, prefill=7)
        except Exception as error:
            raise Wrong(f"in the model it stopped with {type(error).__name__}: {error}") from error
        if difference <= CACHED:
            continue
        if kind == "dynamic" and abs(difference - largest_difference(model, DynamicCache(), ids, prefill=7)) < 1e-4:
            raise Wrong(
                f"under dynamic scaling it is as wrong as DynamicCache (logits differ by {difference:.2g}): the old "
                "keys still stand where an older base turned them"
            )
        told = f"under {kind} scaling" if kind else "without scaling"
        raise Wrong(f"{told} the logits differ by {difference:.2g} from those without a cache")
