"""How far loading a rounded model raises the memory of a process: `python -m tests.rounded_peaks FOLDER`.

Prints JSON, for each format: bytes taken at the peak, of the rounded model, and of the plain one in bfloat16; see
loading_peaks.py for the environment.
"""

import gc
import json
import sys

import torch

from persimmon_lab import PersimmonForCausalLM
from persimmon_lab.quantisation import FORMATS
from tests.memory import start_afresh, taken


def peaks_of(folder: str, name: str) -> dict[str, int]:
    gc.collect()
    before = start_afresh()
    model = PersimmonForCausalLM.from_pretrained(folder, quantize=name)
    return {
        "taken": taken(before),
        "rounded": model.get_memory_footprint(),
        "plain": model.num_parameters() * torch.bfloat16.itemsize,
    }


if __name__ == "__main__":
    PersimmonForCausalLM.from_pretrained(sys.argv[1], quantize="int8")  # what is loaded once
    print(json.dumps({name: peaks_of(sys.argv[1], name) for name in FORMATS}))
