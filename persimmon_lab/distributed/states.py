"""Sharded models on disk: checkpoints that any number of processes go on from, and a folder that everybody reads."""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.atomic import filling
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.distributed.learner import ShardedLearner
from persimmon_lab.distributed.plan import TENSOR
from persimmon_lab.distributed.world import World
from persimmon_lab.field_checks import parsed
from persimmon_lab.finetuning.deferred import Deferred

CHECKPOINT = Deferred("torch.distributed.checkpoint", extra="lab")
TOLD = "run.json"  # beside torch's own files in a checkpoint: the step, and what the run says of itself
NAME = "checkpoint-{:07}"


def save_checkpoint(
    folder: Path,
    learner: ShardedLearner,
    told: Mapping[str, Any],
    best: Mapping[str, Float[Tensor, "..."]] | None = None,
) -> None:
    """Write what the next step depends on to `folder`/checkpoint-STEP, by torch's distributed checkpoint, each rank its
    part; then older ones go. `told` has the `step` and what JSON can hold, `best` other weights that are to be kept.
    An interruption leaves the older one."""
    world = learner.world
    state = learner.state() | {f"best.{name}": weight for name, weight in (best or {}).items()}
    group = world.mesh.get_group()
    target = folder / NAME.format(told["step"])
    unfinished = folder / ".checkpoint.unfinished"
    with ExitStack() as stack:
        if world.is_first:
            stack.enter_context(filling(target, unfinished))
        dist.barrier(group=group)
        CHECKPOINT.save(state, checkpoint_id=unfinished)
        if world.is_first:
            (unfinished / TOLD).write_text(json.dumps(told) + "\n", encoding="utf-8")
    if world.is_first:
        for older in folder.glob(NAME.format(0).replace("0" * 7, "*")):
            if older != target:
                shutil.rmtree(older)
    dist.barrier(group=group)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run, None where there is none."""
    return max(folder.glob(NAME.format(0).replace("0" * 7, "*")), default=None)


def told_by(checkpoint: Path) -> dict[str, Any]:
    """What `save_checkpoint` was told."""
    told: dict[str, Any] = parsed((checkpoint / TOLD).read_text(encoding="utf-8"))
    return told


def load_checkpoint(checkpoint: Path, learner: ShardedLearner) -> dict[str, Float[Tensor, "..."]]:
    """Give a learner what the checkpoint has, each rank its part, however many there were when it was written; returns
    the `best` weights that were kept in it."""
    described = CHECKPOINT.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    state = {key: value for key, value in learner.state().items() if key.startswith("weights.")}
    for key, tensor in described.items():
        kind, _, name = key.partition(".")
        if kind != "weights":
            weight = learner.weights[name if kind == "best" else name.rpartition(".")[0]]
            fits = tuple(tensor.size) == tuple(weight.shape)
            state[key] = (
                torch.zeros_like(weight.detach()) if fits else torch.zeros(tensor.size, dtype=tensor.properties.dtype)
            )
    CHECKPOINT.load(state, checkpoint_id=checkpoint)
    learner.load(state)
    return {key.removeprefix("best."): value for key, value in state.items() if key.startswith("best.")}


def weights_in(checkpoint: Path) -> dict[str, Float[Tensor, "..."]]:
    """The whole weights of a checkpoint by name, read by one process that has joined nobody."""
    described = CHECKPOINT.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    state = {
        key: torch.empty(tensor.size, dtype=tensor.properties.dtype, device="cpu")
        for key, tensor in described.items()
        if key.startswith("weights.")
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # which is what was asked for
        CHECKPOINT.load(state, checkpoint_id=checkpoint, no_dist=True)
    return {key.removeprefix("weights."): tensor for key, tensor in state.items()}


@torch.no_grad()
def whole_weights(model: nn.Module, world: World) -> dict[str, Float[Tensor, "..."]]:
    """All tensors of a model that was cut or sharded, put together on the first rank's CPU, one after the other; empty
    on the others. All ranks call it."""
    whole: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        gathered = tensor.full_tensor() if isinstance(tensor, TENSOR.DTensor) else tensor
        if world.is_first:
            whole[name] = gathered.detach().cpu()
    return whole


def save_pretrained(
    model: PersimmonForCausalLM, folder: str | os.PathLike[str], world: World, dtype: torch.dtype | None = None
) -> None:
    """`model.save_pretrained(folder)` of a model that was cut or sharded: gathered to the first rank, which writes it,
    in `dtype` if one is given. All ranks call it, and go on when it is written."""
    whole = whole_weights(model, world)
    if world.is_first:
        model.save_pretrained(
            folder, state_dict={name: tensor.to(dtype or tensor.dtype) for name, tensor in whole.items()}
        )
    dist.barrier(group=world.mesh.get_group())
