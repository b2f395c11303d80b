"""Islands of float32 in a half-precision model, and the search for the fewest that bring its predictions back.

An island computes in float32 with the original's weights; what goes in is cast up, what comes out is cast back. So it
cures what happens inside it (a square beyond 65504), not what its output has become when it is too large for the rest.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas
import torch
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.fitting.choosing import check_room_for_copies
from persimmon_lab.numerics.borrowing import computing_in
from persimmon_lab.numerics.compare import compare, in_dtype
from persimmon_lab.numerics.comparison import NonFinite
from persimmon_lab.numerics.measures import Predictions
from persimmon_lab.outputs import ModelOutput
from persimmon_lab.trace.names import check_patterns, matches, pattern_list

CANDIDATES = ("*.layers.*.self_attn", "*.layers.*.mlp", "*layernorm", "lm_head")  # what the search may choose from


def _cast(given: Any, dtype: torch.dtype) -> Any:
    """Tensors of floats, also in tuples, dictionaries and a model's output, in `dtype`; all else as it is."""
    if isinstance(given, Tensor) and given.is_floating_point():
        return given.to(dtype)
    if isinstance(given, tuple):
        return tuple(_cast(value, dtype) for value in given)
    if isinstance(given, ModelOutput):
        return type(given)(**{name: _cast(value, dtype) for name, value in given.items()})
    if isinstance(given, dict):
        return {name: _cast(value, dtype) for name, value in given.items()}
    return given


def _contains(path: str, inner: str) -> bool:
    """Whether the module at `inner` is the one at `path` or inside it."""
    return f"{inner}.".startswith(f"{path}.")


