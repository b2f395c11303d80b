"""How far loading raises the memory of a process that does nothing else: `python -m tests.loading_peaks FOLDER DEVICE`.

Prints JSON from what was loaded to the bytes that were taken at the peak. Start it with `ENVIRONMENT`, in which glibc
gives back at once what is freed, so that only what is alive counts.
"""

import gc
import json
import os
import sys

import torch

from persimmon_lab import PersimmonForCausalLM
from persimmon_lab.fitting.offload import load_over_devices
from tests.memory import start_afresh, taken

ENVIRONMENT = os.environ | {
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
}
ON_DISK = {"": "disk", "model.embed_tokens": "cpu"}


def peaks(folder: str, device: str) -> dict[str, int]:
    def load(dtype: torch.dtype) -> PersimmonForCausalLM:
        return PersimmonForCausalLM.from_pretrained(folder, torch_dtype=dtype, device=device)

    @torch.no_grad()
    def run(model: PersimmonForCausalLM):
        model(torch.ones(1, 4, dtype=torch.long))

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        load(dtype)  # what is loaded once
        gc.collect()
        before = start_afresh()
        found[f"{device} {dtype}"] = taken(before) if load(dtype) else 0
    run(load_over_devices(PersimmonForCausalLM, folder, device_map=ON_DISK))
    gc.collect()
    before = start_afresh()
    model = load_over_devices(PersimmonForCausalLM, folder, device_map=ON_DISK)
    found["disk"] = taken(before)
    run(model)
    found["disk, and run"] = taken(before)
    return found


if __name__ == "__main__":
    print(json.dumps(peaks(*sys.argv[1:])))
