"""A folder of weights, of which each rank reads and holds its own part: for models that no rank could hold whole."""

import os
from io import RawIOBase
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.matching import check_fit, check_tied, names_in_file
from persimmon_lab.checkpoints.saving import finish_save
from persimmon_lab.checkpoints.settings import choose_dtype, override, read_config, read_generation_config
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.checkpoints.skeletons import shapes_in_file, skeleton
from persimmon_lab.checkpoints.tensor_streams import BITE, bytes_of, copy, rows_of
from persimmon_lab.checkpoints.weight_files import SafetensorsFile, WeightFile
from persimmon_lab.distributed.plan import TENSOR, check_divides, shard
from persimmon_lab.distributed.world import World
from persimmon_lab.dtypes import dtype_name


def load_sharded(
    name: str | os.PathLike[str],
    world: World,
    *,
    torch_dtype: torch.dtype | str | None = None,
    verify: bool = True,
    **overrides: Any,
) -> PersimmonForCausalLM:
    """`PersimmonForCausalLM.from_pretrained` and `plan.shard` in one: every rank calls it and reads its part alone.

    The peak of memory is the rank's part and a few bites of a tensor. `torch_dtype` is float32 when None, the stored
    one when "auto"; `overrides` replace fields of the configuration. With `verify` each rank also looks through its
    share of the checksums, so that together they have compared every byte, and a damaged tensor raises CheckpointError
    on all of them.

    Raises what `from_pretrained` does, ValueError for heads that the ranks cannot share, and CheckpointError for
    pickles, which cannot be read in parts, and for checkpoints without a head.
    """
    if world.is_first:  # a download, or what is left of an interrupted save, is for one of them
        finish_save(hub.resolve(name))
    dist.barrier(group=world.mesh.get_group())
    folder = hub.resolve(name)
    config = override(read_config(folder), overrides)
    check_divides(config, world.size)
    files = open_weights(folder)
    dtype = choose_dtype(torch_dtype, None, config, files)
    config.torch_dtype = dtype_name(dtype)
    model = skeleton(PersimmonForCausalLM, config)
    stored = _match(folder, model, files)
    if verify:
        _verify(stored, files, world)
    shard(model, world.mesh)
    parts = {path: PartialFile(path) for path in {file.path for file in files.values()}}
    tensors = {}
    for own_name, weight in model.state_dict().items():
        if own_name in stored:
            file = parts[files[stored[own_name]].path]
            tensors[own_name] = _read(file, stored[own_name], weight, dtype, world)
    model.load_state_dict(tensors, assign=True, strict=False)
    model.tie_weights()
    model.requires_grad_(False)
    model.generation_config = read_generation_config(folder)
    model.name_or_path = os.fspath(name)
    return model


def part_of(length: int, ranks: int, rank: int) -> slice:
    """Which of so many rows a rank has: equal parts, rounded up, so that the last ones have less or nothing. Source:
    `torch.chunk`, by which DTensor cuts."""
    size = -(-length // ranks)
    return slice(min(length, rank * size), min(length, (rank + 1) * size))


class PartialFile(SafetensorsFile):
    """A safetensors file of which only some rows and columns of a tensor are read."""

    def read_part(
        self, name: str, rows: slice, columns: slice | None, *, dtype: torch.dtype, device: torch.device
    ) -> Float[Tensor, "..."]:
        """A part of a tensor, converted and moved; None for all columns, or where there are none.

        Raises CheckpointError where the file has shrunk.
        """
        length, *width = self.shapes[name]
        stored = self.dtype_of(name)
        taken = width if columns is None else [columns.stop - columns.start]
        target = torch.empty((rows.stop - rows.start, *taken), dtype=dtype, device=device)
        as_it_is = target.is_cpu and dtype == stored
        bite = max(1, min(rows_of((length, *taken), BITE), len(target)))
        landing = None if as_it_is else torch.empty((bite, *taken), dtype=stored, device="cpu")
        row_bytes = stored.itemsize * (width[0] if width else 1)
        with self.path.open("rb", buffering=0) as file:
            for into, first in zip(target.split(bite), range(rows.start, rows.stop, bite)):
                piece = into if landing is None else landing[: len(into)]
                start = self._offsets[name] + first * row_bytes
                if columns is None:
                    self._read_into(file, piece, start)
                else:
                    for row, line in enumerate(piece):
                        self._read_into(file, line, start + row * row_bytes + columns.start * stored.itemsize)
                if not as_it_is:
                    copy(piece, into)
        return target

    def _read_into(self, file: RawIOBase, landing: Float[Tensor, "..."], offset: int) -> None:
        file.seek(offset)
        if file.readinto(bytes_of(landing)) != landing.nbytes:
            raise CheckpointError(f"{self.path} became shorter while it was read")


def _match(folder: Path, model: PersimmonForCausalLM, files: dict[str, WeightFile]) -> dict[str, str]:
    """What each tensor of the model is called in the files. Raises CheckpointError for every difference."""
    pickles = sorted({file.path.name for file in files.values() if not isinstance(file, SafetensorsFile)})
    if pickles:
        raise CheckpointError(
            f"{folder} has its weights in {', '.join(pickles)}, which cannot be read in parts; write it anew as "
            "safetensors: persimmon-lab export FOLDER OUT --format hf"
        )
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else ()
    shapes = shapes_in_file(model, tied)
    stored = names_in_file(shapes, files)
    check_fit(folder, type(model).__name__, shapes, stored, files)
    check_tied(folder, tied, files)
    return stored


def _read(file: PartialFile, name: str, weight: Any, dtype: torch.dtype, world: World) -> Float[Tensor, "..."]:
    """What a rank has of one tensor: of a DTensor its part, of others all."""
    length, *width = file.shapes[name]
    rows, columns, placements = slice(0, length), None, ()
    if isinstance(weight, TENSOR.DTensor):
        placements = weight.placements
        if placements[0].is_shard(0):
            rows = part_of(length, world.size, world.rank)
        elif placements[0].is_shard(1):
            columns = part_of(width[0], world.size, world.rank)
    local = file.read_part(name, rows, columns, dtype=dtype, device=world.device)
    if not placements:
        return local
    tensor: Tensor = TENSOR.DTensor.from_local(
        local, world.mesh, placements, run_check=False, shape=weight.shape, stride=weight.stride()
    )
    return tensor


def _verify(stored: dict[str, str], files: dict[str, WeightFile], world: World) -> None:
    """Compare a rank's share of the checksums. Raises CheckpointError on every rank for what any of them found."""
    found = ""
    try:
        for name in list(stored.values())[world.rank :: world.size]:
            file = files[name]
            for _ in file.pieces(name, rows_of(file.shapes[name], BITE)):
                pass
    except CheckpointError as error:
        found = str(error)
    said: list[str] = [""] * world.size
    dist.all_gather_object(said, found, group=world.mesh.get_group())
    if wrong := next((message for message in said if message), ""):
        raise CheckpointError(wrong)