def outermost(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """The paths of the modules with weights that match a pattern, in order, without those inside another match.

    A list of modules is none: nothing goes into it or comes out. Raises ValueError for a pattern that matches nothing.
    """
    modules = [(path, module) for path, module in model.named_modules() if not isinstance(module, nn.ModuleList)]
    paths = [path for path, module in modules if path and next(module.parameters(), None) is not None]
    wanted = pattern_list(patterns)
    check_patterns(wanted, paths, "module with weights")
    chosen = [path for path in paths if matches(path, wanted)]
    return [path for path in chosen if not any(other != path and _contains(other, path) for other in chosen)]


def keep_in_float32(model: nn.Module, dtype: torch.dtype, patterns: Iterable[str]) -> nn.Module:
    """A copy of a float32 model in `dtype`, but for the modules whose path matches a pattern: islands of float32.

    Within a module that matches, everything is island, whatever else matches there. A tied weight is float32 in the
    island and `dtype` outside. Raises ValueError for a pattern that matches nothing and for a model that is not
    float32, whose islands would be no more precise than it is; MemoryError, before the copy, where it has no room.
    """
    _check_float32(model)
    paths = outermost(model, patterns)
    check_room_for_copies(model, [dtype], "keep_in_float32")
    for path in paths:
        check_room_for_copies(model.get_submodule(path), [None], "keep_in_float32")
    mixed = in_dtype(model, dtype)
    for path in paths:
        mixed.set_submodule(path, copy.deepcopy(model.get_submodule(path)))
    _cast_around(mixed, paths, dtype)
    return mixed


def _check_float32(model: nn.Module) -> None:
    if (given := next(model.parameters()).dtype) is not torch.float32:
        raise ValueError(f"the model is {given}; islands take their weights from a float32 model")


def _cast_around(mixed: nn.Module, paths: Iterable[str], dtype: torch.dtype) -> None:
    """What goes into the islands becomes float32, what comes out `dtype`."""
    for path in paths:
        island = mixed.get_submodule(path)
        island.register_forward_pre_hook(
            lambda _, given, named: (_cast(given, torch.float32), _cast(named, torch.float32)), with_kwargs=True
        )
        island.register_forward_hook(lambda _, given, made: _cast(made, dtype))


def _name_lost_weight(
    bad: NonFinite | None, model: nn.Module, islands: Iterable[str], dtype: torch.dtype
) -> NonFinite | None:
    """What is not finite, with the weight that `dtype` cannot hold where that is why: `model` still holds it."""
    if bad is None or any(_contains(path, bad.path) for path in islands):
        return bad
    weights = model.get_submodule(bad.path).named_parameters()
    lost = (name for name, weight in weights if float(weight.abs().max()) > torch.finfo(dtype).max)
    return replace(bad, weight=bad.weight or next(lost, None))


@dataclass(frozen=True)
class Step:
    """One model of the search. `action`: "all" candidates, "none", "try" one more, "add" it, "drop" one again."""

    action: str
    module: str
    islands: tuple[str, ...]
    predictions: Predictions
    first_non_finite: NonFinite | None
    restored: bool

    def row(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "module": self.module,
            "islands": len(self.islands),
            "mean KL (nats)": float(self.predictions.kl.mean()),
            "flipped": int(self.predictions.flipped.sum()),
            "restored": self.restored,
            "first not finite": str(self.first_non_finite or "none"),
        }


@dataclass(frozen=True)
class IslandSearch:
    """Every model that was tried, and the islands that are left; None where even all candidates do not restore."""

    steps: list[Step]
    islands: tuple[str, ...] | None

    def __repr__(self) -> str:
        left = "nothing restores it" if self.islands is None else f"islands: {', '.join(self.islands) or 'none'}"
        return f"<IslandSearch of {len(self.steps)} models, {left}>"

    def frame(self) -> pandas.DataFrame:
        """One row per model that was tried."""
        return pandas.DataFrame([step.row() for step in self.steps])


def close(predictions: Predictions, kl: float = 1e-3) -> bool:
    """At most `kl` nats, on average, from the reference's predictions; so all of them are finite."""
    return float(predictions.kl.mean()) <= kl


def smallest_island(
    model: nn.Module,
    dtype: torch.dtype,
    ids: Int[Tensor, "batch position"],
    *,
    candidates: Sequence[str] = CANDIDATES,
    restores: Callable[[Predictions], bool] = close,
) -> IslandSearch:
    """The fewest modules to keep in float32 until `restores(predictions)` holds against the float32 `model`.

    Greedy, so the set has no module to spare, but a smaller one may exist. Grow: while a number is not finite, add
    the candidate in which the first one arose; afterwards add those that lower the KL most on their own. Shrink: drop
    every module without which it still holds. About one run per candidate, three at most. The models that are tried
    compute on the weights of `model`, so that none of them is a copy.

    Raises ValueError as `keep_in_float32` does.
    """
    _check_float32(model)
    paths = outermost(model, candidates)
    steps: list[Step] = []

    def attempt(action: str, module: str, islands: Iterable[str]) -> Step:
        chosen = tuple(path for path in paths if path in set(islands))
        mixed = computing_in(model, dtype, but_for=chosen)
        _cast_around(mixed, chosen, dtype)
        comparison = compare(model, {"mixed": mixed}, ids)
        made = comparison.predictions["mixed"]
        bad = _name_lost_weight(comparison.first_non_finite["mixed"], model, chosen, dtype)
        steps.append(Step(action, module, chosen, made, bad, restores(made)))
        return steps[-1]

    if not attempt("all", "", paths).restored:
        return IslandSearch(steps, None)
    here = attempt("none", "", ())
    ranking: list[str] = []  # once it is needed
    while not here.restored:
        left = [path for path in paths if path not in here.islands]
        at_fault = [path for path in left if here.first_non_finite and _contains(path, here.first_non_finite.path)]
        if not at_fault and not ranking:
            alone = {path: attempt("try", path, (*here.islands, path)) for path in left}
            ranking = sorted(alone, key=lambda path: float(alone[path].predictions.kl.mean()))
        best = at_fault or [path for path in ranking if path in left]
        here = attempt("add", best[0], (*here.islands, best[0]))
    for path in here.islands if len(here.islands) > 1 else ():
        without = attempt("drop", path, [island for island in here.islands if island != path])
        here = without if without.restored else here
    return IslandSearch(steps, here.islands)
