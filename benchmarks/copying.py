"""How many seeds learn to copy: with and without the query and key norms, at two constant rates, and from two starts.

    python -m benchmarks.copying

The model, the tasks and the loop are those of notebook 07, section 7 to 12, which shows one seed of each. A run has
learned when it copies at least 95% of the symbols of fresh rows. No peer is measured here: transformers builds the same
model and has no such task.
"""

import argparse
import datetime
import math
from pathlib import Path

import torch

from benchmarks.machine import machine, store
from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.trace.capture import capture
from persimmon_lab.training.copying import START, CopyTask, copying_accuracy, teach
from persimmon_lab.training.initialisation import start_copying

LEARNED = 0.95  # of the copied symbols
CONSTANT = 1e-9  # a decay over less than a step
ONE_DISTANCE = CopyTask(symbols=32, shortest=12, longest=12, length=24)
ANY_DISTANCE = CopyTask(symbols=32, shortest=4, longest=12, length=24, distinct=True)


def tiny(**changes: object) -> PersimmonConfig:
    """The model of notebook 07: two layers, 64 wide, four heads."""
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"bos_token_id": START, "eos_token_id": START}
    return PersimmonConfig(vocab_size=33, max_position_embeddings=64, **sizes, **special, **changes)


def run(seed: int, task: CopyTask, config: PersimmonConfig, mimetic: bool = False, **how: float) -> dict:
    """Train one seed; its accuracy on fresh rows and the largest score of attention, in size, that a query sees."""
    generator = torch.Generator().manual_seed(seed)
    model = PersimmonForCausalLM(config, generator)
    if mimetic:
        start_copying(model, generator, embedding_std=0.5, head_std=0.08, copying=0.25)
    *_, last = teach(model, task, torch.Generator().manual_seed(seed + 1), **how)
    fresh = task.rows(128, torch.Generator().manual_seed(9))
    finite = math.isfinite(last.copied)
    accuracy = copying_accuracy(model.eval(), fresh) if finite else 0.0
    scores = capture(model, fresh.ids, only=["scores"]).stacked("scores").tril()
    return {"seed": seed, "accuracy": accuracy, "largest_score": scores.abs().max().item() if finite else None}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "copying.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {
        f"one distance, rate {rate}, {'with' if norms else 'without'} norms": (
            ONE_DISTANCE, tiny(qk_layernorm=norms), {"rate": rate, "decay": CONSTANT}
        )
        for rate in (0.01, 0.03)
        for norms in (True, False)
    } | {
        "any distance, plain start, 300 steps": (ANY_DISTANCE, tiny(), {"steps": 300}),
        "any distance, copying start, 160 steps": (ANY_DISTANCE, tiny(), {"mimetic": True}),
    }  # fmt: skip
    rows = []
    for name, (task, config, how) in cases.items():
        runs = [run(seed, task, config, **how) for seed in range(arguments.seeds)]
        scores = [result["largest_score"] for result in runs if result["largest_score"] is not None]
        rows.append({
            "case": name,
            "learned": sum(result["accuracy"] >= LEARNED for result in runs),
            "of": len(runs),
            "largest_score": [min(scores), max(scores)] if scores else None,
            "runs": runs,
        })  # fmt: skip
        print(name, rows[-1]["learned"], "of", len(runs), rows[-1]["largest_score"], flush=True)
    result = {"date": datetime.date.today().isoformat(), "machine": machine(("torch",)), "rows": rows}
    store(arguments.output, result)


if __name__ == "__main__":
    main()
