"""The buffer of rotary frequencies in a release: compared with the configured base, then dropped, for it follows."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.rotary import inverse_frequencies

BASES = (25000, 10000)  # Persimmon's, and the one of most other models

Frequencies = Float[Tensor, "pair"]


def belong_to(frequencies: Frequencies, base: int | float) -> bool:
    """Whether these are base^(-2i / width), as far as their dtype can tell.

    The trap: bfloat16 has 8 bits, so it cannot tell bases apart that differ by less than a per cent or so.
    """
    rounded = torch.finfo(frequencies.dtype)
    exact = inverse_frequencies(2 * len(frequencies), float(base), dtype=torch.float64)
    # A power in float32 is off by a few steps; in float16 the slowest frequencies are below its normal numbers.
    relative, absolute = max(rounded.eps, 1e-5), rounded.tiny * rounded.eps
    return bool(torch.allclose(frequencies.to(torch.float64), exact, rtol=relative, atol=absolute))


def base_of(frequencies: Frequencies) -> float:
    """The base that these frequencies belong to: a usual one if it fits, else what the slowest of them says."""
    if fitting := [base for base in BASES if belong_to(frequencies, base)]:
        return float(fitting[0])
    width = 2 * len(frequencies)
    base: float = float(frequencies[-1]) ** (-width / (width - 2))
    return base


def faults(
    frequencies: Mapping[str, Frequencies], channels: int, fraction: int | float, base: int | float
) -> list[str]:
    """What is wrong with the buffers of all layers, where `fraction` of each head's `channels` should rotate."""
    width = int(fraction * channels)
    if wrong := [name for name, buffer in frequencies.items() if 2 * len(buffer) != width]:
        return [
            f"rotary_pct {fraction} of kv_channels {channels} rotates {width} channels, but {wrong[0]} is for "
            f"{2 * len(frequencies[wrong[0]])}"
        ]
    if wrong := [name for name, buffer in frequencies.items() if not belong_to(buffer, base)]:
        return [
            f"rotary_emb_base {base} does not give the frequencies in {', '.join(wrong)}, whose base looks like "
            f"{base_of(frequencies[wrong[0]]):.6g}"
        ]
    return []
