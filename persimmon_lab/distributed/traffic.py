"""What the ranks send each other: by formula from a configuration, and counted while a model runs.

A rank sends, of n bytes that each has (a sum) or that all have in the end (a gather), when P ranks pass them round a
ring:

    sum over the ranks, known to all   2 (P - 1) / P n
    gather of parts                      (P - 1) / P n
    sum, of which each keeps its part    (P - 1) / P n

Less than that no method can send in all. The trap: gloo (torch 2.13) has no sum of which each keeps its part, and makes
it of a whole one: twice the bytes on the wire. Source: Patarasu & Yuan 2009, bandwidth optimal all-reduce.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from persimmon_lab.anatomy import layer_of
from persimmon_lab.config import PersimmonConfig

SUM, GATHER, SCATTER = "sum", "gather", "sum and scatter"
ROUNDS = {SUM: 2, GATHER: 1, SCATTER: 1}  # of the ring
# torch's operations by their names, and which of their arguments has the bytes that count; None: the result.
OPERATIONS: dict[str, tuple[str, int | None]] = {
    "_c10d_functional.all_reduce": (SUM, 0),
    "_c10d_functional.all_gather_into_tensor": (GATHER, None),
    "_c10d_functional.reduce_scatter_tensor": (SCATTER, 0),
    "c10d.allreduce_": (SUM, 0),
    "c10d._allgather_base_": (GATHER, 0),
    "c10d._reduce_scatter_base_": (SCATTER, 1),
}
LIBRARIES = ("_c10d_functional.", "c10d.")
SILENT = ("wait_tensor", "barrier", "_wrap_tensor_autograd")  # in which no tensor is sent


@dataclass(frozen=True)
class Message:
    """One thing that all ranks do together: what, over how many bytes, and for which part of the model."""

    kind: str
    nbytes: int
    part: str = ""

    def sent(self, ranks: int) -> float:
        """Bytes that each rank sends."""
        return ROUNDS[self.kind] * (ranks - 1) / ranks * self.nbytes


def sent(messages: list[Message], ranks: int) -> float:
    """Bytes that each rank sends for all of them."""
    return sum(message.sent(ranks) for message in messages)


def tensor_parallel(
    config: PersimmonConfig, positions: int, *, batch: int = 1, itemsize: int = 4, kept: int = 1
) -> list[Message]:
    """What a model cut by `plan.plan` sends for one forward pass over `positions` new positions of each row, of which
    the last `kept` get logits: two sums a layer, one for the embedding, and a gather of the logits.

    It does not depend on how long the text before is. The check that all ranks read the same ids comes on top: a
    maximum over 48 bytes.
    """
    hidden = batch * positions * config.hidden_size * itemsize
    messages = [Message(SUM, hidden, "model.embed_tokens")]
    for layer in range(config.num_hidden_layers):
        messages.append(Message(SUM, hidden, f"model.layers.{layer}.self_attn.dense"))
        messages.append(Message(SUM, hidden, f"model.layers.{layer}.mlp.dense_4h_to_h"))
    return [*messages, Message(GATHER, batch * kept * config.vocab_size * itemsize, "lm_head")]


def fully_sharded(shapes: dict[str, tuple[int, ...]], ranks: int, *, itemsize: int = 4) -> list[Message]:
    """What FSDP2 sends in one step of training, forward and backward, for weights of these shapes: each group of them
    is gathered for the forward pass and, but for the last to be gathered, again for the backward pass; then its
    gradients, in float32, are summed up and scattered.

    Groups are the layers and what is in none. Rows are padded up to a multiple of the ranks. The sums of a loss and of
    a norm, a few bytes each, come on top.
    """
    groups: dict[str, int] = {}
    for name, (rows, *width) in shapes.items():
        layer = layer_of(name)
        group = "outside the layers" if layer is None else f"model.layers.{layer}"
        numbers = -(-rows // ranks) * ranks
        for size in width:
            numbers *= size
        groups[group] = groups.get(group, 0) + numbers
    messages = []
    for group, numbers in groups.items():
        gathers = 1 if group == "outside the layers" else 2
        messages += [Message(GATHER, numbers * itemsize, group)] * gathers
        messages.append(Message(SCATTER, numbers * torch.float32.itemsize, group))
    return messages


class Span(NamedTuple):
    """When a rank was busy with the others, in seconds of the machine's clock, which its ranks share."""

    start: float
    end: float


class _Counter(TorchDispatchMode):
    """Sees each operation on its way to the backend."""

    messages: list[Message]
    spans: list[Span]

    def __torch_dispatch__(
        self, operation: Any, types: Any, given: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        name = str(operation).rpartition(".")[0]
        if not name.startswith(LIBRARIES):
            return operation(*given, **(named or {}))
        start = time.monotonic()
        result = operation(*given, **(named or {}))
        self.spans.append(Span(start, time.monotonic()))
        if name in OPERATIONS:
            kind, place = OPERATIONS[name]
            self.messages.append(Message(kind, _nbytes(result if place is None else given[place])))
        elif not name.endswith(SILENT):
            raise NotImplementedError(f"{name} was sent, and nobody has said how to count it: see traffic.OPERATIONS")
        return result


def _nbytes(values: Any) -> int:
    """Bytes of the tensors in what an operation takes or gives."""
    if isinstance(values, torch.Tensor):
        return values.nbytes
    if isinstance(values, list | tuple):
        return sum(_nbytes(value) for value in values)
    return 0


@contextmanager
def counted() -> Iterator[list[Message]]:
    """A list that fills with what this rank does together with others while the block runs, without `part`.

    It sees forward and backward passes, and not what happens inside a DTensor's own operations, such as the norm of
    sharded gradients. Raises NotImplementedError for an operation that it does not know.
    """
    with _counting() as counter:
        yield counter.messages


@contextmanager
def timed() -> Iterator[list[Span]]:
    """A list that fills with the times at which this rank sends and waits, in order: see `counted`."""
    with _counting() as counter:
        yield counter.spans


@contextmanager
def _counting() -> Iterator[Any]:
    new: Any = _Counter  # of which torch does not say what it takes
    counter: Any = new()
    counter.messages, counter.spans = [], []
    with counter:
        yield counter
