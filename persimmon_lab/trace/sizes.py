"""What a capture would keep, in bytes, before anything runs; and how much it may keep."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.anatomy import Axes, axes_of, axis_sizes
from persimmon_lab.footprint import free_on, in_bytes
from persimmon_lab.pretrained import PersimmonPreTrainedModel
from persimmon_lab.trace.names import Site, sites
from persimmon_lab.trace.slices import Slices

SHARE = 0.5  # of the free memory that a capture may fill, so that the run itself has the other half
LARGEST = 3  # names that a refusal lists


def kept_bytes(
    model: nn.Module,
    ids: Int[Tensor, "batch position"] | None = None,
    *,
    only: Iterable[str] | None = None,
    heads: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    gradients: bool = False,
    **forward_arguments: Any,
) -> dict[str, int]:
    """The bytes of each activation that `capture` would keep with these arguments; nothing runs.

    Worked out from what each name's axes are and how long the run makes them. `gradients` adds the gradients, which
    come whole before they are cut. Two names for one tensor (a layer's output, the next one's input) count twice.
    Names whose axes are not known are left out, so all of another library's model: there a capture counts as it goes.
    """
    return bytes_of(model, sites(model, only), Slices(heads, positions), gradients, ids, forward_arguments)


def bytes_of(
    model: nn.Module,
    chosen: Iterable[Site],
    slices: Slices,
    gradients: bool,
    ids: Int[Tensor, "batch position"] | None,
    forward_arguments: Mapping[str, Any],
) -> dict[str, int]:
    """`kept_bytes` of places that were looked up already."""
    candidates = (ids, forward_arguments.get("input_ids"), forward_arguments.get("inputs_embeds"))
    inputs = next((tensor for tensor in candidates if tensor is not None), None)
    if not isinstance(model, PersimmonPreTrainedModel) or inputs is None:
        return {}
    batch, positions = inputs.shape[:2]
    lengths = axis_sizes(model.config, batch, positions, _length(forward_arguments.get("past_key_values")))
    last: int = forward_arguments.get("logits_to_keep", 0)
    sizes = {}
    for site in chosen:
        if (axes := axes_on(model, site.name)) is not None:
            shape = [lengths[axis] for axis in axes]
            if last and site.path == "lm_head":
                shape[1] = min(last, shape[1])
            numbers = math.prod(slices.cut(shape, axes, site.name)) + gradients * math.prod(shape)
            sizes[site.name] = numbers * _dtype(model, site).itemsize
    return sizes


def axes_on(model: nn.Module, name: str) -> Axes | None:
    """The axes of an activation where the model is this package's, so that they can be known from the name."""
    return axes_of(name) if isinstance(model, PersimmonPreTrainedModel) else None


def default_limit(model: nn.Module) -> float:
    """Half of the memory that is free where the model is; no limit where the system cannot say."""
    free = free_on(device_of(model))
    return math.inf if free is None else SHARE * free


def device_of(model: nn.Module) -> torch.device:
    """Where the model takes its tokens: the device of the first weight that is not kept elsewhere."""
    return next((weight.device for weight in model.parameters() if not weight.is_meta), torch.device("cpu"))


def refuse_more_than(limit: int | float, sizes: Mapping[str, int]) -> None:
    """Raises MemoryError, with what to do about it, where the sizes add up to more than the limit."""
    total = sum(sizes.values())
    if total <= limit:
        return
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:LARGEST]
    names = ", ".join(f"{name} {in_bytes(sizes[name])}" for name in largest)
    more = f" and {len(sizes) - len(largest)} more" if len(sizes) > len(largest) else ""
    raise MemoryError(
        f"{in_bytes(total)} of activations were asked for and {in_bytes(limit)} may be kept; the largest are {names}"
        f"{more}. Ask for less with only=[...], heads=[...] or positions=[...], or allow more with limit_bytes=..."
    )


def _length(past: Any) -> int:
    """How many positions a cache, of either format, holds."""
    if past is None:
        return 0
    length: int = past.get_seq_length() if hasattr(past, "get_seq_length") else past[0][0].shape[-2]
    return length


def _dtype(model: nn.Module, site: Site) -> torch.dtype:
    """That of the weights nearest to the place: of the module itself, or of one that it stands in."""
    path = site.path
    while path and next(model.get_submodule(path).parameters(), None) is None:
        path = path.rpartition(".")[0]
    return next(model.get_submodule(path).parameters()).dtype
