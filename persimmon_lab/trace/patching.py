"""Activation patching: put what a clean run made, one place at a time, into the run of a corrupted prompt.

The two prompts differ in one thing and have the same length. Where a clean activation brings the clean answer back,
the difference was at that place. This direction (denoising) finds what suffices; swap the prompts (noising) for what
is needed.

Source: Vig et al. 2020, causal mediation analysis; Meng et al. 2022, causal tracing; Heimersheim & Nanda 2024, "How to
use and interpret activation patching".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.trace.capture import Trace, capture
from persimmon_lab.trace.patch import patch

Prompt = Int[Tensor, "row _"]  # one row; checked below, as the error should say what to do
Metric = Callable[[Float[Tensor, "row position vocab"]], Float[Tensor, "row"]]


class Place(NamedTuple):
    """What one patch replaces: an activation by its name, at one position or of one head."""

    name: str
    index: int
    is_head: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        """A view of this place in a row: (channel) at a position, or (position channel) of a head."""
        return tensor[..., self.index, :, :] if self.is_head else tensor[..., self.index, :]


@dataclass(frozen=True)
class Patching:
    """The metric with each place patched, and without: `effect` is 0 where nothing came back and 1 where all did."""

    patched: Float[Tensor, "layer place"]
    clean: float
    corrupted: float

    @property
    def effect(self) -> Float[Tensor, "layer place"]:
        """(patched - corrupted) / (clean - corrupted). May leave 0 … 1: a place can also overshoot or do harm."""
        return (self.patched - self.corrupted) / (self.clean - self.corrupted)


def lead_of(target: int, against: int, position: int = -1) -> Metric:
    """The metric that most sweeps want: how far the logit of one token is ahead of another's."""
    return lambda logits: logits[:, position, target] - logits[:, position, against]


def patch_stream(
    model: PersimmonForCausalLM, clean: Prompt, corrupted: Prompt, metric: Metric, **how: object
) -> Patching:
    """The residual stream by state and position: the embeddings, then after each layer (as `residual_streams`)."""
    layers = range(model.config.num_hidden_layers)
    return sweep_places(model, clean, corrupted, metric, ["layers.0:input", *(f"layers.{i}" for i in layers)], **how)


def patch_attention(
    model: PersimmonForCausalLM, clean: Prompt, corrupted: Prompt, metric: Metric, **how: object
) -> Patching:
    """What each layer's attention adds to the stream, by layer and position."""
    layers = range(model.config.num_hidden_layers)
    return sweep_places(model, clean, corrupted, metric, [f"layers.{i}.self_attn.dense" for i in layers], **how)


def patch_mlp(model: PersimmonForCausalLM, clean: Prompt, corrupted: Prompt, metric: Metric, **how: object) -> Patching:
    """What each layer's MLP adds to the stream, by layer and position."""
    layers = range(model.config.num_hidden_layers)
    return sweep_places(model, clean, corrupted, metric, [f"layers.{i}.mlp" for i in layers], **how)


def patch_heads(
    model: PersimmonForCausalLM, clean: Prompt, corrupted: Prompt, metric: Metric, **how: object
) -> Patching:
    """What each head hands to `dense`, at all positions, by layer and head."""
    layers = range(model.config.num_hidden_layers)
    names = [f"layers.{i}.self_attn.head_output" for i in layers]
    return sweep_places(model, clean, corrupted, metric, names, heads=True, **how)


def sweep_places(
    model: PersimmonForCausalLM,
    clean: Prompt,
    corrupted: Prompt,
    metric: Metric,
    names: Iterable[str],
    heads: bool = False,
    rows_at_once: int = 64,
    progress: bool = True,
) -> Patching:
    """Patch every position (or, with `heads`, every head) of every named activation by itself.

    Many at once: each row of a batch is the corrupted prompt with another patch. `metric` gives a number for each row
    of logits. Memory grows with `rows_at_once`.

    Raises ValueError where the prompts are not single rows of one length, or where the metric does not tell them apart.
    """
    if clean.shape != corrupted.shape or len(clean) != 1:
        raise ValueError(
            f"the prompts have shapes {tuple(clean.shape)} and {tuple(corrupted.shape)}; patching wants two single "
            "rows of as many tokens: replace a word by another that is cut into as many pieces"
        )
    names = list(names)
    source = capture(model, clean, only=names)
    count = model.config.num_attention_heads if heads else clean.shape[1]
    places = [Place(name, index, heads) for name in names for index in range(count)]
    with torch.no_grad():
        ends = [float(metric(model(prompt, use_cache=False).logits)) for prompt in (clean, corrupted)]
        if ends[0] == ends[1]:
            raise ValueError(f"the metric is {ends[0]:g} on both prompts; choose one that tells them apart")
        measured = []
        with tqdm(total=len(places), desc="patch", disable=not progress) as bar:
            for start in range(0, len(places), rows_at_once):
                some = places[start : start + rows_at_once]
                with patch(model, _replacements(some, source)):
                    rows = corrupted.expand(len(some), -1)
                    measured.append(metric(model(rows, use_cache=False).logits).cpu())
                bar.update(len(some))
    patched = rearrange(torch.cat(measured), "(layer place) -> layer place", layer=len(names))
    return Patching(patched, clean=ends[0], corrupted=ends[1])


def _replacements(places: list[Place], source: Trace) -> dict[str, Callable[[Tensor], Tensor]]:
    """For each name a function that writes the clean values into the rows whose place is there."""
    by_name: dict[str, list[tuple[int, Place]]] = {}
    for row, place in enumerate(places):
        by_name.setdefault(place.name, []).append((row, place))

    def replacement(here: list[tuple[int, Place]]) -> Callable[[Tensor], Tensor]:
        def replace(made: Tensor) -> Tensor:
            for row, place in here:
                place.of(made[row])[:] = place.of(source[place.name][0])
            return made

        return replace

    return {name: replacement(here) for name, here in by_name.items()}
