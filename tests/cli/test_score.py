"""`persimmon-lab score`: numbers equal transformers', and what cannot be scored is told."""

import json
import math

import pytest
import torch
import transformers
from typer.testing import CliRunner

from persimmon_lab.cli import app
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer

TEXT = "Shall I compare thee to a summer's day? Thou art more lovely: ¿qué?\n"


def run(*arguments, given=None):
    return CliRunner().invoke(app, ["score", *map(str, arguments)], input=given)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sonnet.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_it_is_what_transformers_says(file):
    found = json.loads(run(file, "--json", "--dtype", "float32").output)
    tokenizer = PersimmonTokenizer.from_pretrained(MINI)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(TEXT, add_special_tokens=False)]])
    theirs = transformers.PersimmonForCausalLM.from_pretrained(MINI, dtype=torch.float32).eval()
    with torch.no_grad():
        log_probabilities = theirs(ids).logits[0, :-1].double().log_softmax(dim=-1)
    nats = -float(log_probabilities.gather(-1, ids[0, 1:, None]).sum())
    assert found["nats"] == pytest.approx(nats, rel=1e-5)
    assert found["tokens"] == ids.shape[1] - 1
    assert found["bytes"] == len(TEXT.encode())
    assert found["nats_per_token"] == pytest.approx(nats / found["tokens"], rel=1e-5)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"], rel=1e-5)


def test_a_long_text_is_read_in_windows_and_no_token_is_left_out(tmp_path):
    path = tmp_path / "long.txt"
    path.write_text(TEXT * 60, encoding="utf-8")
    once = json.loads(run(path, "--json").output)
    assert once["tokens"] > 512
    assert once["bytes"] == 60 * len(TEXT.encode())
    path.write_text(TEXT, encoding="utf-8")
    alone = json.loads(run(path, "--json").output)
    assert once["bits_per_byte"] < 0.8 * alone["bits_per_byte"], "it says the same again and again"


def test_a_table_of_files_and_lines(file):
    told = run(file, "--lines", "-", given="And God said\n\nLet there be light\n")
    assert told.exit_code == 0
    for name in (":1", "-:1", "-:3", "bits per byte"):
        assert name in told.output
    assert "-:2" not in told.output


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "has no text to score"), (b"\xff\xfe", "is not UTF-8 text: invalid start byte at byte 0")],
)
def test_what_cannot_be_scored_is_told(tmp_path, content, told):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    result = run(path)
    assert result.exit_code != 0
    assert told in result.output
    assert "Traceback" not in result.output


def test_a_missing_file_is_told(tmp_path):
    result = run(tmp_path / "none.txt")
    assert result.exit_code != 0 and "none.txt" in result.output


def test_lines_of_a_file_without_any_are_told(tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n", encoding="utf-8")
    result = run("--lines", tmp_path / "blank.txt")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "blank.txt has no line to score" in result.stderr


def test_windows_files_score_the_same(tmp_path):
    plain, windows = tmp_path / "a.txt", tmp_path / "b.txt"
    plain.write_bytes(b"The king said.\nThe queen went home.\n")
    windows.write_bytes(b"\xef\xbb\xbfThe king said.\r\nThe queen went home.\r\n")
    for options in ([], ["--lines"]):
        told = [run(path, *options).stdout.replace(path.name, "file") for path in (plain, windows)]
        assert told[0] == told[1] != ""
