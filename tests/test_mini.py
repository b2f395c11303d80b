"""The notebooks work with the real model where there is one, else with the shipped one, and never mistake them."""

from pathlib import Path

import pytest
import torch

from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.mini import MINI, REAL, load_mini, load_real_or_mini
from tests.models import tiny

PROMPT = "human: Hello"


@pytest.fixture
def converted(tmp_path):
    """A folder such as `convert` writes, of a model that is not the shipped one: other numbers, same tokenizer."""
    shipped, tokenizer = load_mini()
    model = tiny(vocab_size=shipped.config.vocab_size)
    model.save_pretrained(tmp_path / "persimmon-8b-chat")
    tokenizer.save_pretrained(tmp_path / "persimmon-8b-chat")
    return tmp_path / "persimmon-8b-chat", model


def logits(model, tokenizer):
    with torch.no_grad():
        return model(tokenizer(PROMPT, return_tensors="pt").input_ids).logits


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_path_it_is_the_shipped_model(monkeypatch, value):
    monkeypatch.delenv(REAL, raising=False) if value is None else monkeypatch.setenv(REAL, value)
    loaded = load_real_or_mini(device="cpu")
    assert torch.equal(logits(loaded.model, loaded.tokenizer), logits(*load_mini()))
    assert (loaded.name, loaded.path, loaded.is_real, loaded.device.type) == ("persimmon-mini", MINI, False, "cpu")
    assert str(loaded) == "persimmon-mini, float32 on cpu"
    assert str(load_real_or_mini(torch_dtype="auto", device="cpu")) == "persimmon-mini, bfloat16 on cpu"


@pytest.mark.parametrize("how", ["path", "variable", "path before variable"])
def test_a_converted_model_is_taken_by_path_or_by_variable(monkeypatch, converted, how):
    folder, model = converted
    monkeypatch.setenv(REAL, {"path": "", "variable": str(folder), "path before variable": "/nowhere"}[how])
    loaded = load_real_or_mini(None if how == "variable" else folder, device="cpu")
    expected = model.to(torch.bfloat16)
    assert torch.equal(logits(loaded.model, loaded.tokenizer), logits(expected, loaded.tokenizer))
    assert (Path(loaded.path), loaded.is_real) == (folder, True)
    assert str(loaded) == "persimmon-8b-chat, bfloat16 on cpu"
    assert load_real_or_mini(folder, torch.float64, "cpu").model.dtype == torch.float64


def test_a_tilde_is_the_home_folder_to_other_libraries_too(monkeypatch, converted):
    folder, _ = converted
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv(REAL, f"~/{folder.name}")
    loaded = load_real_or_mini(device="cpu")
    assert (loaded.path, loaded.is_real) == (str(folder), True)


def test_a_wrong_path_is_an_error_and_not_another_model(monkeypatch, tmp_path, converted):
    monkeypatch.setenv(REAL, str(tmp_path / "nowhere"))
    with pytest.raises(CheckpointError, match=f"variable {REAL} is '.*nowhere'.*no folder .*persimmon-lab convert"):
        load_real_or_mini()
    with pytest.raises(CheckpointError, match=r"path is .*has no tokenizer\.model"):
        load_real_or_mini(tmp_path)
    (converted[0] / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        load_real_or_mini(converted[0])


@pytest.mark.gpu
def test_where_there_is_a_gpu_it_is_used(monkeypatch, converted):
    monkeypatch.delenv(REAL, raising=False)
    assert str(load_real_or_mini()) == "persimmon-mini, float32 on cuda"
    assert str(load_real_or_mini(converted[0])) == "persimmon-8b-chat, bfloat16 on cuda"
