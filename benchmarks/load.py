"""Memory and time of `from_pretrained`, beside transformers, each load in a process of its own.

    python -m benchmarks.load                      # 220 M random parameters, every case three times
    python -m benchmarks.load --repeats 1 --scale 4

Peak memory is the high-water mark of the resident set while loading and then reading every weight once, less what was
resident before (python, torch and the library itself), over the bytes of the loaded weights. Contenders take turns, so
that whatever else the machine does falls on all of them; the file is in the page cache. Times are given with every
weight read once, because transformers leaves unconverted weights mapped to the file and reads them on first use. Where
there is a GPU, both also load to it, and the host's peak should be next to nothing.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.machine import forget_the_peak, machine, resident, store

# Stored format and dtype, dtype asked for.
CASES = [
    ("safetensors", "bfloat16", "bfloat16"),
    ("safetensors", "bfloat16", "float32"),
    ("safetensors", "float32", "bfloat16"),
    ("safetensors", "float32", "float32"),
    ("bin", "bfloat16", "bfloat16"),
]
ROOT = Path(__file__).parents[1]
CONTENDERS = ["persimmon_lab", "persimmon_lab verify=False", "persimmon_lab mmap=True", "transformers"]
ON_GPU = ["persimmon_lab to cuda", "transformers to cuda"]


def measure(contender: str, folder: str, dtype: str) -> dict[str, float]:
    """Load one checkpoint in this process, which has done nothing else."""
    torch.set_num_threads(2)
    options = {"dtype": getattr(torch, dtype)}
    if contender == "transformers":
        from transformers import PersimmonForCausalLM
    else:
        from persimmon_lab import PersimmonForCausalLM

        options |= {"verify": False} if "verify=False" in contender else {}
        options |= {"mmap": True} if "mmap=True" in contender else {}
    if "cuda" in contender:
        options["device_map" if "transformers" in contender else "device"] = "cuda:0"
        torch.ones(1, device="cuda").sum().item()  # CUDA itself, in host memory too
    before = resident("VmRSS")
    forget_the_peak()
    start, cpu = time.perf_counter(), time.process_time()
    model = PersimmonForCausalLM.from_pretrained(folder, **options)
    load, load_cpu = time.perf_counter() - start, time.process_time() - cpu
    weights = sum(parameter.nbytes for parameter in model.parameters())
    for parameter in model.parameters():
        parameter.detach().amax().item()
    ready, ready_cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "weights_mb": weights / 1e6,
        "peak_over_weights": (resident("VmHWM") - before) / weights,
        "seconds_to_load": load,
        "seconds_to_load_and_touch": ready,
        "cpu_seconds_to_load": load_cpu,
        "cpu_seconds_to_load_and_touch": ready_cpu,
    }


def write_checkpoint(folder: Path, form: str, dtype: str, scale: int):
    """A random model in Persimmon's proportions, saved as transformers would."""
    from persimmon_lab import PersimmonConfig, PersimmonForCausalLM

    config = PersimmonConfig(
        vocab_size=32768 // scale, hidden_size=1024 // scale, intermediate_size=4096 // scale, num_hidden_layers=12,
        num_attention_heads=16, max_position_embeddings=2048,
    )  # fmt: skip
    model = PersimmonForCausalLM(config, torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    if form == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


def run(repeats: int, scale: int) -> list[dict]:
    rows = []
    contenders = CONTENDERS + (ON_GPU if torch.cuda.is_available() else [])
    with tempfile.TemporaryDirectory() as scratch:
        for form, stored, wanted in CASES:
            folder = Path(scratch, f"{form}-{stored}")
            if not folder.exists():
                write_checkpoint(folder, form, stored, scale)
            samples = {contender: [] for contender in contenders}
            for _ in range(repeats):
                for contender in contenders:
                    command = [sys.executable, "-m", "benchmarks.load", "--measure", contender, str(folder), wanted]
                    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
                    samples[contender].append(json.loads(output.splitlines()[-1]))
            for contender, measured in samples.items():
                row = {"form": form, "stored": stored, "wanted": wanted, "contender": contender}
                rows.append(row | {key: statistics.median(m[key] for m in measured) for key in measured[0]})
                print(as_line(rows[-1]), flush=True)
    return rows


def as_line(row: dict) -> str:
    case = f"{row['form']} {row['stored']} -> {row['wanted']}"
    return (
        f"{case:36} {row['contender']:28} peak {row['peak_over_weights']:.3f} x {row['weights_mb']:.0f} MB   "
        f"{row['seconds_to_load_and_touch']:.2f} s, {row['cpu_seconds_to_load_and_touch']:.2f} s of them computing"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scale", type=int, default=1, help="divide the widths by this")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "load.json")
    parser.add_argument("--measure", nargs=3, metavar=("CONTENDER", "FOLDER", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    result = {"date": datetime.date.today().isoformat(), "machine": machine(), "repeats": arguments.repeats}
    result["rows"] = run(arguments.repeats, arguments.scale)
    store(arguments.output, result)


if __name__ == "__main__":
    main()
