"""`persimmon-lab evaluate` from names to tables and reports, with the shipped model and a damaged copy of it."""

import json

import pytest
import torch
from typer.testing import CliRunner

from persimmon_lab import load_mini
from persimmon_lab.cli import app
from persimmon_lab.evaluation import Report, compare, five_gram


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture(autouse=True)
def few_lessons(monkeypatch):
    caches = five_gram.taught_texts, five_gram.taught_five_gram
    monkeypatch.setattr(five_gram, "lessons", lambda lessons=five_gram.lessons: lessons(100))
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def damaged(tmp_path):
    """A copy whose attention says nothing."""
    model, tokenizer = load_mini()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.dense.weight.zero_()
    model.save_pretrained(tmp_path / "damaged")
    tokenizer.save_pretrained(tmp_path / "damaged")
    return tmp_path / "damaged"


def test_two_models_are_asked_compared_and_written_down(tmp_path, damaged):
    out = tmp_path / "out"
    options = ("--tasks", "copying", "--limit", 8, "--alone", 0, "--out", out)
    result = run("mini", damaged, *options)
    assert result.exit_code == 0, result.output
    folders = sorted(path for path in out.iterdir() if path.is_dir())
    assert len(folders) == 2
    reports = {report.name: report for report in map(Report.load, folders)}
    mini, worse = reports["mini"], reports[str(damaged)]
    assert mini.tasks["copying"].score().right > worse.tasks["copying"].score().right
    [row] = [row for row in compare(mini, worse).rows if row.way == "generated"]
    for told in (f"{row.first:.1%}", f"{row.test.difference:+.1%}", f"{row.test.p:.2g}"):
        assert told in result.stdout
    score = mini.tasks["copying"].score()
    assert f"{score.right}/{score.count}" in result.stdout
    assert f"{score.low:.1%} to {score.high:.1%}" in result.stdout
    tables = (out / "tables.md").read_text()
    assert tables.count("## ") == 3
    assert f"| {score.right}/{score.count} |" in tables
    entry = json.loads((out / "mini" / "report.json").read_text())
    assert entry["settings"]["command"].startswith("persimmon-lab evaluate mini --tasks copying --limit 8 --seed 0")

    before = {path: path.read_bytes() for path in out.rglob("*.json")}
    refused = run("mini", damaged, *options)
    assert refused.exit_code == 1
    assert "has an evaluation already" in refused.stderr
    resumed = run("mini", damaged, *options, "--resume")
    assert (resumed.exit_code, resumed.stdout) == (0, result.stdout)
    assert {path: path.read_bytes() for path in out.rglob("*.json")} == before


def test_the_results_stand_on_the_card(tmp_path):
    card = tmp_path / "MODEL_CARD.md"
    card.write_text("# Mine\n\nAll about it.\n", encoding="utf-8")
    for seed in (0, 1):
        result = run("mini", "--tasks", "copying", "--limit", 4, "--alone", 0, "--seed", seed, "--card", card)
        assert result.exit_code == 0, result.output
        text = card.read_text(encoding="utf-8")
        assert text.startswith("# Mine\n\nAll about it.\n\n<!-- persimmon-lab evaluate: begin -->\nMade by `")
        assert f"evaluate mini --tasks copying --limit 4 --seed {seed} " in text
        assert text.count("## ") == text.count("Made by") == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<!-- persimmon-lab evaluate: begin -->", "it takes each once"),
        (b"\xff\xfe", "is no UTF-8 text"),
        (None, "does not exist"),
    ],
)
def test_a_card_that_cannot_take_them_is_refused_before_a_model_is_asked(tmp_path, monkeypatch, content, told):
    monkeypatch.setattr("persimmon_lab.cli.evaluate.load", lambda *_: pytest.fail("a model was loaded"))
    card = tmp_path / "MODEL_CARD.md"
    if content is not None:
        card.write_bytes(content)
    result = run("mini", "--card", card)
    assert result.exit_code != 0
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert content is None or card.read_bytes() == content


def test_a_file_of_ones_own_is_asked_with_examples(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [{"question": f"What is {n} plus 1?", "answer": str(n + 1), "choices": [str(n + 1), "0"]} for n in range(6)]
    path.write_text("\n".join(map(json.dumps, lines)))
    result = run("mini", "--tasks", path, "--limit", 3, "--shots", 2, "--alone", 1, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    task = Report.load(tmp_path / "out" / "mini").tasks["mine"]
    assert [one.item.shots for one in task.answered] == [2, 2, 2]
    assert task.asked_alone == 1
    asked = {one.item.prompt for one in task.answered}
    assert not any(prompt in one.item.context for prompt in asked for one in task.answered)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["mini", "--tasks", "summs"], "there is no task 'summs'; choose among facts"),
        (["mini", "--tasks", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
        (["mini", "mini"], "two models of one name"),
        (["mini", "--resume"], "say which one: --out FOLDER"),
        (["mini", "nowhere/at-all/x"], "nowhere"),
        (["mini", "--limit", "0"], "--limit"),
        ([], "MODEL"),
    ],
    ids=str,
)
def test_bad_options_are_told_in_a_line_or_three_and_leave_nothing(tmp_path, given, told):
    result = run(*given, *([] if "--resume" in given or not given else ["--out", tmp_path / "out"]))
    assert result.exit_code != 0
    assert told in result.stderr
    assert len(result.stderr.splitlines()) <= 3
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_line_that_is_no_question_is_told_with_its_number(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n{"question": "a"}\n')
    result = run("mini", "--tasks", path)
    assert result.exit_code == 1
    assert f"{path}, line 2: answer is None" in "".join(result.stderr.splitlines())
