"""Which tokens the model sees at which step: a pure function of the seed and the step, so a run can stop and go on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Integer
from torch import Tensor

from persimmon_lab.losses import IGNORED
from persimmon_lab.training.drills import Stream, drill

DRILLS = "drills"
UNTAUGHT = 1 << 15  # on a token of a stream: it is read, and the model is not taught to say it

RowSource = Callable[[np.random.Generator, int], Stream]  # a generator and a length -> a row of as many tokens


def load_streams(folder: Path) -> dict[str, Stream]:
    """The uint16 token streams of a folder of .bin files, mapped into memory, by name."""
    return {path.stem: np.memmap(path, dtype=np.uint16, mode="r") for path in sorted(folder.glob("*.bin"))}


def plain(stream: Integer[np.ndarray, "*shape"]) -> Integer[np.ndarray, "*shape"]:
    """The tokens themselves, without the marks of what is not taught."""
    return stream & (UNTAUGHT - 1)


def stretches(stream: Stream) -> RowSource:
    """Rows from anywhere in a stream, every place as likely as any other. Drawing one raises ValueError where the
    stream has too few tokens for it."""

    def row(generator: np.random.Generator, length: int) -> Stream:
        if length > len(stream):
            raise ValueError(
                f"a row of {length - 1} tokens and the one after does not fit a stream of {len(stream)}; give more "
                "text, or shorter Recipe.lengths"
            )
        start = int(generator.integers(0, len(stream) - length + 1))
        return stream[start : start + length]

    return row


def excerpts(stream: Stream, end: int, newline: int) -> RowSource:
    """Like `stretches`, but every other row is a text of its own: `end`, and then from the beginning of a line; what it
    lacks at its end comes from elsewhere.

    Without such rows, whatever begins a text would be taken for what the other domains begin with: a chat or a lesson.
    """
    anywhere = stretches(stream)

    def row(generator: np.random.Generator, length: int) -> Stream:
        found = anywhere(generator, length)
        breaks = np.flatnonzero(plain(found) == newline)
        if generator.random() < 0.5 or not len(breaks) or breaks[0] + 2 > length:
            return found
        begun = found[breaks[0] + 1 :]
        return np.concatenate([[end], begun, anywhere(generator, length)])[:length].astype(stream.dtype)

    return row


def whole_documents(draw: Callable[[np.random.Generator], str], encode: Callable[[str], Stream], end: int) -> RowSource:
    """Rows that begin with a document and hold as many as fit, the last one cut; `end` stands around each."""

    def row(generator: np.random.Generator, length: int) -> Stream:
        parts, size = [np.array([end], dtype=np.uint16)], 1
        while size < length:
            parts.append(encode(draw(generator)))
            size += len(parts[-1])
        return np.concatenate(parts)[:length]

    return row


def drills(texts: Sequence[RowSource], first_piece: int, vocabulary: int) -> RowSource:
    """Rows in which something comes twice (see `drill`): text of one of `texts`, or random pieces from `first_piece`
    on, so no special ones."""

    def row(generator: np.random.Generator, length: int) -> Stream:
        text = plain(texts[int(generator.integers(len(texts)))](generator, length))
        return drill(generator, length, text, first_piece, vocabulary)

    return row


def batch_at(
    step: int, *, seed: int, sources: Mapping[str, RowSource], weights: Mapping[str, float], rows: int, length: int
) -> tuple[Int[Tensor, "batch position"], Int[Tensor, "batch position"]]:
    """`rows` rows of `length` tokens for one step, and the token that follows each, -100 where it is not taught.

    Each row draws its domain by `weights`, whose names are those of `sources`.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, step]))
    names = list(weights)
    shares = np.array([weights[name] for name in names])
    drawn = generator.choice(names, size=rows, p=shares / shares.sum())
    batch = np.stack([sources[str(name)](generator, length + 1) for name in drawn]).astype(np.int64)
    tokens = plain(batch)
    targets = np.where(batch & UNTAUGHT, IGNORED, tokens)
    return torch.from_numpy(tokens[:, :-1].copy()), torch.from_numpy(targets[:, 1:].copy())
