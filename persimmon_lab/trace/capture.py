"""Activations out: what modules make while a model runs, by name, through hooks on those modules alone."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.trace.eager import eager_attention, needs_eager
from persimmon_lab.trace.gradients import gradients, marking, without_history
from persimmon_lab.trace.hooks import hooked, of_this_thread
from persimmon_lab.trace.names import Activation, Site, matches, patterns_to_keep, sites
from persimmon_lab.trace.record import Trace
from persimmon_lab.trace.sizes import axes_on, bytes_of, default_limit, device_of, refuse_more_than
from persimmon_lab.trace.slices import Slices

__all__ = ["Trace", "capture", "capturing"]


def capture(
    model: nn.Module,
    ids: Int[Tensor, "batch position"] | None = None,
    *,
    only: Iterable[str] | None = None,
    heads: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    gradient_of: Callable[[Any], Tensor] | None = None,
    limit_bytes: int | float | None = None,
    **forward_arguments: Any,
) -> Trace:
    """Run the model once, on `ids` and whatever else its forward takes, and keep what the matched modules make.

    `only` are patterns: "layers.3.mlp", "pattern" (every layer's), "layers.0:input" (what a module is given); None
    keeps every output. A decoder layer's output is the residual stream after it. `heads` and `positions` keep those
    alone, of what has such axes; the axes stay. Asking for `scores` or `pattern` uses eager attention for the call. No
    cache is made unless `use_cache=True` says so, and a given one is read but not extended. Other threads may run the
    model meanwhile: their passes are neither kept nor changed.

    `gradient_of(output)` returns one number of the model's output; its gradients are in `trace.gradients`, the forward
    pass then runs with a graph, and the parameters' `.grad` are left as they were.

    Raises MemoryError before anything runs, if more than `limit_bytes` would be kept (default: half of the memory that
    is free where the model is); ValueError for a pattern that matches nothing or that made no tensor of floats;
    IndexError for a head or position that is not there.

    The trap: an input is what one module is given. `post_attention_layernorm:input` is the residual stream between
    attention and MLP, and its gradient is that of the stream; but patching it there changes what the norm reads alone.
    """
    patterns = patterns_to_keep(only)
    slices = Slices(heads, positions)
    chosen = sites(model, patterns)
    slices.check({site.name: axes_on(model, site.name) for site in chosen})
    limit = default_limit(model) if limit_bytes is None else limit_bytes
    arguments = {"use_cache": False} | forward_arguments
    if ids is not None:
        if ids.ndim != 2:
            raise ValueError(f"ids have shape {tuple(ids.shape)}; expected (batch, position): ids[None] of one text")
        ids = ids.to(device_of(model))
    refuse_more_than(limit, bytes_of(model, chosen, slices, gradient_of is not None, ids, arguments))

    whole: dict[str, Activation] = {}
    with torch.set_grad_enabled(gradient_of is not None), marking() as mark:

        def follow(name: str, tensor: Activation) -> None:
            mark(tensor)
            whole[name] = tensor

        recorder = _Recorder(model, slices, limit, follow if gradient_of is not None else None)
        with recorder.attached(chosen):  # also for the backward pass, which may recompute
            model(*([] if ids is None else [ids]), **arguments)
            trace = recorder.steps[0]
            for pattern in patterns or ():
                if not any(matches(name, [pattern]) for name in trace):
                    raise ValueError(f"what matches {pattern!r} made no tensor of floats in this run")
            if gradient_of is not None:
                slopes = gradients(gradient_of(trace.output), whole)
        if gradient_of is not None:
            trace.gradients = {name: slices.take(slope, trace.axes.get(name), name) for name, slope in slopes.items()}
            trace.output = without_history(trace.output)
    return trace


@contextmanager
def capturing(
    model: nn.Module,
    *,
    only: Iterable[str] | None = None,
    heads: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    limit_bytes: int | float | None = None,
) -> Iterator[list[Trace]]:
    """Within the block, every forward pass that this thread makes of the model appends a Trace to the list: `capture`
    for `model.generate`.

    Generation with a cache reads the prompt in its first pass and one new token in each later one: then `position` and
    `query` are 1 long, and `key` counts everything so far. Gradients are left to `capture`.

    Raises MemoryError out of the pass that would bring the activations of all passes together above `limit_bytes`
    (default: half of the memory that is free where the model is), before it keeps them; other errors as `capture`.
    """
    chosen, slices = sites(model, patterns_to_keep(only)), Slices(heads, positions)
    slices.check({site.name: axes_on(model, site.name) for site in chosen})
    recorder = _Recorder(model, slices, default_limit(model) if limit_bytes is None else limit_bytes)
    with recorder.attached(chosen):
        yield recorder.steps


class _Recorder:
    """Makes a Trace of each forward pass, and counts the bytes of all of them."""

    def __init__(
        self,
        model: nn.Module,
        slices: Slices,
        limit: int | float,
        follow: Callable[[str, Activation], None] | None = None,
    ) -> None:
        self.model = model
        self.slices = slices
        self.limit = limit
        self.follow = follow
        self.steps: list[Trace] = []
        self.finished = 0  # bytes of the passes that are done
        self.running: Trace | None = None
        self.running_bytes = 0

    @contextmanager
    def attached(self, chosen: Sequence[Site]) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(eager_attention(self.model, needs_eager(self.model, chosen)))
            stack.callback(self.model.register_forward_pre_hook(of_this_thread(self._begin)).remove)
            stack.enter_context(hooked([(site, partial(self._see, site.name)) for site in chosen], is_last=True))
            stack.callback(self.model.register_forward_hook(of_this_thread(self._end)).remove)
            yield

    def _begin(self, _module: nn.Module, _given: Any) -> None:
        self.running, self.running_bytes = Trace(), 0  # what a pass that ended in an error made is forgotten

    def _end(self, _module: nn.Module, _given: Any, output: Any) -> None:
        if self.running is not None:  # else this began in the middle of a pass
            self.running.output = output
            self.steps.append(self.running)
            self.finished += self.running_bytes
            self.running = None

    def _see(self, name: str, tensor: Activation | None) -> Activation | None:
        # A part of the model may run by itself, outside a forward pass of the whole.
        if tensor is not None and self.running is not None:
            axes = axes_on(self.model, name)
            size = math.prod(self.slices.cut(tensor.shape, axes, name)) * tensor.element_size()
            if self.finished + self.running_bytes + size > self.limit:
                kept = {f"{len(self.steps)} earlier passes": self.finished} if self.steps else {}
                kept |= {other: tensor.nbytes for other, tensor in self.running.items()}
                refuse_more_than(self.limit, kept | {name: size})
            self.running_bytes += size
            self.running.keep(name, self.slices.take(tensor, axes, name), axes)
            if self.follow is not None:
                self.follow(name, tensor)
        return tensor
