"""The machine that a benchmark ran on, the memory of the process that runs it, and the file of its results."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from persimmon_lab.atomic import write_atomically


def machine(packages: tuple[str, ...] = ("torch", "safetensors", "transformers")) -> dict:
    """What a result is stored with; `packages` are those whose versions matter."""
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())  # fmt: skip
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": platform.platform(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
    } | {name: version(name) for name in packages}


def store(path: Path, results: dict):
    """Write results whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, (json.dumps(results, indent=1) + "\n").encode("utf-8"))


def resident(field: str) -> int:
    """Bytes, from Linux's account of this process: VmRSS is resident now, VmHWM at most so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def forget_the_peak():
    """Start the high-water mark afresh."""
    Path("/proc/self/clear_refs").write_text("5")
