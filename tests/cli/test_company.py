"""Commands that torchrun started, as far as they can be seen in one process."""

import pytest
from typer.testing import CliRunner

from persimmon_lab.cli import app
from persimmon_lab.mini import MINI
from tests.distributed.ranks import free_port


@pytest.fixture
def launched(monkeypatch):
    def run(*arguments, rank=0, size=1, **options):
        for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1",
                            "MASTER_PORT": free_port()}.items():  # fmt: skip
            monkeypatch.setenv(name, str(value))
        return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)

    return run


@pytest.mark.parametrize("command", [["convert", "a", "b"], ["export", "mini", "b"], ["chat"], ["doctor"]])
def test_commands_that_every_process_would_run_for_itself_are_refused(launched, command, tmp_path):
    result = launched(*command, size=2)
    assert result.exit_code == 1
    assert command[0] in result.stderr and "without torchrun" in result.stderr


def test_train_mini_and_adapters_are_for_one_process(launched, tmp_path):
    assert "one process" in launched("train", "mini", "--workdir", tmp_path).stderr
    lessons = tmp_path / "lessons.jsonl"
    lessons.write_text('{"text": "one"}\n{"text": "two"}\n')
    result = launched("finetune", lessons, "--out", tmp_path / "out", "--lora")
    assert result.exit_code == 1 and "without torchrun" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_device_that_ranks_cannot_share_is_refused(launched):
    result = launched("generate", "Hello", "--device", "cuda:1")
    assert result.exit_code == 1 and "local rank" in result.stderr


@pytest.mark.parametrize("option", [["--mmap"], ["--quantize", "int8"]])
def test_what_one_process_does_with_weights_is_refused_to_several(launched, option):
    result = launched("generate", "Hello", "--device", "cpu", *option)
    assert result.exit_code == 1 and f"{option[0]} is for one process" in result.stderr


def test_alone_under_torchrun_it_writes_what_it_writes_without(launched, monkeypatch):
    asked = ["generate", "-", "--model", MINI, "--device", "cpu", "--max-new-tokens", "6"]
    together = launched(*asked, input="The king said that\n")
    drawn = [launched(*asked, "--seed", "3", "--temperature", "1.5", input="Hello\n").stdout for _ in range(2)]
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    alone = CliRunner().invoke(app, [*map(str, asked), "--engine", "plain"], input="The king said that\n")
    assert together.exit_code == alone.exit_code == 0, together.stderr
    assert together.stdout == alone.stdout != ""
    assert drawn[0] == drawn[1] != ""


def test_fine_tuning_alone_under_torchrun_and_going_on(launched, tmp_path):
    lessons, out = tmp_path / "lessons.jsonl", tmp_path / "out"
    lessons.write_text("".join(f'{{"text": "The {n} kings went home."}}\n' for n in range(6)))
    asked = ["finetune", lessons, "--out", out, "--epochs", "1", "--rows", "1", "--length", "16"]
    assert "no run to go on with" in launched(*asked, "--resume").stderr
    result = launched(*asked)
    assert result.exit_code == 0, result.stderr
    assert "held-out loss" in result.stdout and (out / "model.safetensors").exists() and (out / "loss.svg").exists()
    assert "is not empty" in launched(*asked).stderr
    again = launched(*asked, "--resume")
    assert again.exit_code == 0, again.stderr
    assert again.stdout == result.stdout
