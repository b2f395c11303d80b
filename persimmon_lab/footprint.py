"""Bytes that a forward pass needs besides the weights, bytes that are free, and bytes as people read them."""

import re
from collections.abc import Iterator
from pathlib import Path

import torch

from persimmon_lab.config import PersimmonConfig

Device = str | int  # "cuda:0" or 0, "cpu", "disk": accelerate's names
# Where a version of Linux's control groups is mounted; what it calls its limit, its use, and files it may give back.
GROUP_FILES = {
    1: ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
}


def cache_bytes(config: PersimmonConfig, dtype: torch.dtype, positions: int, batch: int = 1) -> int:
    """Bytes of the key/value cache: 2 * layers * hidden numbers for every position of every row."""
    return 2 * config.num_hidden_layers * config.hidden_size * positions * batch * dtype.itemsize


def activation_bytes(
    config: PersimmonConfig, dtype: torch.dtype, positions: int, batch: int = 1, logits_to_keep: int = 1
) -> int:
    """The most that a forward pass over `positions` new positions holds at once, besides weights and cache.

    The largest of three, in numbers per position, with h the hidden size and m the MLP's width:

    - the MLP: 5h + 3m, five tensors as wide as the residual stream, and the neurons before, in and after their square;
    - attention: 9h while it rotates; and in eager its scores and the pattern of the layer before, in `dtype`, and twice
      in (at least) float32 within the softmax;
    - the logits: 4h and those that are kept (0 keeps all), one of them looked at in float32 by greedy generation.

    Without gradients. Kernels' workspaces, the allocator's rounding and the CUDA context (half a GB) come on top.
    Source: counted on a forward pass in tests/fitting/test_memory.py.
    """
    rows, hidden = batch * positions, config.hidden_size
    mlp = (5 * hidden + 3 * config.intermediate_size) * rows
    attention = 9 * hidden * rows
    layer = max(mlp, attention) * dtype.itemsize
    if config.attn_implementation == "eager":
        softmax = max(dtype.itemsize, torch.float32.itemsize)
        scores = config.num_attention_heads * rows * positions * (2 * dtype.itemsize + 2 * softmax)
        layer = max(layer, attention * dtype.itemsize + scores)
    logit_rows = rows if logits_to_keep == 0 else batch * min(logits_to_keep, positions)
    bytes_of_a_check = 1 if dtype == torch.float32 else torch.float32.itemsize + 1
    logits = config.vocab_size * (logit_rows * dtype.itemsize + batch * bytes_of_a_check)
    return max(layer, 4 * hidden * rows * dtype.itemsize + logits)


def in_bytes(size: int | float, _: object = None) -> str:
    """1_540_000_000 -> "1.54 GB": powers of a thousand, as memory and disks are sold, and three digits at the most. The
    second argument is the place of a tick, for matplotlib."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.3g} bytes"


def free_memory() -> dict[Device, int]:
    """Bytes free now, on the GPUs in their order and then on "cpu", where the system can say."""
    gpus = range(torch.cuda.device_count())
    free: dict[Device, int] = {f"cuda:{index}": torch.cuda.mem_get_info(index)[0] for index in gpus}
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free["cpu"] = int(lines["MemAvailable"].split()[0]) * 1024
    if left := list(_left_to_groups()):
        free["cpu"] = min([*left, *([free["cpu"]] if "cpu" in free else [])])
    return free


def _left_to_groups() -> Iterator[int]:
    """What each of Linux's control groups that this process is in may still take: a container, or a limit of systemd,
    may be allowed less than the machine has. Files that were read count as used until room is needed."""
    own_groups = Path("/proc/self/cgroup")
    lines = own_groups.read_text().splitlines() if own_groups.exists() else ["0::/"]
    for _, controllers, inside in (line.split(":", 2) for line in lines):
        version = 2 if not controllers else 1
        if version == 1 and "memory" not in controllers.split(","):
            continue
        mount, limit, used, cached = GROUP_FILES[version]
        top = Path(mount)
        group = top / inside.strip("/")
        for folder in [group, *group.parents[: len(group.parts) - len(top.parts)]]:
            if (folder / limit).exists() and (most := (folder / limit).read_text().strip()) != "max":
                files = re.search(rf"^{cached} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
                yield int(most) - int((folder / used).read_text()) + (int(files[1]) if files else 0)


def free_on(device: torch.device | str) -> int | None:
    """Bytes free on a device now, with those that torch keeps there unused; None where the system does not say."""
    device = torch.device(device)
    if device.type != "cuda":
        return free_memory().get(device.type)
    index = torch.cuda.current_device() if device.index is None else device.index
    free = free_memory().get(f"cuda:{index}")
    return None if free is None else free + torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
