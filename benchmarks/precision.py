"""A forward pass in float32, bfloat16 and float16: what each costs, and how far it parts from float32.

    python -m benchmarks.precision                                  # persimmon-mini, and its fine-tuning recipes
    python -m benchmarks.precision --config 8b --context 16384      # random weights of the 8B's size, on a GPU

All three copies are in memory at once, because the comparison walks them side by side. Where that does not fit, the 8B
becomes shallower, and the result says how many layers it had. Random weights answer for memory and time, not for what
trained ones do to a format: their numbers are smaller and their predictions nearly flat. Memory of a forward pass is
the peak above what was allocated before, on a GPU alone.
"""

import argparse
import dataclasses
import datetime
import json
import statistics
import time
from pathlib import Path

import torch

from benchmarks.machine import machine, store
from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, load_mini
from persimmon_lab.fitting.memory import weight_bytes
from persimmon_lab.footprint import activation_bytes, free_memory, in_bytes
from persimmon_lab.mini import MINI
from persimmon_lab.numerics.compare import compare, in_dtype
from persimmon_lab.numerics.recipes import RECIPES, fine_tune, ladder

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fitting(config: PersimmonConfig, context: int, room: int) -> PersimmonConfig:
    """The config with as many layers as leave three copies and their passes room."""
    for layers in range(config.num_hidden_layers, 0, -1):
        shallower = dataclasses.replace(config, num_hidden_layers=layers)
        passes = (activation_bytes(shallower, dtype, context, logits_to_keep=0) for dtype in DTYPES)
        if sum(weight_bytes(shallower, dtype) for dtype in DTYPES) + sum(passes) < 0.9 * room:
            return shallower
    raise SystemExit(f"{in_bytes(room)} hold no layer at context {context}; ask for less --context")


def subject(name: str, context: int, device: torch.device) -> tuple[PersimmonForCausalLM, torch.Tensor]:
    """A float32 model and tokens for it: persimmon-mini and its model card, or random ones."""
    if name == "mini":
        model, tokenizer = load_mini(device=device)
        return model, tokenizer((MINI / "MODEL_CARD.md").read_text(), return_tensors="pt").input_ids[:, :context]
    room = free_memory()["cpu" if device.type == "cpu" else f"cuda:{device.index or 0}"]
    config = fitting(PersimmonConfig.persimmon_8b(), context, room)
    with device:
        model = PersimmonForCausalLM(config, torch.Generator(device).manual_seed(0)).eval()
    return model, torch.randint(3, config.vocab_size, (1, context), generator=torch.Generator().manual_seed(0))


def forward(model: PersimmonForCausalLM, ids: torch.Tensor) -> tuple[float, float | None]:
    """Seconds and, on a GPU, gigabytes of a forward pass without gradients that makes all logits."""
    on_gpu = ids.device.type == "cuda"
    if on_gpu:
        before = torch.cuda.memory_allocated(ids.device)
        torch.cuda.reset_peak_memory_stats(ids.device)
    start = time.perf_counter()
    with torch.no_grad():
        model(ids, use_cache=False)
    if on_gpu:
        torch.cuda.synchronize(ids.device)
    seconds = time.perf_counter() - start
    return seconds, (torch.cuda.max_memory_allocated(ids.device) - before) / 1e9 if on_gpu else None


def run(model: PersimmonForCausalLM, ids: torch.Tensor, repeats: int) -> list[dict]:
    models = {"float32": model} | {str(dtype).removeprefix("torch."): in_dtype(model, dtype) for dtype in DTYPES[1:]}
    ids = ids.to(model.device)
    costs = {name: [] for name in models}
    for _ in range(repeats + 1):  # in turns, so that whatever else the machine does falls on all of them
        for name, copy in models.items():
            costs[name].append(forward(copy, ids))
    rows = {}
    for name, copy in models.items():
        seconds = statistics.median(seconds for seconds, _ in costs[name][1:])  # the first round warms up
        rows[name] = {
            "dtype": name,
            "weights_gb": sum(parameter.nbytes for parameter in copy.parameters()) / 1e9,
            "forward_gb": costs[name][-1][1],
            "seconds": seconds,
            "tokens_per_second": ids.numel() / seconds,
        }
    del models["float32"]
    comparison = compare(model, models, ids.cpu())
    summary, growth = comparison.summary(), comparison.growth()
    for name in models:
        rows[name] |= summary.loc[name].to_dict() | {
            "relative error after the last layer": float(growth[name].iloc[-1]),
            "largest share of the format": max(t.distance.share for t in comparison.modules if t.candidate == name),
        }
    return list(rows.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", choices=("mini", "8b"), default="mini")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--device", type=torch.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--output", type=Path, help="default: results/precision.json, or precision_8b.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, ids = subject(arguments.config, arguments.context, arguments.device)
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(("torch",)),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else "cpu",
        "config": arguments.config,
        "layers": model.config.num_hidden_layers,
        "tokens": ids.numel(),
        "rows": run(model, ids, arguments.repeats),
    }
    if arguments.config == "mini":
        runs = [fine_tune(model, [ids[:, :128]], recipe) for recipe in RECIPES]
        result["recipes"] = json.loads(ladder(runs).reset_index().to_json(orient="records"))
    name = "precision.json" if arguments.config == "mini" else f"precision_{arguments.config}.json"
    output = arguments.output or Path(__file__).parent / "results" / name
    store(output, result)
    for row in result["rows"]:
        print({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()})


if __name__ == "__main__":
    main()
