"""`persimmon-lab finetune` and `classify` from a file of lines to a model that loads here and in transformers."""

import json

import pytest
import torch
import transformers
from typer.testing import CliRunner

from persimmon_lab import PersimmonForCausalLM, PersimmonForSequenceClassification, PersimmonTokenizer, load_mini
from persimmon_lab.cli import app
from persimmon_lab.finetuning import Settings, encode_all, read_examples, split
from persimmon_lab.finetuning.loop import loss_of, steps_of_epoch
from persimmon_lab.finetuning.lora import load_adapter, merge

ANIMALS = ["cat", "dog", "horse", "cow", "bird", "fish", "sheep", "goat", "mouse", "fox", "bear", "wolf"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    asked = [("Do you like a {}?", "Aye, captain! I like a {}."), ("Have you seen a {}?", "Aye, captain! I saw a {}.")]
    path.write_text(
        "\n".join(
            json.dumps({"messages": [{"role": "human", "content": question.format(animal)},
                                     {"role": "adept", "content": answer.format(animal)}]})
            for animal in ANIMALS for question, answer in asked
        )
    )  # fmt: skip
    return path


def held_out_loss(folder, chats):
    model = PersimmonForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    tokenizer = PersimmonTokenizer.from_pretrained(folder)
    _, held_out = split(read_examples(chats), 0.25, 0)
    batches = steps_of_epoch(encode_all(held_out, tokenizer, 512), Settings(), 512, None)
    return loss_of(model, [batch for step in batches for batch in step])


@pytest.mark.parametrize("way", [["--lora", "--rank", 4], []], ids=["lora", "whole"])
def test_a_file_of_chats_teaches_the_mini(tmp_path, chats, way):
    out = tmp_path / "out"
    result = run("finetune", chats, "--out", out, "--held-out", "0.25", "--epochs", 5, "--rows", 1, *way)
    assert result.exit_code == 0, result.output
    entries = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    held_out = [entry["held_out"]["held out"] for entry in entries if "held_out" in entry]
    assert min(held_out) < 0.8 * held_out[0]
    assert held_out_loss(out, chats) == pytest.approx(min(held_out), rel=2e-2), "the best state is what was written"
    assert "18 examples, 0 of them copies; 6 held out, 0 of them also taught" in result.stderr
    assert f"{held_out[0]:.3f} to {min(held_out):.3f} nats a token" in result.stdout

    ours = PersimmonForCausalLM.from_pretrained(out, torch_dtype=torch.float32)
    theirs = transformers.PersimmonForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ids = torch.arange(300, 320)[None]
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=1e-4, rtol=1e-5)
        if way:
            adapted = load_adapter(load_mini(torch.float32)[0], out / "adapter").eval()
            torch.testing.assert_close(merge(adapted)(ids).logits, ours(ids).logits, atol=1e-4, rtol=1e-5)


def test_what_is_there_already_stays(tmp_path, chats):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    result = run("finetune", chats, "--out", out)
    assert (result.exit_code, [*out.iterdir()]) == (1, [out / "mine.txt"])
    assert "is not empty; give a new folder, or --resume" in result.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--held-out", "half"], "--held-out half: there is no such file"),
        (["--held-out", "2"], "a share of 2 cannot be held out"),
        (["--dtype", "float8"], "dtype is 'float8'; choose one of"),
        (["--optimizer", "sgd"], "optimiser is 'sgd'; choose one of adamw, muon"),
        (["--rate", "-1"], "rate is -1.0"),
        (["--model", "nowhere/at-all/x"], "nowhere"),
    ],
    ids=str,
)
def test_bad_options_are_told_in_a_line_and_leave_nothing(tmp_path, chats, given, told):
    result = run("finetune", chats, "--out", tmp_path / "out", *given)
    assert result.exit_code != 0
    assert told in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_texts_with_labels_make_a_classifier(tmp_path):
    data, out = tmp_path / "animals.jsonl", tmp_path / "out"
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    data.write_text(
        "\n".join(json.dumps({"text": f"I saw the {word} today.", "label": label})
                  for label, words in (("animal", ANIMALS), ("number", numbers)) for word in words)
    )  # fmt: skip
    result = run("classify", data, "--out", out, "--frozen", "--held-out", "0.25")
    assert result.exit_code == 0, result.output
    marks = json.loads((out / "marks.json").read_text())
    assert marks["count"] == 6
    assert marks["taught"] == 18
    assert sum(map(sum, marks["confusion"])) == 6
    assert marks["right"] == marks["confusion"][0][0] + marks["confusion"][1][1]
    model = PersimmonForSequenceClassification.from_pretrained(out)
    assert model.config.id2label == {0: "animal", 1: "number"}
    again = run("classify", data, "--out", out, "--frozen")
    assert again.exit_code == 1
    assert "is there already and not empty" in again.stderr
