"""Which tokens the model sees at which step: a pure function of the seed and the step, so a run can stop and go on."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from persimmon_lab.training.drills import Stream, drill

DRILLS = "drills"


def load_streams(folder: Path) -> dict[str, Stream]:
    """The uint16 token streams of a folder of .bin files, mapped into memory, by name."""
    return {path.stem: np.memmap(path, dtype=np.uint16, mode="r") for path in sorted(folder.glob("*.bin"))}


def batch_at(
    step: int,
    *,
    seed: int,
    streams: Mapping[str, Stream],
    weights: Mapping[str, float],
    rows: int,
    length: int,
    vocabulary: int,
    first_piece: int,
) -> Int[Tensor, "batch position"]:
    """`rows` rows of `length` + 1 tokens (inputs and, one later, their targets) for one step.

    Each row draws its domain by `weights` and its place in the domain's stream evenly. A row of the domain "drills" is
    a `drill` on text of another domain, or on random pieces (from `first_piece` on, so no special ones).
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    names = list(weights)
    shares = np.array([weights[name] for name in names])
    texts = [name for name in names if name != DRILLS]
    batch = []
    for name in generator.choice(names, size=rows, p=shares / shares.sum()):
        stream = streams[str(generator.choice(texts)) if name == DRILLS else str(name)]
        start = int(generator.integers(0, len(stream) - length))
        row = stream[start : start + length + 1]
        batch.append(drill(generator, length + 1, row, first_piece, vocabulary) if name == DRILLS else row)
    return torch.from_numpy(np.stack(batch).astype(np.int64))
