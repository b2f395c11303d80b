"""The package's own results as figures take them: what `capture`, `detect`, `compare`, a sweep or a plan gives.

Figures know no model and import none of the rooms that make these; they ask for what they need by name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Stacked(Protocol):
    """As a `Trace` is: every layer's tensor of one kind, along a new first axis."""

    def stacked(self, pattern: str) -> Tensor: ...


@runtime_checkable
class Effects(Protocol):
    """As a `Patching` is: what came back, by layer and place."""

    @property
    def effect(self) -> Tensor: ...


@runtime_checkable
class Detected(Protocol):
    """As a `Detection` is: the score of every head, and the heads that stand out of their null distribution."""

    scores: Tensor
    null: Tensor

    def standing_out(self) -> list[tuple[int, int]]: ...


@runtime_checkable
class Summed(Protocol):
    """As an `Attribution` is: a logit as the sum of what wrote it, and the part of every head."""

    heads: Tensor

    def parts(self) -> dict[str, float]: ...


@runtime_checkable
class Grown(Protocol):
    """As a `Comparison` is: how the error of each candidate grows, a table with a column for each."""

    predictions: Mapping[str, Any]

    def growth(self) -> Any: ...


@runtime_checkable
class Predicted(Protocol):
    """As `Predictions` are: how far each position's prediction lies from the reference's, in nats."""

    kl: Float[Tensor, "batch position"]


@runtime_checkable
class Ran(Protocol):
    """As a `Run` of a recipe is: the loss of every step, and what failed first, if anything did."""

    failure: Any

    @property
    def losses(self) -> list[float]: ...


@runtime_checkable
class Planned(Protocol):
    """As a `MemoryPlan` is: the bytes that running a model needs."""

    @property
    def weights(self) -> int: ...

    @property
    def cache(self) -> int: ...

    @property
    def activations(self) -> int: ...


@runtime_checkable
class Framed(Protocol):
    """As a `Parity` is: a table with a row for each module."""

    def frame(self) -> Any: ...


@runtime_checkable
class Scored(Protocol):
    """As `TokenScores` are: natural log-probabilities of the tokens of each row, from the second on."""

    tokens: Float[Tensor, "batch following"]


@runtime_checkable
class Measured(Protocol):
    """As a `Score` of an evaluation is: a share and its interval, between the floors and the ceiling."""

    @property
    def share(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...

    @property
    def chance(self) -> float: ...

    @property
    def five_gram(self) -> float: ...

    @property
    def ceiling(self) -> float: ...


Patterns = Float[Tensor, "layer head query key"] | Float[Tensor, "layer 1 head query key"]
ManyPatterns = Patterns | Stacked | Sequence[Tensor]
HeadMap = Float[Tensor, "layer head"]


def patterns_in(source: ManyPatterns) -> Float[Tensor, "layer head query key"]:
    """The attention of every head to one text: of a trace, of a model's `attentions`, or as a tensor.

    ValueError for several texts at once, and for what is no attention of heads and layers.
    """
    if isinstance(source, Tensor):
        patterns = source
    elif isinstance(source, Stacked):
        patterns = source.stacked("pattern")
    else:
        patterns = torch.stack(list(source))
    if patterns.ndim == 5:
        if patterns.shape[1] != 1:
            raise ValueError(f"there are patterns of {patterns.shape[1]} texts; draw one of them: patterns[:, 0]")
        patterns = patterns[:, 0]
    if patterns.ndim != 4:
        raise ValueError(f"the patterns have shape {tuple(patterns.shape)}; wanted are (layer, head, query, key)")
    return patterns


def one_pattern(pattern: Tensor) -> Float[Tensor, "query key"]:
    """The attention of one head. ValueError where it still is to be chosen."""
    if pattern.ndim != 2:
        raise ValueError(
            f"the pattern has shape {tuple(pattern.shape)}; wanted is one head's, (query, key): choose a row and a head"
        )
    return pattern


def effects_in(source: Tensor | Effects | Summed) -> Tensor:
    """The numbers by layer and place of a patching, those of the heads of an attribution, or the tensor itself."""
    if isinstance(source, Tensor):
        return source
    return source.effect if isinstance(source, Effects) else source.heads


def scores_in(source: Tensor | Detected) -> Tensor:
    return source if isinstance(source, Tensor) else source.scores


def by_name(source: Any) -> dict[str, Any]:
    """Several things by their names; one alone has none."""
    return dict(source) if isinstance(source, Mapping) else {"": source}


def columns_in(source: Grown | Mapping[str, Iterable[float]] | Any) -> dict[str, list[float]]:
    """Lists of numbers by name: of a mapping, of a table's columns, or of a comparison's growth from layer to layer."""
    if isinstance(source, Grown):
        source = source.growth()
    return {str(name): [float(value) for value in column] for name, column in source.items()}


def rows_in(source: Any) -> list[str] | None:
    """What the rows of a table are called; None for what is no table."""
    if isinstance(source, Grown):
        source = source.growth()
    index = getattr(source, "index", None)
    return None if index is None or callable(index) else [str(row) for row in index]
