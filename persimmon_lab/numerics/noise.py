"""Is it a bug or is it rounding? A candidate's error beside the errors that honest rounding makes.

A bfloat16 run differs from its reference by half a per cent; if it rounds its rotary positions as well, by three
quarters. What tells them apart is how little the size of honest errors varies: sums of many roundings are all alike.
So the experiment is repeated on neighbours of the model, each weight moved by a step of the format or not at all:
another model, hardly different, in which every rounding falls anew.

What adds less than the rounding itself stays unseen (in bfloat16, an epsilon of 1e-4 for 1e-5): compare in float32
first, see `persimmon_lab.numerics.parity`.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Int
from torch import Tensor, nn

from persimmon_lab.fitting.choosing import check_room_for_copies
from persimmon_lab.numerics.borrowing import computing_in
from persimmon_lab.numerics.compare import compare, in_dtype
from persimmon_lab.numerics.formats import NumberFormat, format_of, spacing
from persimmon_lab.trace.names import patterns_to_keep

DRAWN = 2**24  # steps at a time; on a CPU they are the same whether drawn at once or in pieces


@torch.no_grad()
def neighbour(model: nn.Module, format: NumberFormat, generator: torch.Generator) -> nn.Module:
    """A copy with every weight moved down one step of the format, left alone, or moved up, each with probability 1/3.

    Whole steps: a weight that the format holds stays one that it holds, so that rounding the copy costs what rounding
    the model costs. Draws on the generator's device, a few rows of a large weight at a time.

    Raises MemoryError, before the copy, where there is no room for it.
    """
    check_room_for_copies(model, [None], "a neighbour")
    moved = in_dtype(model, next(model.parameters()).dtype)
    for parameter in moved.parameters():
        rows = torch.atleast_1d(parameter.detach())
        for piece in rows.split(max(1, DRAWN * len(rows) // max(1, rows.numel()))):
            steps = torch.randint(-1, 2, piece.shape, generator=generator, device=generator.device)
            piece.add_((steps.to(piece.device) * spacing(piece, format)).to(piece.dtype))
    return moved


@dataclass(frozen=True)
class NoiseLevel:
    """One module: the candidate's relative error, and those of the repeats."""

    path: str
    error: float
    repeats: tuple[float, ...]

    @property
    def usual(self) -> float:
        """The geometric mean of the repeats."""
        return math.exp(statistics.fmean(map(_log, self.repeats)))

    @property
    def z(self) -> float:
        """How many standard deviations of the repeats the candidate's error lies above their mean, in logarithms."""
        logs = [_log(error) for error in self.repeats]
        away, spread = _log(self.error) - statistics.fmean(logs), statistics.stdev(logs)
        return away / spread if spread else math.copysign(math.inf, away) if away else 0.0


def _log(error: float) -> float:
    return math.log(max(error, 1e-300))  # an embedding is exact in every repeat


@dataclass(frozen=True)
class Noise:
    """The candidate beside honest rounding, module by module, in the order in which they ran."""

    levels: list[NoiseLevel]

    def __repr__(self) -> str:
        suspects = self.suspects()
        first = f", first {suspects[0]}" if suspects else ""
        return f"<Noise of {len(self.levels)} modules: {len(suspects)} suspects{first}; .frame() has all>"

    def suspects(self, z: float = 10.0) -> list[str]:
        """The modules whose error no honest rounding explains; the first of them is where to look.

        With 8 repeats an honest module exceeds z = 10 once in 100,000.
        """
        return [level.path for level in self.levels if level.z > z]

    def frame(self) -> pandas.DataFrame:
        """One row per module."""
        rows = [
            {"path": level.path, "relative error": level.error, "usual error": level.usual,
             "ratio": level.error / level.usual, "z": level.z}
            for level in self.levels
        ]  # fmt: skip
        return pandas.DataFrame(rows)


def noise(
    reference: nn.Module,
    candidate: nn.Module,
    ids: Int[Tensor, "batch position"],
    *,
    repeats: int = 8,
    seed: int = 0,
    only: Iterable[str] | None = None,
) -> Noise:
    """Compare the candidate with the reference, then `repeats` neighbours of the reference with themselves in the
    candidate's dtype, which have the reference's code: their errors are rounding and nothing else.

    Beside the two it takes one neighbour, which computes in the candidate's dtype on weights of its own.

    Raises ValueError for fewer than 2 repeats, which have no spread, and as `compare` does; MemoryError, before
    anything runs, where a neighbour has no room.
    """
    if repeats < 2:
        raise ValueError(f"repeats is {repeats}; how much honest errors vary takes 2 or more")
    check_room_for_copies(reference, [None], "noise")
    patterns = patterns_to_keep(only)
    dtype = next(candidate.parameters()).dtype
    generator = torch.Generator().manual_seed(seed)
    runs = [compare(reference, {"candidate": candidate}, ids, only=patterns)]
    for _ in range(repeats):
        honest = neighbour(reference, format_of(dtype), generator)
        runs.append(compare(honest, {"candidate": computing_in(honest, dtype)}, ids, only=patterns))
        del honest  # before the next one is made
    first, *others = ({module.path: module.distance.relative_error for module in run.modules} for run in runs)
    return Noise([NoiseLevel(path, error, tuple(other[path] for other in others)) for path, error in first.items()])
