"""Taking a part away: heads, whole attention layers and MLPs set to zero, to their mean, or to another row's output.

A score says where a head looks; ablation says whether it matters. Zero is simple but may be a value the model never
meets; the mean keeps what the part says always, and another row's output keeps its spread as well.

Source: Olsson et al. 2022 (which heads copy); Wang et al. 2022, Interpretability in the Wild (mean and path); Chan et
al. 2022, Causal Scrubbing (resampling).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor

from persimmon_lab.attention import attention_pattern, attention_scores, causal_mask
from persimmon_lab.losses import next_token_loss
from persimmon_lab.pretrained import PersimmonPreTrainedModel
from persimmon_lab.trace.capture import capture
from persimmon_lab.trace.heads import Head
from persimmon_lab.trace.patch import patch
from persimmon_lab.trace.progress import progress_bar

Target = Head | str  # (layer, head), or a module by name: "layers.3.mlp", "layers.3.self_attn"
Rows = Int[Tensor, "row position"]
# What a part is replaced by, where it is not zero: (channel), or one for each (row position channel).
Outputs = Mapping[Target, Float[Tensor, "*row_position channel"]]
Measure = Callable[[PersimmonPreTrainedModel, Rows], Float[Tensor, "row *measured"]]


def token_losses(model: PersimmonPreTrainedModel, rows: Rows) -> Float[Tensor, "row target"]:
    """Nats for each token after the first of its row; target t is token t + 1."""
    return next_token_loss(model, rows)


def all_heads(model: PersimmonPreTrainedModel) -> list[Head]:
    """(layer, head) of every head, layer by layer."""
    config = model.config
    return [(layer, head) for layer in range(config.num_hidden_layers) for head in range(config.num_attention_heads)]


@contextmanager
def ablate(
    model: PersimmonPreTrainedModel, targets: Sequence[Target], outputs: Outputs | None = None
) -> Iterator[None]:
    """Within the block these heads and modules say 0, or what `outputs` has for them; afterwards all is as it was.

    A head is what it hands to `dense`, so zero is the same as zeroing its columns there: the bias stays. Of a module,
    such as "layers.3.mlp", it is the whole output, biases included. Raises ValueError for a head that is not there and
    TypeError for a target that is not in a list, and ValueError for one that `outputs` leaves out.
    """
    targets = _listed(targets)
    if outputs and (missing := [target for target in targets if target not in outputs]):
        raise ValueError(
            f"outputs has nothing for {missing[0]!r}; it has {', '.join(map(repr, outputs))}. Give an output for each "
            "target, by the target's own name, or none at all, for zeros"
        )
    with _ablated(model, [(slice(None), target) for target in targets], outputs or {}):
        yield


@contextmanager
def _ablated(model: PersimmonPreTrainedModel, cuts: Sequence[tuple[slice, Target]], outputs: Outputs) -> Iterator[None]:
    """Each target within its own rows of the batch."""
    by_site: dict[str, list[tuple[slice, Target]]] = {}
    for rows, target in cuts:
        by_site.setdefault(_site(model, target), []).append((rows, target))

    def replacement(here: list[tuple[slice, Target]]) -> Callable[[Tensor], Tensor]:
        def replace(tensor: Tensor) -> Tensor:
            for rows, target in here:
                part = tensor[rows] if isinstance(target, str) else tensor[rows, target[1]]
                new = outputs.get(target, part.new_zeros(()))
                # Losses are taken with the last token left out; what was made before it is the same without it.
                part[:] = new[:, : part.shape[1]] if new.ndim == 3 else new
            return tensor

        return replace

    with patch(model, {site: replacement(here) for site, here in by_site.items()}):
        yield


def _listed(targets: Sequence[Target]) -> list[Target]:
    """The targets. Raises TypeError for what is no list of heads and modules, such as one of them by itself."""
    is_one = isinstance(targets, str) or any(not isinstance(target, str | tuple) for target in targets)
    if is_one:
        raise TypeError(
            f"targets are {targets!r}; give a list of heads and modules, as [(layer, head), 'layers.3.mlp']"
        )
    return list(targets)


def _site(model: PersimmonPreTrainedModel, target: Target) -> str:
    if isinstance(target, str):
        return target
    layer, head = target
    layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
    if not (0 <= layer < layers and 0 <= head < heads):
        raise ValueError(f"there is no head {layer}.{head}: layers are 0 … {layers - 1}, heads 0 … {heads - 1}")
    return f"layers.{layer}.self_attn.head_output"


def own_outputs(
    model: PersimmonPreTrainedModel, rows: Rows, targets: Sequence[Target]
) -> dict[Target, Float[Tensor, "row position channel"]]:
    """What heads and modules make of these rows."""
    names = {target: _site(model, target) for target in _listed(targets)}
    trace = capture(model, rows, only=list(dict.fromkeys(names.values())))
    return {
        target: trace[name] if isinstance(target, str) else trace[name][:, target[1]] for target, name in names.items()
    }


def mean_outputs(
    model: PersimmonPreTrainedModel, rows: Rows, targets: Sequence[Target]
) -> dict[Target, Float[Tensor, "channel"]]:
    """What heads and modules make on average over all positions of these rows: a replacement that says nothing new."""
    outputs = own_outputs(model, rows, targets)
    return {target: reduce(output, "row position channel -> channel", "mean") for target, output in outputs.items()}


def resampled_outputs(
    model: PersimmonPreTrainedModel, rows: Rows, targets: Sequence[Target], seed: int
) -> dict[Target, Float[Tensor, "row position channel"]]:
    """What heads and modules make of another row at the same position: as it is usually, but of the wrong text.

    All targets take from the same row. Fits these rows only, whole or cut at their end. Raises ValueError for a single
    row.
    """
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} row has no other to take from; give two or more")
    shift = int(torch.randint(1, len(rows), (), generator=torch.Generator().manual_seed(seed)))
    return {target: output.roll(shift, dims=0) for target, output in own_outputs(model, rows, targets).items()}


def sweep(
    model: PersimmonPreTrainedModel,
    rows: Rows,
    targets: Sequence[Target],
    measure: Measure = token_losses,
    outputs: Outputs | None = None,
    rows_at_once: int = 32,
    progress: bool | None = None,
) -> Float[Tensor, "target row *measured"]:
    """Measure these rows with each target ablated by itself, many at once: each copy of the rows lacks another one.

    `measure` is given the model and a batch and returns something for each row of it. Subtract `measure(model, rows)`
    for the effects; "(layer head) … -> layer head …" folds a sweep of `all_heads`. Memory grows with `rows_at_once`.
    `progress` shows a bar or none; by default a long sweep shows one. Raises ValueError for no rows or no targets, and
    as `ablate` does.
    """
    targets = _listed(targets)
    if not targets or not len(rows):
        raise ValueError(f"{len(targets)} targets and {len(rows)} rows; give 1 or more of both")
    together = max(1, rows_at_once // len(rows))
    measured = []
    with progress_bar(len(targets), "ablate", progress) as bar, torch.no_grad():
        for start in range(0, len(targets), together):
            some = targets[start : start + together]
            cuts = [(slice(i * len(rows), (i + 1) * len(rows)), target) for i, target in enumerate(some)]
            with _ablated(model, cuts, outputs or {}):
                measured.append(measure(model, torch.cat([rows] * len(some))))
            bar.update(len(some))
    return rearrange(torch.cat(measured), "(target row) ... -> target row ...", row=len(rows))


class Paths(NamedTuple):
    """A head's pattern with its query, its key, both or neither taken from a run in which others were ablated."""

    clean: Float[Tensor, "row query key"]
    through_query: Float[Tensor, "row query key"]
    through_key: Float[Tensor, "row query key"]
    ablated: Float[Tensor, "row query key"]


