"""What the tests' own process takes of this machine's memory, from Linux's account."""

from pathlib import Path


def start_afresh() -> int:
    """Bytes resident now; the high-water mark starts from here."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def taken(before: int) -> int:
    """The most bytes that were resident since `start_afresh` gave `before`, beyond those."""
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024
