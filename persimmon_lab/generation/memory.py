"""Whether a generation fits into memory, asked before it begins."""

from collections.abc import Iterable
from typing import Any

import torch

from persimmon_lab.cache import cache_for
from persimmon_lab.footprint import activation_bytes, cache_bytes, free_memory, in_bytes
from persimmon_lab.generation_config import GenerationConfig


def memory_needed(
    model: Any, config: GenerationConfig, batch: int, width: int, new_tokens: int, padded: bool = False
) -> dict[str, int]:
    """Bytes that generating `new_tokens` after `batch` prompts of `width` positions allocates, by what they are for.

    `cache`: keys and values of every position of every answer or beam. `forward`: the larger of reading the prompt
    (`prefill_chunk_size` positions at a time) and of a step of all rows, with the mask of padded or chunked prompts.
    `choice`: logits, scores and probabilities of a step in float32. Not counted: kernels' workspaces.
    """
    answers = batch * max(config.num_beams, config.num_return_sequences)
    chunk = min(config.prefill_chunk_size or width, width)
    reading = activation_bytes(model.config, model.dtype, chunk, batch)
    if padded or chunk < width:
        reading += batch * chunk * width * (2 * model.dtype.itemsize + 1)  # visible or not; zeros; the mask itself
    step = 1 if config.use_cache else width + new_tokens
    return {
        "cache": cache_bytes(model.config, model.dtype, width + new_tokens, answers) if config.use_cache else 0,
        "forward": max(reading, activation_bytes(model.config, model.dtype, step, answers)),
        "choice": 3 * answers * model.config.vocab_size * torch.float32.itemsize,
    }


def require_memory(
    model: Any,
    config: GenerationConfig,
    batch: int,
    width: int,
    new_tokens: int,
    cache: Any = None,
    padded: bool = False,
) -> None:
    """Raises MemoryError, with the numbers, where `memory_needed` is more than the model's device has free."""
    device = torch.device(model.device)
    index = torch.cuda.current_device() if device.type == "cuda" and device.index is None else device.index
    free = free_memory().get("cpu" if device.type == "cpu" else f"{device.type}:{index}")
    if free is None:
        return
    if device.type == "cuda":  # what torch holds without using it is free to us
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    needed = memory_needed(model, config, batch, width, new_tokens, padded)
    if isinstance(cache, Iterable):  # of ours, or a legacy tuple
        held = sum(tensor.nbytes for pair in cache for tensor in pair)
    else:
        held = cache_bytes(model.config, model.dtype, cache_for(cache).get_seq_length(), batch)
    total = sum(needed.values()) - min(held, needed["cache"])
    if total > free:
        parts = ", ".join(f"{name} {in_bytes(size)}" for name, size in needed.items())
        raise MemoryError(
            f"{batch} prompts of {width} tokens and {new_tokens} new ones, {config.num_return_sequences} answers and "
            f"{config.num_beams} beams each, need about {in_bytes(total)} ({parts}), and {model.device} has "
            f"{in_bytes(free)} free; use fewer rows, beams or tokens, a prefill_chunk_size, or a smaller dtype"
        )
