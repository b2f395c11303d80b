"""A model's weights in each format on this machine: whether they fit, how long a text may be, and how fast at the most.

A plan comes before anything is loaded: bytes are counted, and a rate follows from what one row times a matrix in that
format streams here (`roofline.measure_bandwidth`) and from what memory copies, which is what the cache is read at. That
leaves out everything else a step does, so a rate is what can be hoped for, and no measurement.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.fitting.memory import parameter_counts
from persimmon_lab.fitting.roofline import measure_bandwidth
from persimmon_lab.footprint import activation_bytes, cache_bytes, free_on
from persimmon_lab.generation.engines.packed import can_pack
from persimmon_lab.quantisation import FORMATS as ROUNDED

PLAIN = {"float32": torch.float32, "bfloat16": torch.bfloat16}
COMPUTING = torch.bfloat16  # around rounded weights, which torch multiplies in it
SHARE = 0.95  # of what is free: the allocator's rounding and kernels' workspaces come on top
STREAMED = 2**27  # bytes that a stream is measured with, and how often
REPEATS = 3


@dataclass(frozen=True)
class FormatPlan:
    """A model's weights in one format, by name: a dtype of `PLAIN`, or what `quantize` takes."""

    config: PersimmonConfig
    name: str

    @property
    def dtype(self) -> torch.dtype:
        """Of the cache, the activations and what is not rounded."""
        return PLAIN.get(self.name, COMPUTING)

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return self._bytes_of(tables=1 if self.config.tie_word_embeddings else 2)

    @property
    def streamed(self) -> int:
        """Bytes of weights that are read for a token: all, but of the embedding a row."""
        return self._bytes_of(tables=1)

    def needed(self, context: int) -> int:
        """Bytes at the peak of reading so many positions at once."""
        cache = cache_bytes(self.config, self.dtype, context)
        return self.weights + cache + activation_bytes(self.config, self.dtype, context)

    def longest(self, free: int | float) -> int:
        """The most positions, up to the model's, that so many bytes hold; 0 where they do not hold one."""
        low, high = 0, self.config.max_position_embeddings
        while low < high:
            middle = (low + high + 1) // 2
            if self.needed(middle) <= free:
                low = middle
            else:
                high = middle - 1
        return low

    def rate(self, bandwidth: float, memory: float, context: int) -> float:
        """Tokens a second behind a text of so many positions, where so many bytes of weights and of the cache stream in
        a second."""
        return 1 / (self.streamed / bandwidth + cache_bytes(self.config, self.dtype, context) / memory)

    def _bytes_of(self, tables: int) -> int:
        """Bytes of the layers and of so many tables of the vocabulary."""
        config = self.config
        layers, hidden, mlp = config.num_hidden_layers, config.hidden_size, config.intermediate_size
        matrices = [  # (how many, outputs, inputs)
            (layers, 4 * hidden, hidden),
            (layers, mlp, hidden),
            (layers, hidden, mlp),
            (tables, config.vocab_size, hidden),
        ]
        numbers = sum(count * outputs * inputs for count, outputs, inputs in matrices)
        whole = replace(config, tie_word_embeddings=tables == 1)
        vectors = sum(parameter_counts(whole).values()) - numbers
        if self.name not in ROUNDED:
            return (numbers + vectors) * self.dtype.itemsize
        kind = ROUNDED[self.name]
        rows = sum(count * outputs * kind.row_bytes(inputs, self.dtype) for count, outputs, inputs in matrices)
        return rows + vectors * self.dtype.itemsize


@dataclass(frozen=True)
class Outlook:
    """What a format promises on a device. `context` is 0 where the model does not fit; then there is no rate."""

    plan: FormatPlan
    context: int
    how: str
    """What multiplies."""
    bandwidth: float | None
    """Bytes of weights a second, measured here."""
    memory: float
    """Bytes that are copied in a second, read and written, measured here."""

    @property
    def first_rate(self) -> float | None:
        """Tokens a second behind a short text."""
        return None if self.bandwidth is None else self.plan.rate(self.bandwidth, self.memory, 0)

    @property
    def last_rate(self) -> float | None:
        """Tokens a second at the end of the longest text."""
        return None if self.bandwidth is None else self.plan.rate(self.bandwidth, self.memory, self.context)


def outlook(config: PersimmonConfig, device: torch.device | str = "cpu", free: int | None = None) -> Iterator[Outlook]:
    """Every format in turn, with the streams of those that fit measured on the way (a second or two each).

    `free` are the bytes to plan for, those that are free now unless given.
    """
    device = torch.device(device)
    free = free_on(device) if free is None else free
    memory = measure_bandwidth(COMPUTING, device, "copy", streamed=STREAMED, repeats=REPEATS)
    for name in (*PLAIN, *ROUNDED):
        plan = FormatPlan(config, name)
        room = float("inf") if free is None else SHARE * free
        context = plan.longest(room)
        # The packed copy comes beside the weights.
        packs = device.type == "cpu" and can_pack(plan.dtype) and plan.needed(context) + plan.streamed <= room
        how = name if name in ROUNDED else "packed" if packs else "plain"
        bandwidth = None
        if context:
            bandwidth = measure_bandwidth(plan.dtype, device, how, streamed=STREAMED, repeats=REPEATS)
        yield Outlook(plan, context, how, bandwidth, memory)
