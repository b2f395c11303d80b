"""The lesson of the benchmark of fine-tuning: what is taught, and what is written down; nothing depends on a time."""

import json

import pytest

from benchmarks import finetuning
from persimmon_lab.finetuning.examples import count_duplicates, count_overlap, split

pytest.importorskip("peft")


def test_all_conversations_differ_and_none_is_held_out_and_taught():
    examples = finetuning.conversations()
    assert (len(examples), count_duplicates(examples)) == (finetuning.ASKED, 0)
    training, held_out = split(examples, finetuning.SHARE, seed=0)
    assert (len(training), len(held_out), count_overlap(training, held_out)) == (160, 40, 0)


@pytest.mark.parametrize("count", [-1, 0, 1, 201])
def test_more_than_there_are_is_refused(count):
    with pytest.raises(ValueError, match=f"{count} conversations; there are 2 to 200"):
        finetuning.conversations(count)


def test_what_was_measured_is_written_down(tmp_path, capsys):
    finetuning.main(["--conversations", "10", "--epochs", "1", "--rank", "2", "--out", str(tmp_path / "results.json")])
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["conversations"], found["taught"], found["settings"]["rank"]) == (10, 8, 2)
    assert found["fell_by"] == pytest.approx(1 - found["after"] / found["before"])
    assert f"held-out loss {found['before']:.3f} to {found['after']:.3f} nats a token" in capsys.readouterr().out
