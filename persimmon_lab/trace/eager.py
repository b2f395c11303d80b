"""Scores and pattern exist in eager attention alone: use it for a while."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from persimmon_lab.attention import PersimmonAttention
from persimmon_lab.trace.names import Site

EAGER_TAPS = ("scores", "pattern")


def needs_eager(model: nn.Module, chosen: Iterable[Site]) -> bool:
    """Whether one of the places is a tap that the fused kernel passes by."""
    taps = {
        id(getattr(module, tap))
        for module in model.modules()
        if isinstance(module, PersimmonAttention)
        for tap in EAGER_TAPS
    }
    return any(id(site.module) in taps for site in chosen)


@contextmanager
def eager_attention(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Eager attention inside, and what was there before afterwards, also after an error."""
    if not wanted:
        yield
        return
    before = model.config.attn_implementation
    model.config.attn_implementation = "eager"
    try:
        yield
    finally:
        model.config.attn_implementation = before