def pattern_by_path(
    model: PersimmonPreTrainedModel,
    rows: Rows,
    sources: Sequence[Target],
    reader: Head,
    outputs: Outputs | None = None,
) -> Paths:
    """How the sources reach the pattern of a later head: through what it asks (query) or what it is offered (key).

    Elhage et al. 2021 call the two Q- and K-composition. Exact, not linearised: queries and keys of the clean and of
    the ablated run go through the model's own score and softmax in all four pairs. Other heads between the two count
    as well where they pass on what the sources say.
    """
    _site(model, reader)
    layer, head = reader
    names = [f"layers.{layer}.self_attn.{tap}" for tap in ("rotated_query", "rotated_key")]
    clean = capture(model, rows, only=names, heads=[head])
    with ablate(model, sources, outputs):
        ablated = capture(model, rows, only=names, heads=[head])
    length = rows.shape[1]

    def pattern(asked: Mapping[str, Tensor], offered: Mapping[str, Tensor]) -> Float[Tensor, "row query key"]:
        query, key = asked[names[0]], offered[names[1]]
        mask = causal_mask(None, length, length, query.dtype, query.device)
        return rearrange(attention_pattern(attention_scores(query, key, mask)), "row 1 query key -> row query key")

    return Paths(pattern(clean, clean), pattern(ablated, clean), pattern(clean, ablated), pattern(ablated, ablated))
