"""How far loading a part raises the memory of a rank that does nothing else: torchrun's script, given a folder.

Each rank prints JSON: the bytes of its part, and those that were taken at the peak.
"""

import gc
import json
import sys

import torch
import torch.distributed as dist

from persimmon_lab.distributed.loading import load_sharded
from persimmon_lab.distributed.world import joined
from tests.memory import start_afresh, taken


def peak(folder: str, small: str, dtype: torch.dtype = torch.bfloat16) -> dict[str, int]:
    with joined("cpu") as world:
        load_sharded(small, world)  # what is loaded once
        gc.collect()
        before = start_afresh()
        model = load_sharded(folder, world, torch_dtype=dtype)
        found = {"taken": taken(before), "whole": model.num_parameters() * dtype.itemsize}
        found["part"] = sum(getattr(weight, "_local_tensor", weight).nbytes for weight in model.parameters())
        dist.barrier()
    return found


if __name__ == "__main__":
    print(json.dumps(peak(*sys.argv[1:])))
