"""What a Persimmon costs before anything is allocated: parameters, bytes of weights and cache, bytes per new token."""

from dataclasses import dataclass

import torch

from persimmon_lab.config import PersimmonConfig


def parameter_counts(config: PersimmonConfig) -> dict[str, int]:
    """Parameters of a causal-LM model by part, in reading order: their sum is `model.num_parameters()`.

    Per layer, with hidden size h and MLP width m: attention 4h^2 + 4h, MLP 2hm + m + h, norms 4h, and 4 head_dim
    more with qk-layernorm. A tied `lm_head` counts 0.
    """
    layers, hidden, mlp = config.num_hidden_layers, config.hidden_size, config.intermediate_size
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


def cache_bytes(config: PersimmonConfig, dtype: torch.dtype, positions: int, batch: int = 1) -> int:
    """Bytes of the key/value cache: 2 * layers * hidden numbers for every position of every row."""
    return 2 * config.num_hidden_layers * config.hidden_size * positions * batch * dtype.itemsize


def streamed_bytes(config: PersimmonConfig, dtype: torch.dtype, positions: int = 0) -> int:
    """Bytes read from memory to make one new token for one row: every weight once, but of the embedding table one
    row, and the cache of `positions` positions. Divided by the memory bandwidth, the least time a token can take."""
    counts = parameter_counts(config)
    table = 0 if config.tie_word_embeddings else counts["embed_tokens"] - config.hidden_size
    return (sum(counts.values()) - table) * dtype.itemsize + cache_bytes(config, dtype, positions)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that running a model needs; activations of the forward pass come on top."""

    weights: int
    cache: int

    @property
    def total(self) -> int:
        return self.weights + self.cache


def memory_plan(config: PersimmonConfig, dtype: torch.dtype, batch: int = 1, context: int | None = None) -> MemoryPlan:
    """Weights and cache of `batch` rows of `context` positions (the configuration's whole context by default)."""
    positions = config.max_position_embeddings if context is None else context
    return MemoryPlan(weight_bytes(config, dtype), cache_bytes(config, dtype, positions, batch))
