"""What training wrote and somebody changed since: refused in a line that names the file."""

import pytest
import torch

from persimmon_lab.training.conversation import read_judgement
from persimmon_lab.training.history import History
from persimmon_lab.training.trainer import load_state, read_metrics

DEEP = "[" * 100_000
READERS = {"history": History.read, "judgement": lambda path: read_judgement(path, [["Hi."]])}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("content", "told"),
    [(DEEP.encode(), "nested too deep"), (b"\xff", "is not JSON"), (b"", "is not JSON"), (b"[1]", "holds a list")],
)
def test_a_file_that_is_no_object_is_named(tmp_path, read, content, told):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=told) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_log_that_is_nested_too_deep_is_named_and_one_cut_short_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [entry["step"] for entry in read_metrics(path)] == [1, 2]
    path.write_text(f'{{"step": 1}}\n{DEEP}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: it is nested too deep"):
        [*read_metrics(path)]


@pytest.mark.parametrize("line", ['{"a": 1}', "[1]", '{"step": "x"}'])
def test_a_line_of_no_step_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: .* is no entry of a step"):
        [*read_metrics(path)]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"cut", b"another"])
def test_a_checkpoint_that_is_none_is_named(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 3} if content == b"another" else {"step": 3, "identity": {}, "masters": {}}, path)
    if content == b"cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif content != b"another":
        path.write_bytes(content)
    with pytest.raises(ValueError, match="is no whole checkpoint .*delete it to begin again") as error:
        load_state(path, torch.device("cpu"))
    assert str(path) in str(error.value) and "\n" not in str(error.value)
