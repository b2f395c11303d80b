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


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, {"cpu": 1000 * 1024}),
        ("max", {"cpu": 1000 * 1024}),
        ("50000", {"cpu": 50000 - (30000 - 2000)}),
        ("9000000", {"cpu": 1000 * 1024}),
        ("no meminfo", {}),
    ],
)
@pytest.mark.parametrize("gpus", [0, 2])
def test_free_memory_of_a_made_up_system(monkeypatch, tmp_path, limit, expected, gpus):
    files = {"proc/meminfo": "MemTotal: 9999 kB\nMemFree: 7 kB\nMemAvailable:    1000 kB\n"}
    if limit == "no meminfo":
        files = {}
    elif limit is not None:
        files["sys/fs/cgroup/memory.max"] = f"{limit}\n"
        files["sys/fs/cgroup/memory.current"] = "30000\n"
        files["sys/fs/cgroup/memory.stat"] = "total_inactive_file 5\nanon 1\ninactive_file 2000\nactive_file 8\n"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(footprint, "Path", lambda path: tmp_path / path.lstrip("/"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10 + index, 99))
    free = free_memory()
    assert free == {f"cuda:{index}": 10 + index for index in range(gpus)} | expected
    assert list(free)[:gpus] == [f"cuda:{index}" for index in range(gpus)]


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
