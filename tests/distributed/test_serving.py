"""A folder for vLLM, and its contract: kept by what we write, and its breaches seen."""

import json

import pytest
import torch
import transformers
from typer.testing import CliRunner

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.cli import app
from persimmon_lab.distributed import serving
from persimmon_lab.distributed.serving import check_contract, export_for_vllm, write_config
from tests.models import tiny


def run(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path):
    model = tiny(rope_theta=25000.0, partial_rotary_factor=0.25)
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_folder_says_in_both_dialects_what_it_is(folder, tmp_path):
    out = tmp_path / "out"
    lines = export_for_vllm(folder, out, dtype=torch.bfloat16)
    values = json.loads((out / "config.json").read_text())
    assert values["rope_parameters"]["rope_theta"] == values["rope_theta"] == 25000.0
    assert values["rope_parameters"]["partial_rotary_factor"] == 0.25
    assert values["dtype"] == values["torch_dtype"] == "bfloat16"
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    ours = PersimmonForCausalLM.from_pretrained(out, torch_dtype="auto")
    assert theirs.dtype == ours.dtype == torch.bfloat16
    assert theirs.config.rope_parameters["rope_theta"] == ours.config.rope_theta
    assert lines[-1] == f"vllm serve {out} --model-impl transformers --dtype bfloat16 --max-model-len 64"
    assert any("not run with vLLM" in line for line in lines)
    assert sum("on the weights of this folder" in line for line in lines) == 2


def test_a_model_that_does_not_fit_twice_is_checked_by_its_shape(folder, monkeypatch):
    write_config(folder)
    monkeypatch.setattr(serving, "free_on", lambda device: 1000)
    lines = check_contract(folder)
    assert sum("on random weights of two layers" in line for line in lines) == 2


def broken_config(folder, monkeypatch):
    values = json.loads((folder / "config.json").read_text())
    del values["rope_parameters"], values["rope_theta"]
    (folder / "config.json").write_text(json.dumps(values))
    monkeypatch.setattr(serving, "read_config", lambda folder: PersimmonConfig.tiny(rope_theta=25000.0))


def positions_of_others(folder, monkeypatch):
    """Not another beginning alone: rotations are relative, and a text reads the same from wherever it begins."""
    theirs = transformers.models.persimmon.modeling_persimmon.PersimmonModel
    forward = theirs.forward

    def halved(self, *given, **named):
        return forward(self, *given, **named | {"position_ids": named["position_ids"] // 2})

    monkeypatch.setattr(theirs, "forward", halved)


def silent_layer(folder, monkeypatch):
    theirs = transformers.models.persimmon.modeling_persimmon.PersimmonAttention
    forward = theirs.forward

    def skip(self, hidden_states, **named):
        return (hidden_states, None) if self.layer_idx == 1 else forward(self, hidden_states, **named)

    monkeypatch.setattr(theirs, "forward", skip)


def nothing_passed_along(folder, monkeypatch):
    theirs = transformers.models.persimmon.modeling_persimmon.PersimmonAttention
    forward = theirs.forward

    def forget(self, *given, **named):
        named.pop("attention_instances")
        return forward(self, *given, **named)

    monkeypatch.setattr(theirs, "forward", forget)


@pytest.mark.parametrize(
    ("breach", "told"),
    [
        (broken_config, "rope_theta as"),
        (positions_of_others, "away from its texts alone"),
        (silent_layer, "attention was called for layers"),
        (nothing_passed_along, "does not arrive"),
    ],
)
def test_a_breach_of_the_contract_is_named(folder, monkeypatch, breach, told):
    write_config(folder)
    check_contract(folder)
    breach(folder, monkeypatch)
    with pytest.raises(CheckpointError, match=told):
        check_contract(folder)


def test_scaling_is_refused_before_anything_is_written(tmp_path):
    tiny(rope_scaling={"type": "linear", "factor": 2.0}).save_pretrained(tmp_path / "model")
    with pytest.raises(CheckpointError, match="rope_scaling"):
        export_for_vllm(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_line_that_serves(folder, tmp_path):
    result = run(folder, tmp_path / "out", "--for", "vllm")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'out'}\n"
    assert "vllm serve" in result.stderr and "not run with vLLM" in result.stderr
    for wrong in ([], ["--for", "vllm", "--format", "hf"]):
        refused = run(folder, tmp_path / "other", *wrong)
        assert refused.exit_code == 2 and "--format" in refused.stderr
    assert not (tmp_path / "other").exists()
