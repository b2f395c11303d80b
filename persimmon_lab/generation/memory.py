"""Whether a generation fits into memory, asked before it begins."""

from typing import Any

import torch

from persimmon_lab.cache import DynamicCache, StaticCache, cache_for
from persimmon_lab.footprint import activation_bytes, cache_bytes, free_on, in_bytes
from persimmon_lab.generation_config import GenerationConfig

# Tensors (row vocab) in float32 at the height of a step. Of beams four are sorting's values with their places, and the
# allocator holds a few that nobody uses: as many as bring peaks of memory near the estimate (tests/beam_peaks).
SCORES = 3
SCORES_OF_BEAMS = 18
TRIFLE = 2**23  # bytes


def memory_needed(
    model: Any, config: GenerationConfig, batch: int, width: int, new_tokens: int, padded: bool = False
) -> dict[str, int]:
    """Bytes that generating `new_tokens` after `batch` prompts of `width` positions allocates, by what they are for.

    `cache`: keys and values of every position of every answer or beam. `forward`: the larger of reading the prompt
    (`prefill_chunk_size` positions at a time) and of a step of all rows, with the mask of padded or chunked prompts.
    `choice`: logits, scores and probabilities of a step in float32; beams keep more of them, and sort them all.
    `reorder`: the layer of the cache that beams are moving. Not counted: kernels' workspaces.
    """
    answers = batch * max(config.num_beams, config.num_return_sequences)
    chunk = min(config.prefill_chunk_size or width, width)
    reading = activation_bytes(model.config, model.dtype, chunk, batch)
    if padded or chunk < width:
        reading += batch * chunk * width * (2 * model.dtype.itemsize + 1)  # visible or not; zeros; the mask itself
    step = 1 if config.use_cache else width + new_tokens
    cache = cache_bytes(model.config, model.dtype, width + new_tokens, answers) if config.use_cache else 0
    needed = {
        "cache": cache,
        "forward": max(reading, activation_bytes(model.config, model.dtype, step, answers)),
        "choice": SCORES * answers * model.config.vocab_size * torch.float32.itemsize,
    }
    if config.num_beams > 1:
        shaped = config.repetition_penalty != 1.0 or bool(config.no_repeat_ngram_size)
        scores = SCORES_OF_BEAMS + SCORES * (int(config.do_sample) + int(shaped))
        needed["choice"] = scores * answers * model.config.vocab_size * torch.float32.itemsize
        needed["reorder"] = cache // model.config.num_hidden_layers
    return needed


def require_memory(
    model: Any,
    config: GenerationConfig,
    batch: int,
    width: int,
    new_tokens: int,
    cache: Any = None,
    padded: bool = False,
) -> None:
    """Raises MemoryError, with the numbers, where `memory_needed` is more than the model's device has free.

    What needs less than TRIFLE is not asked about: to read what is free takes a good part of a small model's step.
    """
    needed = memory_needed(model, config, batch, width, new_tokens, padded)
    if isinstance(cache, DynamicCache | StaticCache):
        held = sum(tensor.nbytes for pair in cache for tensor in pair)
    else:
        held = cache_bytes(model.config, model.dtype, cache_for(cache).get_seq_length(), batch)
    total = sum(needed.values()) - min(held, needed["cache"])
    free = free_on(model.device) if total > TRIFLE else None
    if free is not None and total > free:
        parts = ", ".join(f"{name} {in_bytes(size)}" for name, size in needed.items())
        raise MemoryError(
            f"{batch} prompts of {width} tokens and {new_tokens} new ones, {config.num_return_sequences} answers and "
            f"{config.num_beams} beams each, need about {in_bytes(total)} ({parts}), and {model.device} has "
            f"{in_bytes(free)} free; use fewer rows, beams or tokens, a prefill_chunk_size, or a smaller dtype"
        )
