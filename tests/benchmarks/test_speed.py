"""The benchmark's logic, on made-up numbers, and one case from beginning to end; nothing here depends on a time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import cases, quiet, rounds, speed, table

ROOT = Path(__file__).parents[2]


def write_proc(proc: Path, busy: int, own: int, steal: int = 0):
    """A machine whose CPUs have worked `busy` ticks, `own` of them for process 7 with its awkward name."""
    (proc / "7").mkdir(parents=True, exist_ok=True)
    (proc / "stat").write_text(f"cpu  {busy} 0 0 999 50 0 0 {steal} 0 0\ncpu0 1 1\n")
    (proc / "7" / "stat").write_text(f"7 (a ) (b) S 1 7 7 0 -1 0 0 0 0 0 {own - 1} 1 0 0 20 0")


@pytest.mark.parametrize(
    ("others", "steal", "contended"), [(0, 0, False), (3, 0, False), (5, 0, True), (0, 5, True), (90, 0, True)]
)
def test_the_time_of_others_marks_a_sample(tmp_path, others, steal, contended):
    write_proc(tmp_path, busy=1000, own=100)
    own = 70
    work = lambda: write_proc(tmp_path, 1000 + own + others, 100 + own, steal) or "done"  # noqa: E731
    sample = quiet.watched(work, [7, 8], tmp_path)  # 8 has ended
    assert sample.answer == "done"
    assert sample.others == pytest.approx((others + steal) / quiet.TICKS)
    assert sample.contended is contended


def test_a_long_sample_tolerates_a_share():
    assert not quiet.Sample(None, seconds=10.0, others=0.49).contended
    assert quiet.Sample(None, seconds=10.0, others=0.51).contended


@pytest.mark.parametrize(("disturbances", "taken", "thrown"), [([9, 0], 1, 1), ([0], 0, 0), ([90, 9, 30], 1, 2)])
def test_disturbed_samples_are_taken_again_and_the_quietest_kept(tmp_path, disturbances, taken, thrown):
    busy, count = 1000, iter(range(9))
    write_proc(tmp_path, busy, 100)

    def work():
        nonlocal busy
        index = next(count)
        busy += disturbances[index]
        write_proc(tmp_path, busy, 100)
        quiet.time.sleep(0.002)
        return index

    sample, bad = quiet.quiet_sample(work, [7], retries=2, proc=tmp_path, pause=0.0)
    assert (sample.answer, bad) == (taken, thrown)
    assert sample.contended is (disturbances[taken] > 0)


CASE = {
    "size": "M",
    "dtype": "bfloat16",
    "device": "cpu",
    "kind": "decode",
    "arguments": {"batch": 1, "prompt": 16, "new": 32},
    "contenders": ["ours", table.SDPA],
}


def answers(*pairs: tuple[float, float]) -> list[dict]:
    limits = {"bandwidth": 40e9, "matrix": 900e9}
    return [
        {"ours": {"rate": a, "first": 0.1}, table.SDPA: {"rate": b, "first": 0.3}, "limits": limits} for a, b in pairs
    ]


def test_the_ratio_is_the_median_of_the_rounds():
    """The machine slows down threefold in the middle: a ratio of medians would say 80 / 30."""
    found = rounds.summary(CASE, answers((90.0, 50.0), (30.0, 15.0), (80.0, 30.0)))
    assert found["rates"] == {"ours": 80.0, table.SDPA: 30.0}
    assert found["ratios"] == {table.SDPA: 2.0}
    assert found["first_token"] == {"ours": 0.1, table.SDPA: 0.3}


def test_the_limit_is_memory_for_one_row_and_arithmetic_for_a_prompt():
    limits = {"bandwidth": 40e9, "matrix": 900e9}
    config = cases.PersimmonConfig(**cases.SIZES["M"])
    moved = cases.bytes_per_step(config, torch.bfloat16, 32, 1)
    assert cases.limit_rate(CASE, limits) == pytest.approx(40e9 / moved)
    prompt = CASE | {"kind": "prefill", "arguments": {"length": 2048}}
    assert cases.limit_rate(prompt, limits) == pytest.approx(2048 * 900e9 / cases.flops(config, 2048))


class Scripted:
    """A contender that answers or refuses as it is told."""

    def __init__(self, *answers):
        self.answers, self.asked = iter(answers), 0
        self.process = type("Process", (), {"pid": 1})

    def ask(self, task, **arguments):
        self.asked += 1
        answer = next(self.answers)
        if isinstance(answer, str):
            raise rounds.Refused(answer)
        return {"rate": answer, "first": 0.1}


@pytest.fixture
def undisturbed(monkeypatch):
    monkeypatch.setattr(rounds, "quiet_sample", lambda work, pids, retries: (quiet.Sample(work(), 1.0, 0.0), 0))


def test_the_first_round_warms_up_and_who_refuses_is_asked_no_more(undisturbed):
    workers = {"ours": Scripted(1.0, 10.0, 30.0), table.SDPA: Scripted("no memory")}
    result = rounds.measure(CASE, workers, budget=0.0, fewest=2)
    assert result["refused"] == {table.SDPA: "no memory"}
    assert workers[table.SDPA].asked == 1
    assert result["rates"] == {"ours": 20.0} and result["rounds"] == 2


def test_rounds_go_on_within_the_budget(undisturbed):
    workers = {"ours": Scripted(*range(1, 20))}
    assert rounds.measure(CASE, workers, budget=60.0, fewest=2)["rounds"] == rounds.MOST


def test_a_long_round_counts_and_two_are_enough(undisturbed, monkeypatch):
    monkeypatch.setattr(rounds, "LONG_ROUND", 0.0)
    workers = {"ours": Scripted(10.0, 30.0)}
    assert rounds.measure(CASE, workers, budget=0.0, fewest=3)["rates"] == {"ours": 20.0}


def test_a_case_that_everyone_refuses_ends(undisturbed):
    result = rounds.measure(CASE, {"ours": Scripted("no")}, budget=60.0)
    assert result["rates"] == result["ratios"] == result["limits"] == {} and result["rounds"] == 0
    assert not speed.is_measured(result) and "ours: no" in speed.line(result)


def test_limits_stand_beside_what_they_limit(undisturbed):
    workers = {"ours": Scripted(*[1.0] * 9), rounds.LIMITS: Scripted(*[0.0] * 9)}
    rounds.measure(CASE | {"kind": "widget"}, workers, budget=0.0, fewest=1)
    assert workers[rounds.LIMITS].asked == 0


def test_a_case_from_beginning_to_end_and_not_twice(tmp_path):
    output = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks.speed", "--sizes", "tiny", "--dtypes", "float32", "--only", "decode",
               "--quick", "--contenders", "ours", "--threads", "1", "--output", output]  # fmt: skip
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    cases = json.loads(output.read_text())["cases"]
    [(name, case)] = cases.items()
    assert name == "cpu tiny float32 decode batch=1 prompt=16 new=32"
    assert case["rates"]["ours"] > 0 and case["of_limit"]["ours"] > 0 and not case["refused"]
    assert {"torch", "cpu", "python"} <= case["machine"].keys()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "0 cases" in again.stdout
    assert json.loads(output.read_text())["cases"] == cases
    assert list(tmp_path.iterdir()) == [output]


def test_what_everyone_refused_is_measured_again():
    assert not speed.is_measured(None)
    assert not speed.is_measured({"rates": {}, "refused": {"ours": "no"}})
    assert speed.is_measured({"rates": {"ours": 1.0}}) and speed.is_measured({"answers": {"ours": {}}})


def test_results_become_tables_and_a_picture(tmp_path):
    samples = answers((70.0, 50.0), (75.0, 50.0))
    case = CASE | rounds.summary(CASE, samples) | {"samples": samples, "refused": {}}
    results = tmp_path / "speed.json"
    results.write_text(json.dumps({"cases": {"a": case}}))
    (tmp_path / "benchmarks").mkdir()
    page = tmp_path / "benchmarks" / "README.md"
    page.write_text("before\n<!-- speed -->\nold\n<!-- /speed -->\n<!-- goals -->\n<!-- /goals -->\nafter\n")
    for _ in range(2):
        table.render(results, tmp_path, tmp_path / "roofline.png", tmp_path / "speed.png")
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| M bfloat16 | decode, batch 1, after 16 | 72 | 1.45 |  |  |" in text
    assert "| ours, M bfloat16 decode 1, against transformers 5 sdpa | 1.6 | 1.45 | **not met** |" in text
    assert "| ours, M float32 decode 1, against transformers 5 sdpa | 1.8 |  | not measured |" in text
    assert text.count("| model |") == 1
    for name in ("roofline.png", "speed.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
