"""How many threads a step of decoding shares its products among: the one place where that is chosen."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from persimmon_lab.config import PersimmonConfig

FEW = 2**25  # numbers in the layers of a model; the products of a step of so small a one gain nothing from a team
LITTLE = 8  # positions, all rows together, that a small model reads as fast with one thread


def threads_for_steps(config: PersimmonConfig, device: torch.device, positions: int) -> int | None:
    """The number of threads to read so many positions with; None leaves it as it is.

    One for a small model on a CPU that reads few positions: its products are short, and a team that has to meet after
    each of them waits for whoever else uses a core (OpenMP's workers wait busily). In any thread but the main one,
    however much it reads: OpenMP makes a team for each thread that asks, so that beside the main thread's there would
    be more workers than cores, which sleep between products.

    Measured with persimmon-mini on two quiet cores: 178 tokens a second in another thread with two threads, 553 with
    one; in the main thread 554 and 537.
    """
    if device.type != "cpu":
        return None
    hidden = config.hidden_size
    numbers = config.num_hidden_layers * hidden * (4 * hidden + 2 * config.intermediate_size)
    is_elsewhere = threading.current_thread() is not threading.main_thread()
    return 1 if numbers <= FEW and (is_elsewhere or positions <= LITTLE) else None


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
