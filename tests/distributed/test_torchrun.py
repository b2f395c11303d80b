"""The lines that a person types under torchrun, and what is left when a process is killed: nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persimmon_lab import load_mini
from persimmon_lab.distributed.launching import TORCHRUN, launch
from persimmon_lab.distributed.states import last_checkpoint

PROMPT = "The king said that"


def children(pid):
    """The processes that a process has started and that live, by Linux's account."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except OSError:
        return ""


def test_two_processes_write_one_text_and_it_is_that_of_one():
    launched = launch(["-m", "persimmon_lab", "generate", PROMPT, "--device", "cpu", "--max-new-tokens", "8"])
    assert launched.status == 0, launched.errors
    model, tokenizer = load_mini(torch_dtype="auto")
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    alone = model.generate(ids, max_new_tokens=8, engine="plain")[0, ids.shape[1] :]
    assert launched.output.split() == tokenizer.decode(alone, skip_special_tokens=True).split()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes by Linux's account of them")
def test_a_killed_rank_takes_the_others_along_and_is_named(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"The {n} kings went to the {n + 1} rivers, and it rained." * 6 for n in range(90)))
    out = tmp_path / "out"
    line = [*TORCHRUN, "--nproc-per-node=2", "-m", "persimmon_lab", "train", "text", str(text), "--out", str(out),
            "--hidden", "32", "--layers", "1", "--context", "32", "--steps", "100000"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as torchrun:
        try:
            deadline = time.monotonic() + 100
            while last_checkpoint(out / "run") is None and torchrun.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            ranks = [pid for pid in children(torchrun.pid) if "persimmon_lab" in command_line(pid)]
            assert len(ranks) == 2, torchrun.communicate(timeout=10)
            os.kill(max(ranks), signal.SIGKILL)
            output, errors = torchrun.communicate(timeout=60)
        finally:
            torchrun.terminate()
    assert torchrun.returncode != 0
    assert "Signal 9 (SIGKILL)" in errors
    assert not [pid for pid in ranks if "persimmon_lab" in command_line(pid)]
    assert last_checkpoint(out / "run") is not None and not (out / "model.safetensors").exists()


SLEEPER = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1], str(os.getpid())).touch(); time.sleep(600)"


def test_what_takes_too_long_is_ended_with_all_its_processes(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    (tmp_path / "pids").mkdir()

    with pytest.raises(TimeoutError, match=r"sleeper\.py .* on 2 processes took more than"):
        launch([str(script), str(tmp_path / "pids")], patience=12.0)
    started = [int(path.name) for path in (tmp_path / "pids").iterdir()]
    assert not [pid for pid in started if "sleeper.py" in command_line(pid)]


def test_the_module_is_the_command():
    result = subprocess.run([sys.executable, "-m", "persimmon_lab", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "persimmon-lab" in result.stdout and "finetune" in result.stdout
