"""Rounded weights in a checkpoint: which they are, how config.json says so, and what they are as sources.

A rounded weight is one tensor of bytes under the name of the weight: a row of it holds the codes of an output row, then
its scales and zeros. Whoever takes it for a weight finds another shape and another dtype, so nothing else loads it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import Source
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.dtypes import DTYPES, dtype_name
from persimmon_lab.quantisation.packing import ROWS
from persimmon_lab.quantisation.weights import FORMATS, RoundedWeight

FIELD, METHOD = "quantization_config", "persimmon_lab"
PLAIN = ("score",)  # heads that are small, and trained on the spot


@dataclass(frozen=True)
class Rounding:
    """A format of `quantisation.FORMATS` and the dtype of its scales."""

    format: str
    dtype: torch.dtype

    @property
    def kind(self) -> type[RoundedWeight]:
        return FORMATS[self.format]

    def file_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What a weight of this shape is in a file."""
        outputs, inputs = shape
        return outputs, self.kind.row_bytes(inputs, self.dtype)

    def plain_shape(self, file_shape: tuple[int, ...]) -> tuple[int, ...]:
        """What a weight was whose bytes have this shape."""
        outputs, row = file_shape
        return outputs, self.kind.inputs_of(row, self.dtype)

    def check_width(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises CheckpointError, by its name, for a weight of a shape that the format does not take."""
        try:
            self.kind.check_inputs(shape[1])
        except ValueError as error:
            raise CheckpointError(f"{name}: {error}") from error

    def marked(self, config: PersimmonConfig) -> PersimmonConfig:
        """A configuration that says so."""
        about = {"quant_method": METHOD, "format": self.format, "scale_dtype": dtype_name(self.dtype)}
        return replace(config, extra=config.extra | {FIELD: about})


def rounding_of(config: PersimmonConfig) -> Rounding | None:
    """How the weights of a checkpoint are rounded; None where they are not.

    Raises CheckpointError, by its name, for a format that is not ours.
    """
    about: Any = config.extra.get(FIELD)
    if about is None:
        return None
    told = about if isinstance(about, dict) else {}
    method, name, dtype = (told.get(key) for key in ("quant_method", "format", "scale_dtype"))
    if method != METHOD or name not in FORMATS or dtype not in DTYPES:
        raise CheckpointError(
            f"the checkpoint is quantised by {method or 'an unnamed method'} ({FIELD} in config.json: {about!r}), and "
            "that is not read here; load it with what wrote it, or take the checkpoint as it was before, and pass "
            f"quantize, one of {', '.join(map(repr, FORMATS))}"
        )
    return Rounding(name, DTYPES[dtype])


def unmarked(config: PersimmonConfig) -> PersimmonConfig:
    """A configuration of plain weights."""
    return replace(config, extra={name: value for name, value in config.extra.items() if name != FIELD})


def settle_rounding(quantize: str | None, stored: Rounding | None, dtype: torch.dtype) -> Rounding | None:
    """What a model's weights are to be: in the format that they are stored in or rounded to, with scales in `dtype`.

    Raises ValueError for a format that does not exist, and for one of weights that are rounded to another.
    """
    if quantize is None:
        return None if stored is None else Rounding(stored.format, dtype)
    if quantize not in FORMATS:
        raise ValueError(f"quantize is {quantize!r}; choose one of {', '.join(map(repr, FORMATS))}, or None")
    if stored is not None and stored.format != quantize:
        raise ValueError(
            f"quantize is {quantize!r}, but the checkpoint is rounded to {stored.format} already; round the checkpoint "
            "that it was made from"
        )
    return Rounding(quantize, dtype)


def names_to_round(model: nn.Module) -> list[str]:
    """The weights that are rounded: of every Linear and Embedding but a classifier's own projection. Norms and biases
    are few and stay."""
    return [
        f"{path}.weight"
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding) and path not in PLAIN
    ]


def rounded_rows(name: str, rows: Iterable[Float[Tensor, "output input"]], rounding: Rounding) -> Iterator[Tensor]:
    """Rows of a weight as the file has them. Raises CheckpointError that names it where one is not finite."""
    for piece in rows:
        try:
            yield rounding.kind.round(piece, rounding.dtype)
        except ValueError as error:
            raise CheckpointError(f"{name}: {error}") from error


@dataclass(frozen=True)
class RoundedSource:
    """A rounded weight of a model as a source: the bytes of its rows."""

    weight: RoundedWeight
    dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.outputs, self.weight.row_bytes(self.weight.inputs, self.weight.dtype)

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.shape[1]

    def pieces(self, rows: int) -> Iterator[UInt8[Tensor, "output byte"]]:
        step = max(1, rows // ROWS) * ROWS
        for start in range(0, self.weight.outputs, step):
            yield from self.weight.file_rows(start, min(start + step, self.weight.outputs)).cpu().split(rows)


@dataclass(frozen=True)
class Rounded:
    """A plain source rounded as it is read."""

    name: str
    source: Source
    rounding: Rounding
    dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rounding.file_shape(self.source.shape)

    @property
    def nbytes(self) -> int:
        return self.shape[0] * self.shape[1]

    def pieces(self, rows: int) -> Iterator[UInt8[Tensor, "output byte"]]:
        yield from rounded_rows(self.name, self.source.pieces(rows), self.rounding)
