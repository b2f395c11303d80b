"""Which layout of a weight is fastest for how many rows: the measurement behind `best_kind` in engines/packed.py.

    python -m benchmarks.layouts

Each layout multiplies the same rows in turns, on so many copies of a matrix that they come from memory (or, with few,
stay in the processor's cache). Medians over the rounds of the weights' bytes per second; nobody else should compute.
"""

import argparse
import datetime
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.machine import machine, store
from persimmon_lab.generation.engines.packed import OneRowLinear, PackedLinear, PlainLinear, can_pack

KINDS = (PlainLinear, OneRowLinear, PackedLinear)
SHAPES = ((256, 768), (256, 1024), (1024, 256), (1024, 1024), (1024, 3072), (4096, 1024), (256, 8192), (1024, 32000))
ROWS = (1, 2, 8, 32, 128)
STREAMED = {"memory": 200e6, "cache": 12e6}  # bytes of weights that take turns


def rates(
    columns: int, outputs: int, dtype: torch.dtype, rows: tuple[int, ...], streamed: float, rounds: int
) -> dict[int, dict[str, float]]:
    """Bytes of weights a second by rows of x and by layout, for a matrix from `columns` to `outputs` channels."""
    linear = nn.Linear(columns, outputs, bias=False, dtype=dtype)
    copies = max(1, round(streamed / linear.weight.nbytes))
    laid_out = {kind.__name__: [kind(copy_of(linear)) for _ in range(copies)] for kind in KINDS}
    by_rows = {}
    for count in rows:
        x = torch.ones(count, columns, dtype=dtype)
        samples = {name: [] for name in laid_out}
        for _ in range(rounds + 1):
            for name, products in laid_out.items():
                start = time.perf_counter()
                for product in products:
                    product(x)
                samples[name].append(copies * linear.weight.nbytes / (time.perf_counter() - start))
        by_rows[count] = {name: statistics.median(speeds[1:]) for name, speeds in samples.items()}
    return by_rows


def copy_of(linear: nn.Linear) -> nn.Linear:
    """One with a weight of its own, for PlainLinear keeps the one that it is given."""
    copy = nn.Linear(linear.in_features, linear.out_features, bias=False, dtype=linear.weight.dtype)
    copy.load_state_dict(linear.state_dict())
    return copy


def line(case: dict) -> str:
    """GB/s of the plain product and, of the others, how many times as fast."""
    plain = case["rates"][PlainLinear.__name__]
    ratios = "".join(f" {case['rates'][kind.__name__] / plain:6.2f}" for kind in KINDS[1:])
    where = f"{case['dtype']:8} {case['from']:6} {case['columns']:5} -> {case['outputs']:5} x {case['rows']:3}"
    return f"{where} {plain / 1e9:7.1f} GB/s {ratios}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--shapes", nargs="+", default=[f"{a}x{b}" for a, b in SHAPES], help="columns x outputs")
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "layouts.json")
    arguments = parser.parse_args()
    cases = []
    print("dtype, where the weights are, shape x rows: PlainLinear, then times as fast: OneRowLinear, PackedLinear")
    with torch.no_grad():
        for dtype in arguments.dtypes:
            if not can_pack(getattr(torch, dtype)):
                print(f"{dtype}: oneDNN packs nothing here")
                continue
            for where, streamed in STREAMED.items():
                for shape in arguments.shapes:
                    columns, outputs = map(int, shape.split("x"))
                    kind = getattr(torch, dtype)
                    by_rows = rates(columns, outputs, kind, arguments.rows, streamed, arguments.rounds)
                    for rows, by_kind in by_rows.items():
                        cases.append({"dtype": dtype, "from": where, "columns": columns, "outputs": outputs,
                                      "rows": rows, "rates": by_kind})  # fmt: skip
                        print(line(cases[-1]), flush=True)
    about = {"date": datetime.date.today().isoformat(), "machine": machine(("torch",)), "rounds": arguments.rounds,
             "threads": torch.get_num_threads()}  # fmt: skip
    store(arguments.output, about | {"cases": cases})


if __name__ == "__main__":
    main()
