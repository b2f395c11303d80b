"""Samples that other processes disturbed are recognised by the CPU time those took, thrown away and taken again."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")  # of the kernel's accounts, usually 100 a second
TOLERATED = 0.05  # of one core
RESOLUTION = 0.04  # seconds: a few ticks, for the accounts of different processes are not kept at one moment
RETRIES = 4
PAUSE = 0.5  # seconds, until whatever it was may be over


def busy_seconds(proc: Path = PROC) -> float:
    """CPU time that all processes together have had since the start, and what a virtual machine's host took from it."""
    fields = (proc / "stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / TICKS


def own_seconds(pids: list[int], proc: Path = PROC) -> float:
    """CPU time of these processes with all their threads; of one that has ended, nothing."""
    total = 0
    for pid in pids:
        try:
            # The command's name stands in parentheses and may hold anything, spaces and parentheses too.
            fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


@dataclass
class Sample:
    """A measurement, how long it took, and the CPU seconds that others had meanwhile."""

    answer: Any
    seconds: float
    others: float

    @property
    def contended(self) -> bool:
        return self.others > max(TOLERATED * self.seconds, RESOLUTION)


def watched(work: Callable[[], Any], pids: list[int], proc: Path = PROC) -> Sample:
    """Do the work, of which the processes `pids` are a part."""
    start, busy, own = time.perf_counter(), busy_seconds(proc), own_seconds(pids, proc)
    answer = work()
    seconds = time.perf_counter() - start
    others = (busy_seconds(proc) - busy) - (own_seconds(pids, proc) - own)
    return Sample(answer, seconds, max(others, 0.0))


def quiet_sample(
    work: Callable[[], Any], pids: list[int], retries: int = RETRIES, proc: Path = PROC, pause: float = PAUSE
) -> tuple[Sample, int]:
    """The first sample that nobody disturbed, and how many were thrown away; after `retries`, the least disturbed."""
    samples = [watched(work, pids, proc)]
    while samples[-1].contended and len(samples) <= retries:
        time.sleep(pause)
        samples.append(watched(work, pids, proc))
    best = min(samples, key=lambda sample: (sample.contended, sample.others / max(sample.seconds, 1e-9)))
    return best, len(samples) - 1
