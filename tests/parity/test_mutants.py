"""The parity cases are worth something: they catch every planted bug of mutants.py."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_planted_bug_is_caught(report_table):
    command = [sys.executable, "-m", "tests.parity.mutants"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    report_table("Planted bugs and the parity case that catches each", [{"bug": bug, "case": by} for bug, by in rows])
    assert done.returncode == 0, done.stderr
