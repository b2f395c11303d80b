"""GenerationConfig in and out of generation_config.json, transformers' own included."""

import json

import pytest
import transformers

from persimmon_lab.generation import GenerationConfig


def test_json_round_trip(tmp_path):
    config = GenerationConfig(
        do_sample=True, top_k=20, eos_token_id=[2, 5], stop_strings=["é\n"], extra={"num_beam_groups": 1}
    )
    config.save_pretrained(tmp_path / "new")
    assert GenerationConfig.from_pretrained(tmp_path / "new") == config
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["generation_config.json"]
    assert json.loads(config.to_json_string()) == config.to_dict()
    assert GenerationConfig().to_dict() == {}, "only what differs from the defaults"


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    GenerationConfig(top_k=20).save_pretrained("~/new")
    assert [path.name for path in (tmp_path / "home" / "new").iterdir()] == ["generation_config.json"]
    assert GenerationConfig.from_pretrained("~/new") == GenerationConfig(top_k=20)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_files_of_transformers_both_ways(tmp_path):
    theirs = transformers.GenerationConfig(
        do_sample=True, temperature=0.6, top_k=0, eos_token_id=[2, 3], pad_token_id=0
    )
    theirs.save_pretrained(tmp_path)
    ours = GenerationConfig.from_pretrained(tmp_path)
    assert (ours.do_sample, ours.temperature, ours.top_k) == (True, 0.6, 0)
    assert (ours.eos_token_id, ours.pad_token_id, ours.max_new_tokens) == ([2, 3], 0, None)
    assert ours.extra["transformers_version"] == transformers.__version__
    ours.save_pretrained(tmp_path)
    again = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert again.to_diff_dict() == theirs.to_diff_dict()


def test_null_means_the_default():
    assert GenerationConfig.from_dict({"temperature": None, "eos_token_id": None}) == GenerationConfig()


def test_replacing_checks_names_and_keeps_the_original():
    config = GenerationConfig(max_new_tokens=5)
    assert config.replace(max_length=9) == GenerationConfig(max_length=9), "the length asked for last holds"
    assert config.replace(max_length=9, max_new_tokens=7) == GenerationConfig(max_length=9, max_new_tokens=7)
    assert config == GenerationConfig(max_new_tokens=5)
    with pytest.raises(TypeError, match="'top_q' .did you mean 'top_p'.*'colour'; it has max_length"):
        config.replace(top_q=1, colour=2)
    with pytest.raises(TypeError, match="'extra'"):
        config.replace(extra={})
