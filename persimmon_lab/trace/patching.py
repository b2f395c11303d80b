"""Activation patching: put what a clean run made, one place at a time, into the run of a corrupted prompt.

The two prompts differ in one thing and have the same length. Where a clean activation brings the clean answer back,
the difference was at that place. This direction (denoising) finds what suffices; swap the prompts (noising) for what
is needed.

Source: Vig et al. 2020, causal mediation analysis; Meng et al. 2022, causal tracing; Heimersheim & Nanda 2024, "How to
use and interpret activation patching".
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.trace.capture import Trace, capture
from persimmon_lab.trace.patch import patch
from persimmon_lab.trace.progress import progress_bar

Prompt = Int[Tensor, "row _"]  # one row; checked below, as the error should say what to do
Metric = Callable[[Float[Tensor, "row position vocab"]], Float[Tensor, "row"]]


@dataclass(frozen=True)
class Place:
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

    def __repr__(self) -> str:
        layers, places = self.patched.shape
        ends = f"clean {self.clean:.4g}, corrupted {self.corrupted:.4g}"
        return f"<Patching of {layers} x {places} places: {ends}, largest effect {float(self.effect.max()):.2f}>"

    @property
    def effect(self) -> Float[Tensor, "layer place"]:
        """(patched - corrupted) / (clean - corrupted). May leave 0 … 1: a place can also overshoot or do harm."""
        return (self.patched - self.corrupted) / (self.clean - self.corrupted)


def lead_of(target: int, against: int, position: int = -1) -> Metric:
    """The metric that most sweeps want: how far the logit of one token is ahead of another's."""
    return lambda logits: logits[:, position, target] - logits[:, position, against]


def patch_stream(
    model: PersimmonForCausalLM,
    clean: Prompt,
    corrupted: Prompt,
    metric: Metric,
    *,
    rows_at_once: int = 64,
    progress: bool | None = None,
) -> Patching:
    """The residual stream by state and position: the embeddings, then after each layer (as `residual_streams`)."""
    names = ["layers.0:input", *_in_layers(model, "")]
    return sweep_places(model, clean, corrupted, metric, names, False, rows_at_once, progress)


def patch_attention(
    model: PersimmonForCausalLM,
    clean: Prompt,
    corrupted: Prompt,
    metric: Metric,
    *,
    rows_at_once: int = 64,
    progress: bool | None = None,
) -> Patching:
    """What each layer's attention adds to the stream, by layer and position."""
    names = _in_layers(model, ".self_attn.dense")
    return sweep_places(model, clean, corrupted, metric, names, False, rows_at_once, progress)


def patch_mlp(
    model: PersimmonForCausalLM,
    clean: Prompt,
    corrupted: Prompt,
    metric: Metric,
    *,
    rows_at_once: int = 64,
    progress: bool | None = None,
) -> Patching:
    """What each layer's MLP adds to the stream, by layer and position."""
    names = _in_layers(model, ".mlp")
    return sweep_places(model, clean, corrupted, metric, names, False, rows_at_once, progress)


def patch_heads(
    model: PersimmonForCausalLM,
    clean: Prompt,
    corrupted: Prompt,
    metric: Metric,
    *,
    rows_at_once: int = 64,
    progress: bool | None = None,
) -> Patching:
    """What each head hands to `dense`, at all positions, by layer and head."""
    names = _in_layers(model, ".self_attn.head_output")
    return sweep_places(model, clean, corrupted, metric, names, True, rows_at_once, progress)


def _in_layers(model: PersimmonForCausalLM, part: str) -> list[str]:
    return [f"layers.{layer}{part}" for layer in range(model.config.num_hidden_layers)]


def sweep_places(
    model: PersimmonForCausalLM,
    clean: Prompt,
    corrupted: Prompt,
    metric: Metric,
    names: Iterable[str],
    heads: bool = False,
    rows_at_once: int = 64,
    progress: bool | None = None,
) -> Patching:
    """Patch every position (or, with `heads`, every head) of every named activation by itself.

    Many at once: each row of a batch is the corrupted prompt with another patch. `metric` gives a number for each row
    of logits. Memory grows with `rows_at_once`. `progress` shows a bar or none; by default a long sweep shows one.

    Raises ValueError where the prompts are not single rows of one length, where the metric does not tell them apart,
    and for no names or rows.
    """
    if clean.shape != corrupted.shape or len(clean) != 1:
        raise ValueError(
            f"the prompts have shapes {tuple(clean.shape)} and {tuple(corrupted.shape)}; patching wants two single "
            "rows of as many tokens: replace a word by another that is cut into as many pieces"
        )
    names = list(names)
    if not names or rows_at_once < 1:
        raise ValueError(f"{len(names)} names in {rows_at_once} rows at once; give 1 or more of both")
    source = capture(model, clean, only=names)
    count = model.config.num_attention_heads if heads else clean.shape[1]
    places = [Place(name, index, heads) for name in names for index in range(count)]
    with torch.no_grad():
        on_clean, on_corrupted = (float(metric(model(prompt, use_cache=False).logits)) for prompt in (clean, corrupted))
        if on_clean == on_corrupted:
            raise ValueError(f"the metric is {on_clean:g} on both prompts; choose one that tells them apart")
        measured = []
        with progress_bar(len(places), "patch", progress) as bar:
            for start in range(0, len(places), rows_at_once):
                some = places[start : start + rows_at_once]
                with patch(model, _replacements(some, source)):
                    rows = corrupted.expand(len(some), -1)
                    measured.append(metric(model(rows, use_cache=False).logits).cpu())
                bar.update(len(some))
    patched = rearrange(torch.cat(measured), "(layer place) -> layer place", layer=len(names))
    return Patching(patched, clean=on_clean, corrupted=on_corrupted)


def _replacements(places: list[Place], source: Trace) -> dict[str, Callable[[Tensor], Tensor]]:
    """For each name a function that writes the clean values into the rows whose place is there."""
    by_name: dict[str, list[tuple[int, Place]]] = {}
    for row, place in enumerate(places):
        by_name.setdefault(place.name, []).append((row, place))

    def replacement(here: list[tuple[int, Place]]) -> Callable[[Tensor], Tensor]:
        def replace(tensor: Tensor) -> Tensor:
            for row, place in here:
                place.of(tensor[row])[:] = place.of(source[place.name][0])
            return tensor

        return replace

    return {name: replacement(here) for name, here in by_name.items()}
