"""How far beams raise the memory of an idle process, beside the estimate: `python -m tests.beam_peaks`.

Prints JSON from the case to [estimate, peak], in bytes; what one case leaves to the allocator the next need not take.
"""

import gc
import json
import sys
from typing import Any

import torch

from persimmon_lab import load_mini
from persimmon_lab.generation import GenerationConfig
from persimmon_lab.generation.memory import memory_needed
from tests.memory import start_afresh, taken

BEAMS, NEW_TOKENS, WIDTH = 300, 8, 16
CASES: dict[str, dict[str, Any]] = {
    "plain": {"engine": "plain"},
    "fast": {"engine": "fast"},
    "penalties": {"engine": "fast", "repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
}


def peaks() -> dict[str, list[int]]:
    model, _ = load_mini()
    ids = torch.arange(300, 300 + WIDTH)[None]
    found = {}
    for name, settings in CASES.items():
        model.generate(ids, num_beams=2, max_new_tokens=2, **settings)  # what stays
        gc.collect()
        before = start_afresh()
        model.generate(ids, num_beams=BEAMS, max_new_tokens=NEW_TOKENS, **settings)
        config = GenerationConfig(num_beams=BEAMS, **{k: v for k, v in settings.items() if k != "engine"})
        needed = memory_needed(model, config, 1, WIDTH, NEW_TOKENS)
        found[name] = [sum(needed.values()), taken(before)]
    return found


if __name__ == "__main__":
    json.dump(peaks(), sys.stdout)
