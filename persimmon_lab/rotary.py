"""Rotary position embedding: position becomes rotation, so that a score depends on the distance alone.

Persimmon rotates the first `rotary_dim` channels of every head and passes the rest through. Channel i is paired with
channel i + rotary_dim/2 (halves, not neighbours), and pair i turns by `position * theta^(-2i / rotary_dim)` radians.

Source: Su et al. 2021, RoFormer, section 3.2; transformers 4.37.2 `modeling_persimmon`; linear scaling: Chen et al.
2023, position interpolation; dynamic scaling: the NTK-aware base of 4.37.2.
"""

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.config import PersimmonConfig


def inverse_frequencies(
    rotary_dim: int, theta: float, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "pair"]:
    """Radians that each pair of channels turns per position: theta^(-2i / rotary_dim) for i = 0 … rotary_dim/2 - 1."""
    exponents = torch.arange(0, rotary_dim, 2, device=device, dtype=dtype) / rotary_dim
    return 1.0 / theta**exponents


def dynamic_theta(theta: float, rotary_dim: int, factor: float, length: int, trained_length: int) -> float:
    """The base that dynamic NTK scaling uses for an input of `length` positions.

    `theta * (factor * length / trained_length - (factor - 1)) ^ (rotary_dim / (rotary_dim - 2))` beyond the trained
    length, `theta` itself within it. The trap: it depends on the current length only (4.37.2 never lets it shrink
    again), so keys that a cache holds from a shorter input were rotated with a smaller base.
    """
    if length <= trained_length:
        return theta
    stretched: float = (factor * length / trained_length - (factor - 1)) ** (rotary_dim / (rotary_dim - 2))
    return theta * stretched


def has_own_theta(config: PersimmonConfig, length: int) -> bool:
    """Whether dynamic scaling gives an input of `length` positions a base of its own."""
    scaling = config.rope_scaling
    return scaling is not None and scaling["type"] == "dynamic" and length > config.max_position_embeddings


def rotary_tables(
    position_ids: Int[Tensor, "batch position"], config: PersimmonConfig, length: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "batch position rotary"], Float[Tensor, "batch position rotary"]]:
    """Cosine and sine of every position's phase, repeated for both halves of the rotary channels.

    `length` is the number of positions attended to so far, cached ones included; only dynamic scaling looks at it.
    Phases are computed in float32 (float64 for a float64 model) whatever the model's dtype, then rounded once to
    `dtype`. `rope_precision="adept"` does as Adept's inference does instead: position, frequency and their product
    are each rounded to the model's half precision (bfloat16, the training dtype, for a float32 or float64 model).
    Past 256 bfloat16 cannot tell neighbouring positions apart; the flag exists to study what that does.

    Source of "adept": adept-inference `positional_embeddings.py`; its fast path asks flash-attn 2.0.0 for the same by
    `RotaryEmbedding(pos_idx_in_fp32=False)`.
    """
    phase_dtype = torch.promote_types(dtype, torch.float32)
    theta, positions = config.rope_theta, position_ids.to(phase_dtype)
    if config.rope_scaling is not None:
        factor = config.rope_scaling["factor"]
        if config.rope_scaling["type"] == "linear":
            positions = positions / factor
        else:
            theta = dynamic_theta(theta, config.rotary_dim, factor, length, config.max_position_embeddings)
    frequencies = inverse_frequencies(config.rotary_dim, theta, position_ids.device, phase_dtype)
    if config.rope_precision == "adept":
        half = dtype if dtype.itemsize == 2 else torch.bfloat16
        positions, frequencies = positions.to(half), frequencies.to(half)
    phases = rearrange(positions, "batch position -> batch position 1") * frequencies
    phases = repeat(phases.to(phase_dtype), "batch position pair -> batch position (half pair)", half=2)
    return phases.cos().to(dtype), phases.sin().to(dtype)


def rotate_half(x: Float[Tensor, "*leading rotary"]) -> Float[Tensor, "*leading rotary"]:
    """A quarter turn of every pair (first half, second half) -> (-second half, first half)."""
    first, second = rearrange(x, "... (half pair) -> half ... pair", half=2)
    return torch.cat((-second, first), dim=-1)


def apply_rotary(
    x: Float[Tensor, "batch head position channel"],
    cos: Float[Tensor, "#batch position rotary"],
    sin: Float[Tensor, "#batch position rotary"],
) -> Float[Tensor, "batch head position channel"]:
    """Rotate the first `rotary` channels of a query or key by its position; the other channels pass unchanged."""
    rotary_dim = cos.shape[-1]
    rotated, passed = x[..., :rotary_dim], x[..., rotary_dim:]
    cos, sin = (rearrange(table, "batch position rotary -> batch 1 position rotary") for table in (cos, sin))
    return torch.cat((rotated * cos + rotate_half(rotated) * sin, passed), dim=-1)
