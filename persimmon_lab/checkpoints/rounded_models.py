"""Rounded weights into a model, tensor by tensor as they are read, and out of it."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from persimmon_lab.checkpoints.rounded import RoundedSource, Rounding, names_to_round, rounded_rows
from persimmon_lab.checkpoints.skeletons import module_of
from persimmon_lab.checkpoints.tensor_streams import BITE, Source, rows_of
from persimmon_lab.dtypes import FLOATS
from persimmon_lab.quantisation.modules import rounded_weights, with_rounded_weight
from persimmon_lab.quantisation.packing import ROWS
from persimmon_lab.quantisation.weights import RoundedWeight


def read_weight(
    source: Source, name: str, shape: tuple[int, ...], rounding: Rounding, device: torch.device | str
) -> RoundedWeight:
    """A rounded weight, from a plain one or from its rows in a file, a few rows at a time.

    Raises CheckpointError as the source does, and for numbers that are not finite.
    """
    rounding.check_width(name, shape)
    outputs, inputs = shape
    weight = rounding.kind(outputs, inputs, rounding.dtype, device)
    pieces = source.pieces(max(1, rows_of(shape, BITE // 8) // ROWS) * ROWS)  # rounding takes eight times a piece
    start = 0
    for rows in whole_blocks(pieces if source.dtype == torch.uint8 else rounded_rows(name, pieces, rounding)):
        weight.fill(start, rows.to(device))
        start += len(rows)
    return weight


def whole_blocks(pieces: Iterable[UInt8[Tensor, "output byte"]]) -> Iterator[UInt8[Tensor, "output byte"]]:
    """The rows of pieces of any length in pieces of whole blocks, but for the last."""
    rest: UInt8[Tensor, "output byte"] | None = None
    for piece in pieces:
        rows = piece if rest is None else torch.cat((rest, piece))
        whole = len(rows) // ROWS * ROWS
        if whole:
            yield rows[:whole]
        rest = rows[whole:] if whole < len(rows) else None
    if rest is not None:
        yield rest


def round_modules(
    model: nn.Module,
    sources: Mapping[str, Source],
    rounding: Rounding,
    dtype: torch.dtype,
    devices: Mapping[str, Any],
) -> None:
    """Replace the modules whose weights are given, plain or rounded by `rounding`; `dtype` is that of their scales."""
    for name, source in sources.items():
        path = name.removesuffix(".weight")
        module = model.get_submodule(path)
        shape = tuple(module.get_parameter("weight").shape)
        weight = read_weight(source, name, shape, rounding, torch.device(devices[module_of(name, devices)])).to(dtype)
        model.set_submodule(path, with_rounded_weight(module, weight))


def warn_of_emulation(model: nn.Module) -> None:
    """Say where products are slow, once for a model."""
    emulated = [weight for weight in rounded_weights(model).values() if not weight.has_kernel]
    if emulated and emulated[0].device.type != "meta":
        weight = emulated[0]
        warnings.warn(
            f"products of {weight.format} weights in {weight.dtype} on {weight.device.type} are emulated, a piece of "
            "numbers at a time, which is slow: torch has its own in torch.bfloat16, on the CPUs that it knows",
            stacklevel=3,
        )


def sources_of(model: nn.Module) -> dict[str, RoundedSource]:
    """The rounded weights of a model, as they are written."""
    return {name: RoundedSource(weight) for name, weight in rounded_weights(model).items()}


def unrounded_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's tensors without those of rounded weights."""
    rounded = tuple(f"{name}." for name in rounded_weights(model))
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(rounded)}


def check_rounded(
    model: nn.Module, needed: Mapping[str, tuple[int, ...]], rounded: Mapping[str, RoundedSource]
) -> Rounding:
    """How the weights of a model are rounded: all that can be, and all in one way.

    Raises ValueError for a model that could not be read again, with the names of what is otherwise.
    """
    roundings = {Rounding(source.weight.format, source.weight.dtype) for source in rounded.values()}
    rounding = next(iter(roundings))
    shapes = {name: tuple(source.weight.shape) for name, source in rounded.items()}
    plain = [name for name in names_to_round(model) if name not in rounded]
    odd = [name for name, shape in shapes.items() if needed.get(name) != shape]
    if len(roundings) > 1 or plain or odd or rounding.dtype not in FLOATS:
        raise ValueError(
            f"of this model {len(rounded)} weights are rounded, in {len(roundings)} ways, {len(plain)} that could be "
            f"are not ({', '.join(plain[:4]) or 'none'}), and {len(odd)} are not what its configuration describes "
            f"({', '.join(odd[:4]) or 'none'}); load the model again to save it"
        )
    if meta := [name for name, source in rounded.items() if source.weight.device.type == "meta"]:
        raise ValueError(f"{len(meta)} tensors are on the meta device and have no values to save: {', '.join(meta)}")
    return rounding
