"""`persimmon-lab finetune` and `classify` from a file of lines to a model that loads here and in transformers."""

import json
import math
import sys

import pytest
import torch
import transformers
from typer.testing import CliRunner

from persimmon_lab import PersimmonForCausalLM, PersimmonForSequenceClassification, PersimmonTokenizer, load_mini
from persimmon_lab.cli import app
from persimmon_lab.cli import finetune as command
from persimmon_lab.finetuning import Settings, encode_all, read_examples, split
from persimmon_lab.finetuning.learner import loss_of
from persimmon_lab.finetuning.lora import load_adapter, merge
from persimmon_lab.finetuning.steps import steps_of_epoch

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


def test_a_run_that_ended_before_its_first_checkpoint_goes_on(tmp_path, chats):
    out = tmp_path / "out"
    (out / "run").mkdir(parents=True)
    asked = ["finetune", chats, "--out", out, "--lora", "--epochs", "1"]
    assert "is not empty; give a new folder, or --resume" in run(*asked).stderr
    result = run(*asked, "--resume")
    assert result.exit_code == 0, result.stderr
    assert (out / "run" / "checkpoint.pt").is_file()


@pytest.mark.parametrize("more", [[], ["--resume"]])
def test_a_file_in_the_place_of_the_folder_stays(tmp_path, chats, more):
    out = tmp_path / "out"
    out.write_text("mine")
    result = run("finetune", chats, "--out", out, *more)
    assert (result.exit_code, out.read_text()) == (1, "mine")
    assert len(result.stderr.splitlines()) == 1
    assert ("is a file; give the name of a folder" in result.stderr) != bool(more)


@pytest.mark.parametrize("command_name", ["finetune", "classify"])
def test_a_link_that_leads_nowhere_is_no_place(tmp_path, chats, labelled, command_name):
    """Found out after the training, its result would be lost."""
    out = tmp_path / "out"
    out.symlink_to(tmp_path / "gone")
    result = run(command_name, {"finetune": chats, "classify": labelled}[command_name], "--out", out)
    assert result.exit_code == 1
    assert "is a link that leads nowhere" in result.stderr


def test_an_output_without_a_name_is_refused(chats):
    result = run("finetune", chats, "--out", "")
    assert result.exit_code == 2
    assert "the name is empty" in result.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--held-out", "half"], "--held-out half: there is no such file"),
        (["--held-out", "2"], "a share of 2 cannot be held out"),
        (["--dtype", "float8"], "dtype is 'float8'; choose one of"),
        (["--optimizer", "sgd"], "optimiser is 'sgd'; choose one of adamw, muon"),
        (["--rate", "-1"], "rate is -1.0"),
        (["--seed", "99999999999999999999"], "seed is 99999999999999999999; give a whole number"),
        (["--resume"], "has no run to go on with"),
        (["--schedule", "up"], "schedule is 'up'; choose one of cosine, linear, constant"),
        (["--warmup", "1"], "warmup is 1.0"),
        (["--clip", "0"], "clip is 0.0"),
        (["--alpha", "4"], "--rank, --alpha and --dropout are the adapters'"),
        (["--rank", "8"], "--rank, --alpha and --dropout are the adapters'"),
        (["--lora", "--dropout", "1"], "dropout is 1.0"),
        (["--length", "100000"], "length is 100000, and the model's context"),
        (["--float16-without-masters"], "goes with --dtype float16; the dtype is float32"),
        (["--lora", "--dtype", "float16", "--float16-without-masters"], "adapters are float32 in any case"),
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


def test_what_does_not_fit_a_row_is_told(tmp_path, chats):
    result = run("finetune", chats, "--out", tmp_path / "out", "--epochs", 1, "--length", 16)
    assert result.exit_code == 0, result.output
    assert "of 24 examples are longer than a row of 16 tokens and were cut" in result.stderr


def test_without_peft_one_line_says_what_to_install(tmp_path, chats, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)  # importing it fails as if it were not there
    monkeypatch.setattr(command, "load", lambda *_: pytest.fail("told only after the model was loaded"))
    result = run("finetune", chats, "--out", tmp_path / "out", "--lora")
    told = "persimmon-lab: peft is not installed; pip install 'persimmon-lab[lab]' brings it\n"
    assert (result.exit_code, result.stderr) == (1, told)
    assert not (tmp_path / "out").exists()


def test_float16_without_masters_is_seen_to_fail_and_the_model_stays_as_it_was(tmp_path, chats):
    out = tmp_path / "out"
    given = ["--dtype", "float16", "--float16-without-masters", "--epochs", 1, "--rows", 1]
    result = run("finetune", chats, "--out", out, *given)
    assert result.exit_code == 0, result.output
    entries = [json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()]
    assert math.isnan(entries[-1]["loss"])
    assert f"the loss of step {entries[-1]['step']} is not finite; what is written is the model of step 0" in (
        result.stderr
    )
    assert "nan" not in (out / "loss.svg").read_text()
    before, after = load_mini(torch.float16)[0], PersimmonForCausalLM.from_pretrained(out)
    assert all(torch.equal(weight, after.state_dict()[name]) for name, weight in before.state_dict().items())


@pytest.fixture
def labelled(tmp_path):
    path = tmp_path / "animals.jsonl"
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    path.write_text(
        "\n".join(json.dumps({"text": f"I saw the {word} today.", "label": label})
                  for label, words in (("animal", ANIMALS), ("number", numbers)) for word in words)
    )  # fmt: skip
    return path


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("the disk is full")], ids=["stopped", "full"])
def test_an_interrupted_classify_leaves_no_half_folder(tmp_path, labelled, monkeypatch, interruption):
    def stop(tokenizer, folder):
        assert any(folder.glob("*.safetensors")), "the model is written already"
        raise interruption

    monkeypatch.setattr(PersimmonTokenizer, "save_pretrained", stop)
    result = run("classify", labelled, "--out", tmp_path / "out", "--frozen")
    assert result.exit_code == (130 if interruption is KeyboardInterrupt else 1)
    assert [*tmp_path.iterdir()] == [labelled]


def test_texts_with_labels_make_a_classifier(tmp_path, labelled):
    out = tmp_path / "out"
    result = run("classify", labelled, "--out", out, "--frozen", "--held-out", "0.25")
    assert result.exit_code == 0, result.output
    marks = json.loads((out / "marks.json").read_text())
    assert marks["count"] == 6
    assert marks["taught"] == 18
    assert sum(map(sum, marks["confusion"])) == 6
    assert marks["right"] == marks["confusion"][0][0] + marks["confusion"][1][1]
    model = PersimmonForSequenceClassification.from_pretrained(out)
    assert model.config.id2label == {0: "animal", 1: "number"}
    again = run("classify", labelled, "--out", out, "--frozen")
    assert again.exit_code == 1
    assert "is not empty; give a new folder, or delete it" in again.stderr
