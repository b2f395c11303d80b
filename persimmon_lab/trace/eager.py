"""Scores and pattern exist in eager attention alone: use it for a while."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from persimmon_lab.attention import PersimmonAttention, causal_mask
from persimmon_lab.trace.hooks import of_this_thread
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
    """Eager attention inside, for the passes of this thread; nothing of the model is changed, nor left behind."""
    attentions = [module for module in model.modules() if wanted and isinstance(module, PersimmonAttention)]
    with ExitStack() as stack:
        for attention in attentions:
            hook = of_this_thread(_in_eager)
            stack.callback(attention.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _in_eager(
    attention: PersimmonAttention, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    """The arguments of an attention layer with `eager`, and with the causal mask that the fused kernel has built in."""
    names = ("hidden", "cos", "sin", "mask", "cache", "eager")
    arguments = dict(zip(names, given)) | named | {"eager": True}
    if arguments["mask"] is None:
        hidden, cache = arguments["hidden"], arguments.get("cache")
        past = 0 if cache is None else cache.get_seq_length(attention.layer_index)
        length = hidden.shape[1]
        arguments["mask"] = causal_mask(None, length, past + length, hidden.dtype, hidden.device)
    return (), arguments
