"""The processes that share a model: who they are, joined for as long as a block lasts.

torchrun starts them and says by environment variables which is which. One that was started without it is a world of
one, so that the same code runs alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore  # torch.distributed has it, unlisted
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from persimmon_lab.atomic import alone

Shared = TypeVar("Shared")
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}
AXIS = "rank"  # the one axis of the mesh
PATIENCE = timedelta(minutes=10)  # torch's own for nccl; a rank that waits longer for another gives up


@dataclass(frozen=True)
class World:
    """One process among `size`, its `rank` among them, and the mesh that torch's own functions take."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh

    def wait(self) -> None:
        """Go on when all others have come here too."""
        dist.barrier(group=self.mesh.get_group())

    @contextmanager
    def holding(self, folder: Path) -> Iterator[None]:
        """Let nobody else train in `folder` meanwhile: the first rank makes it and holds it, as `atomic.alone` does.

        OSError on that rank where somebody has it; torchrun then ends the others.
        """
        if not self.is_first:
            yield
            return
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder):
            yield

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks and writes for all."""
        return self.rank == 0


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def ranks() -> int:
    """How many processes torchrun started, 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


@contextmanager
def joined(device: str = "auto", patience: timedelta = PATIENCE) -> Iterator[World]:
    """Join the other processes, by gloo on the CPU and nccl on GPUs; leaves them when the block ends.

    `auto` gives each process of a machine the GPU of its local rank, and the CPU where there is none. Raises ValueError
    for another kind of device, for a GPU by its number (each rank has its own), and where ranks outnumber the GPUs;
    RuntimeError where this process has joined already.
    """
    if dist.is_initialized():
        raise RuntimeError("this process has joined its world already; leave that block first")
    place = device_of_rank(device, int(os.environ.get("LOCAL_RANK", "0")))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if is_launched():
        dist.init_process_group(BACKENDS[place.type], timeout=patience)
    else:
        dist.init_process_group(BACKENDS[place.type], store=HashStore(), rank=0, world_size=1, timeout=patience)
    try:
        mesh = init_device_mesh(place.type, (dist.get_world_size(),), mesh_dim_names=(AXIS,))
        yield World(dist.get_rank(), dist.get_world_size(), place, mesh)
    finally:
        dist.destroy_process_group()


def device_of_rank(device: str, local_rank: int) -> torch.device:
    """The device of the process with this number on its machine: see `joined`."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in BACKENDS:
        raise ValueError(
            f"device is {device!r}; several processes compute on cpu (by gloo) or cuda (by nccl, a GPU for each, which "
            "is chosen by its local rank); give one of them or auto"
        )
    if device == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"local rank {local_rank} has no GPU: torch sees {torch.cuda.device_count()} here; start as many processes "
            "(--nproc-per-node), or give --device cpu"
        )
    return torch.device("cuda", local_rank)


def shared(value: Shared, world: World) -> Shared:
    """What the first process has, on all of them: anything that can be pickled."""
    boxes = [value]
    dist.broadcast_object_list(boxes, src=0, group=world.mesh.get_group(), device=world.device)
    return boxes[0]
