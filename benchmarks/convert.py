"""Memory and time of `persimmon-lab convert` on a release of several GB, beside a plain copy of the same bytes.

    python -m benchmarks.convert                   # 4.3 GB made on the spot, converted and copied three times
    python -m benchmarks.convert --repeats 1 --layers 2

The release has Persimmon-8B's layers and a quarter of its vocabulary, as one file and shared out among two ranks. Each
conversion and each copy is a process of its own; they take turns, so that whatever else the machine does falls on
both. Both write to the same disk and wait until it has everything (fsync). The release is read once before each, so
that as much of it as there is memory for is in the page cache. Peak memory is the high-water mark of the resident set
less what was resident before: python, torch and this package.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import forget_the_peak, machine, resident, store

ROOT = Path(__file__).parents[1]
# What is converted: how the release is shared out, and the dtype that is written.
CASES = [("one file", 1, None), ("two ranks", 2, None), ("one file", 1, "float32")]
CONTENDERS = ("convert", "copy")


def convert_once(source: Path, out: Path, dtype: str | None) -> dict[str, float]:
    """Convert in this process, which has done nothing else."""
    import torch

    from persimmon_lab.adept.convert import convert

    torch.set_num_threads(1)
    before = resident("VmRSS")
    forget_the_peak()
    start, cpu = time.perf_counter(), time.process_time()
    converted = convert(source, out, dtype=getattr(torch, dtype) if dtype else None)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "gigabytes_written": converted.nbytes / 1e9,
        "peak_mb": (resident("VmHWM") - before) / 1e6,
    }


def copy_once(source: Path, out: Path) -> dict[str, float]:
    """Copy every file of a release, and wait for the disk."""
    start, cpu = time.perf_counter(), time.process_time()
    nbytes = 0
    for file in source.rglob("*.pt"):
        target = out / file.relative_to(source)
        target.parent.mkdir(parents=True)
        shutil.copyfile(file, target)
        with target.open("rb+") as written:
            os.fsync(written.fileno())
        nbytes += file.stat().st_size
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "gigabytes_written": nbytes / 1e9,
    }


def build(folder: Path, layers: int, ranks: int):
    """A random release with the layers of Persimmon-8B; its tensors lie in mapped files while they are made."""
    from tests.adept.releases import build_release

    scratch = folder.with_name(f"{folder.name}-scratch")
    build_release(folder, hidden=4096, mlp=16384, heads=64, layers=layers, vocab=65536, seq_length=16384,
                  tensor_parallel=ranks, tokenizer=None, scratch=scratch)  # fmt: skip
    shutil.rmtree(scratch)


def warm(folder: Path):
    for file in folder.rglob("*.pt"):
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass


def run(repeats: int, layers: int) -> list[dict]:
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "out")
        for form, ranks, dtype in CASES:
            release = Path(scratch, f"{ranks}-ranks")
            if not release.exists():
                build(release, layers, ranks)
            samples = {contender: [] for contender in CONTENDERS}
            for _ in range(repeats):
                for contender in CONTENDERS:
                    warm(release)
                    command = [sys.executable, "-m", "benchmarks.convert", "--measure", contender, str(release),
                               str(out), dtype or ""]  # fmt: skip
                    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
                    samples[contender].append(json.loads(output.splitlines()[-1]))
                    shutil.rmtree(out)
            rows.append({"release": form, "dtype": dtype or "as stored"} | summarise(samples))
            print(as_line(rows[-1]), flush=True)
    return rows


def summarise(samples: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    """Medians; speed is counted in bytes written, and the ratio is that of neighbours in time."""
    speeds = {c: [m["gigabytes_written"] / m["seconds"] for m in measured] for c, measured in samples.items()}
    converted = samples["convert"]
    return {
        "gigabytes_written": converted[0]["gigabytes_written"],
        "convert_gb_per_second": statistics.median(speeds["convert"]),
        "copy_gb_per_second": statistics.median(speeds["copy"]),
        "convert_over_copy": statistics.median(one / other for one, other in zip(speeds["convert"], speeds["copy"])),
        "convert_cpu_seconds_per_gb": statistics.median(m["cpu_seconds"] / m["gigabytes_written"] for m in converted),
        "peak_mb": max(m["peak_mb"] for m in converted),
    }


def as_line(row: dict) -> str:
    return (
        f"{row['release']:10} {row['dtype']:10} {row['gigabytes_written']:.1f} GB   convert "
        f"{row['convert_gb_per_second']:.2f} GB/s, copy {row['copy_gb_per_second']:.2f} GB/s, ratio "
        f"{row['convert_over_copy']:.2f}   {row['convert_cpu_seconds_per_gb']:.2f} s of computing a GB   peak "
        f"{row['peak_mb']:.0f} MB"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, default=8, help="of 0.4 GB each; embedding and head take 1.1 GB")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "convert.json")
    parser.add_argument("--measure", nargs=4, metavar=("CONTENDER", "RELEASE", "OUT", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        contender, release, out, dtype = arguments.measure
        paths = Path(release), Path(out)
        print(json.dumps(copy_once(*paths) if contender == "copy" else convert_once(*paths, dtype or None)))
        return
    result = {"date": datetime.date.today().isoformat(), "machine": machine(), "repeats": arguments.repeats}
    result["rows"] = run(arguments.repeats, arguments.layers)
    store(arguments.output, result)


if __name__ == "__main__":
    main()
