"""Where two runs of a model part: the same tokens through several dtypes, measured at every module.

    reference = in_dtype(model, torch.float64)
    comparison = compare(reference, {name: in_dtype(model, dtype) for name, dtype in …}, ids)
    comparison.frame()      # one row per module and candidate
    comparison.summary()    # one row per candidate: KL, flips, perplexity, the first number that is not finite

One pass per model, on hooks, without keeping activations: for any size. Works on this package's models and on
transformers', which share the names of their modules.
"""

import copy
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any, TypeVar

import torch
from einops import rearrange
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.anatomy import LOGITS, operation_of
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.fitting.choosing import check_room_for_copies
from persimmon_lab.modes import evaluating
from persimmon_lab.numerics.comparison import Comparison, ModuleDistance, NonFinite
from persimmon_lab.numerics.lockstep import lockstep, shared_paths
from persimmon_lab.numerics.measures import Predictions, distance, predictions
from persimmon_lab.quantisation import check_plain
from persimmon_lab.trace.names import Activation, matches, patterns_to_keep

Model = TypeVar("Model", bound=nn.Module)


def in_dtype(model: Model, dtype: torch.dtype) -> Model:
    """A copy whose parameters are in `dtype`; tied ones stay tied, and buffers stay as they are.

    Not `copy.deepcopy(model).to(dtype)`, which needs the memory of the original again on the way, and rounds the
    inverse frequencies that transformers keeps in buffers.

    Raises ValueError for rounded weights; MemoryError, before the copy, where there is no room for it.
    """
    check_plain(model, "a copy in another dtype")
    check_room_for_copies(model, [dtype], "in_dtype")
    converted = {
        id(parameter): nn.Parameter(parameter.detach().to(dtype, copy=True), parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, converted)


def compare(
    reference: nn.Module,
    candidates: Mapping[str, nn.Module],
    ids: Int[Tensor, "batch position"],
    *,
    only: Iterable[str] | None = None,
) -> Comparison:
    """Run the reference and the candidates, by name, on the same tokens and measure every module that all have.

    `only` are patterns of module paths ("*.mlp.*"); the logits are always compared where the models make any. Metrics
    are float64; a float64 reference (`in_dtype(model, torch.float64)`) separates rounding from bugs.

    Raises ValueError for models of different shapes and for a pattern that nothing matches, or nothing that makes a
    tensor in all models; TypeError for candidates without names and for other kinds of ids and patterns.
    """
    models = [reference, *_by_name(candidates).values()]
    if not isinstance(ids, Tensor) or ids.ndim != 2 or not ids.numel():
        given = f"of shape {tuple(ids.shape)}" if isinstance(ids, Tensor) else f"a {type(ids).__name__}"
        how = 'tokenizer(text, return_tensors="pt").input_ids'
        raise TypeError(f"ids is {given}; give a tensor (batch, position): {how}")
    patterns = patterns_to_keep(only)
    wanted = set(shared_paths(models, patterns))
    hooked = None if patterns is None else [path for path in shared_paths(models) if path in wanted or path == LOGITS]
    heads_first = [any(path.endswith("rotated_query") for path, _ in model.named_modules()) for model in models]
    config: Any = reference.config
    modules: list[ModuleDistance] = []
    first_non_finite: dict[str, NonFinite | None] = dict.fromkeys(candidates)
    compared: dict[str, Predictions] = {}
    for path, outputs in lockstep(models, lambda model: _read(model, ids), hooked):
        exact, *others = map(_heads_before_positions, repeat(path), outputs, heads_first)
        operation = operation_of(path, str(config.hidden_act))
        for name, other in zip(candidates, others, strict=True):
            if other.shape != exact.shape:
                shapes = f"{tuple(exact.shape)} in the reference and {tuple(other.shape)} in {name!r}"
                raise ValueError(f"{path} has shape {shapes}; compare models of one configuration")
            there = distance(exact, other, is_masked=operation == "scores")
            if path in wanted:
                modules.append(ModuleDistance(name, path, operation, there))
            if first_non_finite[name] is None and (at := there.first_bad) is not None:
                lost = _lost_weight(candidates[name], path)
                first_non_finite[name] = NonFinite(
                    path,
                    operation,
                    at,
                    float(other[at]),
                    float(exact[at]),
                    there.format.largest,
                    there.format.name,
                    lost,
                )
            if path == LOGITS:
                compared[name] = predictions(exact, other, ids)
        del exact, others, other  # or they would live on while the next module runs
    for pattern in patterns or ():
        if not any(matches(module.path, [pattern]) for module in modules):
            raise ValueError(f"what matches {pattern!r} made no tensor of floats in all of the models; name its parts")
    return Comparison(dtype_name(_dtype(reference)), modules, first_non_finite, compared)


def _by_name(candidates: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    if not isinstance(candidates, Mapping):
        raise TypeError(f"candidates is a {type(candidates).__name__}; give the models by name: {{'half': model}}")
    if not candidates:
        raise ValueError("candidates is empty; give one or more models by name: {'half': model}")
    return candidates


def _heads_before_positions(path: str, output: Activation, heads_first: bool) -> Activation:
    """transformers norms query and key before it moves the heads ahead of the positions; this package after."""
    if heads_first or not path.endswith(("q_layernorm", "k_layernorm")):
        return output
    return rearrange(output, "batch position head channel -> batch head position channel")


def _lost_weight(model: nn.Module, path: str) -> str | None:
    weights = model.get_submodule(path).named_parameters()
    return next((name for name, weight in weights if not bool(weight.isfinite().all())), None)


def _dtype(model: nn.Module) -> torch.dtype:
    return next(model.parameters()).dtype


def _read(model: nn.Module, ids: Int[Tensor, "batch position"]) -> object:
    """A forward pass without a cache, on the device where the model takes its tokens."""
    device = next(model.parameters()).device
    with evaluating(model):
        return model(input_ids=ids if device.type == "meta" else ids.to(device), use_cache=False)
