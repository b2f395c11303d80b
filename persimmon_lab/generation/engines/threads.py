"""How many threads a step of decoding shares its products among: the one place where that is chosen."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from persimmon_lab.config import PersimmonConfig

FEW = 2**25  # numbers in the layers of a model; the products of a step of so small a one gain nothing from a team


def threads_for_steps(config: PersimmonConfig, device: torch.device) -> int | None:
    """The number of threads for the steps of a model; None leaves it as it is.

    One for a small model on a CPU in any thread but the main one. OpenMP makes a team of workers for each thread that
    asks; beside the main thread's there are then more workers than cores, and they sleep between products. Measured
    with persimmon-mini on two cores: 178 tokens a second in another thread with two threads, 553 with one; in the main
    thread 554 and 537.
    """
    if device.type != "cpu" or threading.current_thread() is threading.main_thread():
        return None
    hidden = config.hidden_size
    numbers = config.num_hidden_layers * hidden * (4 * hidden + 2 * config.intermediate_size)
    return 1 if numbers <= FEW else None


@contextmanager
def working_threads(count: int | None) -> Iterator[None]:
    """Let torch's products in this thread be shared among so many, and as before afterwards; None changes nothing."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
