"""Bytes of a pass by hand (fitting/test_memory.py counts the tensors of a real one), and what a made-up machine has."""

import pytest
import torch

from persimmon_lab import PersimmonConfig, footprint
from persimmon_lab.footprint import activation_bytes, cache_bytes, free_memory, in_bytes


@pytest.mark.parametrize(
    ("changes", "dtype", "positions", "batch", "keep", "expected"),
    [
        ({}, torch.float32, 10, 2, 1, (5 * 64 + 3 * 256) * 20 * 4),  # the MLP
        ({"intermediate_size": 64}, torch.bfloat16, 10, 2, 1, 9 * 64 * 20 * 2),  # attention
        ({"attn_implementation": "eager"}, torch.bfloat16, 100, 2, 1, 9 * 64 * 200 * 2 + 4 * 200 * 100 * (4 + 8)),
        ({"attn_implementation": "eager"}, torch.float64, 100, 1, 1, 9 * 64 * 100 * 8 + 4 * 100 * 100 * (16 + 16)),
        ({"attn_implementation": "eager"}, torch.float32, 1, 1, 1, (5 * 64 + 3 * 256) * 4),
        ({"vocab_size": 3000}, torch.float32, 2, 3, 1, 4 * 64 * 6 * 4 + 3000 * (3 * 4 + 3)),
        ({"vocab_size": 1000}, torch.bfloat16, 2, 3, 9, 4 * 64 * 6 * 2 + 1000 * (6 * 2 + 3 * 5)),
        ({"vocab_size": 1000}, torch.bfloat16, 2, 3, 0, 4 * 64 * 6 * 2 + 1000 * (6 * 2 + 3 * 5)),
    ],
)
def test_activations_by_hand(changes, dtype, positions, batch, keep, expected):
    assert activation_bytes(PersimmonConfig.tiny(**changes), dtype, positions, batch, keep) == expected


def test_one_row_and_its_last_logits_are_what_is_meant():
    config = PersimmonConfig.tiny(vocab_size=5000)
    assert activation_bytes(config, torch.float32, 7) == activation_bytes(config, torch.float32, 7, 1, 1)
    assert cache_bytes(config, torch.bfloat16, 7) == cache_bytes(config, torch.bfloat16, 7, 1) == 2 * 2 * 64 * 7 * 2
    assert cache_bytes(config, torch.float32, 7, 3) == 2 * 2 * 64 * 7 * 3 * 4


def stat(version: int, limit: int | str, used: int = 30_000) -> dict[str, str]:
    """A group's files, of which 2,000 bytes of `used` are files that were read."""
    names = {1: ("limit_in_bytes", "usage_in_bytes"), 2: ("max", "current")}[version]
    account = {1: "inactive_file 5\ntotal_inactive_file 2000\n", 2: "total_inactive_file 5\ninactive_file 2000\n"}
    return {
        f"memory.{names[0]}": f"{limit}\n",
        f"memory.{names[1]}": f"{used}\n",
        "memory.stat": f"anon 1\n{account[version]}active_file 8\n",
    }


V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"
MEMINFO = {"proc/meminfo": "MemTotal: 9999 kB\nMemFree: 7 kB\nMemAvailable:    1000 kB\n"}


@pytest.mark.parametrize(
    ("own", "groups", "expected"),
    [
        (None, {}, 1_024_000),
        (None, {V2: stat(2, "max")}, 1_024_000),
        (None, {V2: stat(2, 50_000)}, 22_000),
        (None, {V2: stat(2, 9_000_000)}, 1_024_000),
        ("0::/\n", {V2: stat(2, 50_000)}, 22_000),
        ("0::/user/app\n", {f"{V2}/user/app": stat(2, 60_000)}, 32_000),  # systemd-run -p MemoryMax
        ("0::/user/app\n", {f"{V2}/user/app": stat(2, "max"), f"{V2}/user": stat(2, 40_000)}, 12_000),
        ("0::/user/app\n", {f"{V2}/other": stat(2, 40_000)}, 1_024_000),
        ("0::/user/app\n", {V2: stat(2, 40_000)}, 12_000),  # a container that sees its own group as the top
        ("4:memory:/box/1\n3:cpuset:/\n0::/\n", {f"{V1}/box/1": stat(1, 45_000)}, 17_000),
        ("4:cpu,memory:/box\n", {V1: stat(1, 9223372036854771712), f"{V1}/box": stat(1, 45_000)}, 17_000),
        ("3:cpuset:/box\n0::/\n", {f"{V1}/box": stat(1, 45_000)}, 1_024_000),
    ],
)
@pytest.mark.parametrize("gpus", [0, 2])
def test_free_memory_of_a_made_up_system(monkeypatch, tmp_path, own, groups, expected, gpus):
    files = MEMINFO | {f"{group}/{name}": text for group, files in groups.items() for name, text in files.items()}
    if own is not None:
        files["proc/self/cgroup"] = own
    make_up(monkeypatch, tmp_path, files, gpus)
    free = free_memory()
    assert free == {f"cuda:{index}": 10 + index for index in range(gpus)} | {"cpu": expected}
    assert list(free)[:gpus] == [f"cuda:{index}" for index in range(gpus)]


def test_free_memory_where_the_system_does_not_say(monkeypatch, tmp_path):
    make_up(monkeypatch, tmp_path, {}, gpus=0)
    assert free_memory() == {}
    assert footprint.free_on("cpu") is None


def make_up(monkeypatch, folder, files, gpus):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(footprint, "Path", lambda path: folder / path.lstrip("/"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10 + index, 99))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1536, "1.54 kB"),
        (8_400_000, "8.4 MB"),
        (18_800_000_000, "18.8 GB"),
        (1.5e12, "1.5 TB"),
    ],
)
def test_bytes_for_people(size, text):
    assert in_bytes(size) == text
