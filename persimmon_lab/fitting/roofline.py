"""How fast a model can be here at the most: what it must read and compute, over what this machine reads and computes.

A decode step reads every weight to make one token, so its limit is `measure_bandwidth / bytes_per_step` steps a second.
A long prompt shares that reading among all its positions, and `measure_matrix_rate / flops` limits it instead. Between
the two lies the ridge, `matrix rate / bandwidth` operations per byte.

Source: Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model", section 3.
"""

import time
from collections.abc import Callable

import torch
from torch import nn

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.fitting.memory import streamed_bytes
from persimmon_lab.footprint import cache_bytes
from persimmon_lab.generation.engines.packed import (
    Linear,
    LinearKind,
    OneRowLinear,
    PackedLinear,
    PlainLinear,
    can_pack,
)
from persimmon_lab.quantisation import FORMATS, RoundedWeight

BANDWIDTHS = ("packed", "plain", "copy", *FORMATS)
STREAMED_BYTES = 2**28  # eight times a large third-level cache, so that every repeat comes from memory
STREAM_WIDTH = 4096  # Persimmon-8B's hidden size
MATRIX_SIZE = 2048


def bytes_per_step(config: PersimmonConfig, dtype: torch.dtype, past: int = 0, batch: int = 1) -> int:
    """Bytes that a decode step must read: every weight once for the whole batch (of the embedding table one row for
    each row of the batch), and each row's cache of `past` positions. What it writes is small and left out."""
    weights = streamed_bytes(config, dtype)
    extra_rows = 0 if config.tie_word_embeddings else batch - 1  # a tied table is read whole anyway
    return weights + extra_rows * config.hidden_size * dtype.itemsize + cache_bytes(config, dtype, past, batch)


def flops(config: PersimmonConfig, new: int, past: int = 0, batch: int = 1, logits: int = 1) -> int:
    """Operations of a forward pass over `new` positions after `past` others: a multiply and its add count two.

    With h the hidden size and m the MLP's width, per row: 2 * new * layers * (4h^2 + 2hm) for the projections; 4h per
    layer for each pair of a query and a key that it may see (scores, and mixing the values); 2h * vocab for each of the
    `logits` positions. Norms, softmax and rotation, which are linear in h, are left out.

    The trap: under a causal mask a query sees half the keys on average. Kernels that compute the other half as well and
    throw it away (torch's FlopCounterMode counts it) do more than this says, and look slower than they are.
    """
    layers, hidden = config.num_hidden_layers, config.hidden_size
    projections = new * (4 * hidden * hidden + 2 * hidden * config.intermediate_size)
    pairs = new * past + new * (new + 1) // 2
    head = min(logits, new) * hidden * config.vocab_size
    return 2 * batch * (layers * (projections + 2 * hidden * pairs) + head)


def intensity(config: PersimmonConfig, dtype: torch.dtype, new: int = 1, past: int = 0, batch: int = 1) -> float:
    """Operations per byte that must be read: a roofline's horizontal axis."""
    return flops(config, new, past, batch) / bytes_per_step(config, dtype, past, batch)


def measure_bandwidth(
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    how: str | None = None,
    *,
    streamed: int = STREAMED_BYTES,
    repeats: int = 7,
) -> float:
    """Bytes per second that weights of `dtype` stream from memory: the best of `repeats`, which disturbances only slow.

    `how` says who reads `streamed` bytes. "packed": one row times a matrix in oneDNN's own layout, the most that a
    decode step on a CPU can hope for and the default there. "plain": one row times an ordinary matrix, `F.linear`.
    "int8" and "int4": one row of `dtype` times rounded weights, whose bytes count with their scales.
    "copy": a copy, which counts each byte read and each written; the default on a GPU.

    Raises ValueError for another `how`, and for "packed" where there is no oneDNN.
    """
    device = torch.device(device)
    how = how or ("packed" if device.type == "cpu" else "copy")
    if how not in BANDWIDTHS:
        raise ValueError(f"how is {how!r}; choose one of {', '.join(map(repr, BANDWIDTHS))}")
    if how == "copy":
        source = torch.ones(streamed // dtype.itemsize, dtype=dtype, device=device)
        target = torch.empty_like(source)
        return 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device, repeats)
    if how in FORMATS:
        return _rounded_bandwidth(FORMATS[how], dtype, device, streamed, repeats)
    rows = streamed // (STREAM_WIDTH * dtype.itemsize)
    product = product_of_ones(rows, STREAM_WIDTH, dtype, device, OneRowLinear if how == "packed" else PlainLinear)
    row = torch.ones(1, STREAM_WIDTH, dtype=dtype, device=device)
    return rows * STREAM_WIDTH * dtype.itemsize / best_seconds(lambda: product(row), device, repeats)


def _rounded_bandwidth(
    kind: type[RoundedWeight], dtype: torch.dtype, device: torch.device, streamed: int, repeats: int
) -> float:
    weight = kind(streamed // kind.row_bytes(STREAM_WIDTH, dtype), STREAM_WIDTH, dtype, device)
    for buffer in weight.buffers():
        buffer.fill_(1)
    row = torch.ones(1, STREAM_WIDTH, dtype=dtype, device=device)
    return weight.nbytes / best_seconds(lambda: weight.product(row), device, repeats)


def measure_matrix_rate(
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    how: str | None = None,
    *,
    size: int = MATRIX_SIZE,
    repeats: int = 5,
) -> float:
    """Operations per second of a product of two square matrices, the best of `repeats`: a prompt's limit.

    `how` is "packed", the default on a CPU, or "plain". A GPU needs `size` 8192 to be busy.
    """
    device = torch.device(device)
    how = how or ("packed" if device.type == "cpu" else "plain")
    if how not in ("packed", "plain"):
        raise ValueError(f"how is {how!r}; choose 'packed' or 'plain'")
    product = product_of_ones(size, size, dtype, device, PackedLinear if how == "packed" else PlainLinear)
    rows = torch.ones(size, size, dtype=dtype, device=device)
    return 2 * size**3 / best_seconds(lambda: product(rows), device, repeats)


def product_of_ones(rows: int, columns: int, dtype: torch.dtype, device: torch.device, kind: LinearKind) -> Linear:
    """A laid-out matrix of ones. Raises ValueError where oneDNN cannot pack one."""
    if kind is not PlainLinear and not (device.type == "cpu" and can_pack(dtype)):
        raise ValueError(
            f"oneDNN packs float32 and bfloat16 on a CPU that it knows, not {dtype} on {device}: ask for 'plain'"
        )
    linear = nn.Linear(columns, rows, bias=False, dtype=dtype, device=device)
    nn.init.ones_(linear.weight)
    return kind(linear)


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The shortest of `repeats` runs of `work`, after one that warms up; on a GPU by its own clock."""
    times: list[float] = []
    with torch.no_grad():
        for _ in range(repeats + 1):
            if device.type == "cuda":
                before = torch.cuda.Event(enable_timing=True)
                after = torch.cuda.Event(enable_timing=True)
                before.record()
                work()
                after.record()
                after.synchronize()
                times.append(before.elapsed_time(after) / 1000)
            else:
                start = time.perf_counter()
                work()
                times.append(time.perf_counter() - start)
    return min(times[1:])
