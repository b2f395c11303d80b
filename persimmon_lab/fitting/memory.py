"""What a Persimmon costs before anything is allocated: parameters, bytes, where they fit, bytes read per new token."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from persimmon_lab.anatomy import layer_of
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.footprint import Device, activation_bytes, cache_bytes, in_bytes

OFFLOAD = ("cpu", "disk")


def parameter_counts(config: PersimmonConfig) -> dict[str, int]:
    """Parameters of a causal-LM model by part, in reading order: their sum is `model.num_parameters()`.

    Per layer, with hidden size h and MLP width m: attention 4h^2 + 4h, MLP 2hm + m + h, norms 4h, and 4 head_dim
    more with qk-layernorm. A tied `lm_head` counts 0.
    """
    layers = config.num_hidden_layers
    hidden = config.hidden_size
    mlp = config.intermediate_size
    table = config.vocab_size * hidden
    return {
        "embed_tokens": table,
        "attention": layers * (4 * hidden * hidden + 4 * hidden),
        "mlp": layers * (2 * hidden * mlp + mlp + hidden),
        "norms": layers * (4 * hidden + (4 * config.head_dim if config.qk_layernorm else 0)) + 2 * hidden,
        "lm_head": 0 if config.tie_word_embeddings else table,
    }


def weight_bytes(config: PersimmonConfig, dtype: torch.dtype) -> int:
    """Bytes of all parameters in `dtype`."""
    return sum(parameter_counts(config).values()) * dtype.itemsize


def streamed_bytes(config: PersimmonConfig, dtype: torch.dtype, positions: int = 0) -> int:
    """Bytes read from memory to make one new token for one row: every weight once, but of the embedding table one
    row, and the cache of `positions` positions. Divided by the memory bandwidth, the least time a token can take."""
    counts = parameter_counts(config)
    table = 0 if config.tie_word_embeddings else counts["embed_tokens"] - config.hidden_size
    return (sum(counts.values()) - table) * dtype.itemsize + cache_bytes(config, dtype, positions)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that running a model needs: `weights` (by part in `parts`) and `cache` stay, their `total`; `activations`
    come and go with a forward pass, and `peak` is all three."""

    config: PersimmonConfig
    dtype: torch.dtype
    batch: int
    context: int

    @property
    def parts(self) -> dict[str, int]:
        return {part: count * self.dtype.itemsize for part, count in parameter_counts(self.config).items()}

    @property
    def weights(self) -> int:
        return weight_bytes(self.config, self.dtype)

    @property
    def cache(self) -> int:
        return cache_bytes(self.config, self.dtype, self.context, self.batch)

    @property
    def activations(self) -> int:
        return activation_bytes(self.config, self.dtype, self.context, self.batch)

    @property
    def total(self) -> int:
        return self.weights + self.cache

    @property
    def peak(self) -> int:
        return self.total + self.activations

    @property
    def modules(self) -> dict[str, int]:
        """Weights by the modules that can be placed, under their names in the model, in the order they run."""
        final_norm = 2 * self.config.hidden_size * self.dtype.itemsize
        layers = self.config.num_hidden_layers
        layer = (self.parts["attention"] + self.parts["mlp"] + self.parts["norms"] - final_norm) // layers
        return {
            "model.embed_tokens": self.parts["embed_tokens"],
            **{f"model.layers.{index}": layer for index in range(layers)},
            "model.final_layernorm": final_norm,
            "lm_head": self.parts["lm_head"],
        }

    def fits(self, devices: Mapping[Device, int | float]) -> bool:
        """Whether it runs on these devices with nothing kept elsewhere: see `place`, without what "disk" could keep,
        and without "cpu" unless that is all there is."""
        return self._map(devices, resident=len(self.modules)) is not None

    def place(self, devices: Mapping[Device, int | float]) -> dict[str, Device]:
        """Accelerate's `device_map`, given the bytes free on each device, in order: {0: 24e9, 1: 24e9, "cpu": 64e9}.

        Devices are filled one after the other, each layer together with its cache and each device with room left for a
        forward pass. What is left over is kept in memory ("cpu"), then on disk ("disk", with any number of bytes), and
        comes to the first device for each pass, one module at a time; its cache and its arithmetic stay there, as does
        the embedding. Without other devices the CPU is the one that computes.

        Raises ValueError when it does not fit even so.
        """
        for resident in range(len(self.modules), 0, -1):
            if (device_map := self._map(devices, resident)) is not None:
                return device_map
        room = ", ".join(f"{device} {in_bytes(size)}" for device, size in devices.items())
        raise ValueError(
            f"{in_bytes(self.weights)} of weights, {in_bytes(self.cache)} of cache and {in_bytes(self.activations)} "
            f"for a forward pass find no place on {room or 'no device'}; ask for less context, or let "
            '"cpu" and "disk" keep what is left over'
        )

    def _map(self, devices: Mapping[Device, int | float], resident: int) -> dict[str, Device] | None:
        """The device map that keeps the first `resident` modules where they are computed with, if there is room."""
        computing: list[Device] = [device for device in devices if device not in OFFLOAD] or ["cpu"]
        storing: dict[Device, int | float] = {
            device: devices[device] for device in OFFLOAD if device in devices and device not in computing
        }
        cache = self.cache // self.config.num_hidden_layers
        names = list(self.modules)
        embedding = names[0]
        visitors = {name: self.modules[name] for name in names[resident:]}
        residents = {name: self.modules[name] + (layer_of(name) is not None) * cache for name in names[:resident]}
        room = {device: devices.get(device, 0) - self.activations for device in computing}
        room[computing[0]] -= max(visitors.values(), default=0) + cache * sum(
            layer_of(name) is not None for name in visitors
        )
        here = fill(residents, room)
        elsewhere = fill(visitors, storing)
        if here is None or elsewhere is None or (elsewhere and here[embedding] != computing[0]):
            return None
        device_map = here | elsewhere
        if self.config.tie_word_embeddings:
            device_map["lm_head"] = device_map[embedding]  # they are one tensor
        return device_map


def fill(sizes: Mapping[str, int], room: Mapping[Device, int | float]) -> dict[str, Device] | None:
    """Put things on devices in order, going on to the next device when one is full; None if the last one is."""
    device_map: dict[str, Device] = {}
    devices = list(room)
    left = dict(room)
    for name, size in sizes.items():
        while devices and size > left[devices[0]]:
            devices.pop(0)
        if not devices:
            return None
        device_map[name] = devices[0]
        left[devices[0]] -= size
    return device_map


def memory_plan(
    config: PersimmonConfig,
    dtype: torch.dtype,
    batch: int = 1,
    context: int | None = None,
    drop_rows: int = 0,
) -> MemoryPlan:
    """What `batch` rows of `context` positions need (the configuration's whole context by default), if all of it is
    read at once; with `drop_rows` fewer rows in both vocabulary tables (see `fitting.vocabulary_rows`)."""
    positions = config.max_position_embeddings if context is None else context
    if not 0 <= drop_rows < config.vocab_size:
        raise ValueError(f"drop_rows is {drop_rows}; the tables have {config.vocab_size} rows, and one must stay")
    return MemoryPlan(replace(config, vocab_size=config.vocab_size - drop_rows), dtype, batch, positions)
