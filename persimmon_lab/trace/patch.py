"""Activations in: functions that replace what modules make, for as long as a `with` block lasts."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from persimmon_lab.trace.eager import eager_attention, needs_eager
from persimmon_lab.trace.hooks import hooked
from persimmon_lab.trace.names import Activation, sites

Replacement = Callable[[Tensor], Tensor]


@contextmanager
def patch(model: nn.Module, functions: Mapping[str, Replacement]) -> Iterator[None]:
    """Within the block, every activation that a pattern matches goes through its function: tensor in, tensor out.

    This holds for the passes of the thread that opened the block; what others compute with the model stays as it is.

    Names and patterns are those of `capture`: "layers.3" replaces the residual stream after layer 3, "mlp" what each
    MLP adds to it, "layers.3:input" what the layer is given. The function gets a copy, so it may write into it, and
    returns a tensor of the same shape, dtype and device. Several functions for one activation act in their order in
    `functions`, those of an inner block after those of an outer one. Captures come last: they see what the model goes
    on with. During generation a function sees each pass: the whole prompt, then one new position at a time.

    `scores` and `pattern` use eager attention within the block. Everything is as it was afterwards, also after an
    error. A backward pass that recomputes (gradient checkpointing) has to be inside the block as well.

    Raises ValueError for a pattern that matches nothing and, when the model runs, for a result of another shape, dtype
    or device; TypeError for one that is no tensor.

    The trap: an input is what one module is given. `layers.3:input` changes the stream for all that follows;
    `post_attention_layernorm:input` only what the norm reads, while the sum after the MLP goes on with the old stream.
    """
    chosen = [(site, function) for pattern, function in functions.items() for site in sites(model, [pattern])]
    passing = [(site, partial(_replaced, site.name, function)) for site, function in chosen]
    with eager_attention(model, needs_eager(model, [site for site, _ in chosen])), hooked(passing):
        yield


def _replaced(name: str, function: Replacement, before: Activation | None) -> Activation:
    if before is None:
        raise TypeError(f"{name} is no tensor of floats, so there is nothing to patch; name a module inside it")
    after = function(before.clone())
    if not isinstance(after, Tensor):
        raise TypeError(f"the function for {name} returned {type(after).__name__}; return the tensor to go on with")
    for what in ("shape", "dtype", "device"):
        wanted, got = getattr(before, what), getattr(after, what)
        if wanted != got:
            wanted, got = (tuple(value) if what == "shape" else value for value in (wanted, got))
            raise ValueError(f"the function for {name} returned {what} {got}; the model goes on with {what} {wanted}")
    return after
