"""GenerationConfig in and out of generation_config.json, transformers' own included."""

import copy
import inspect
import json
import math
import pickle

import numpy as np
import pytest
import transformers

from persimmon_lab import PersimmonConfig
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


# What no prompt and no model could make right


WRONG = [
    ("max_length", -1),
    ("max_new_tokens", 2.0),
    ("max_new_tokens", True),
    ("min_length", -3),
    ("min_new_tokens", "4"),
    ("do_sample", 1),
    ("do_sample", "false"),
    ("temperature", -1.0),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", "0.7"),
    ("top_k", -1),
    ("top_k", 5.0),
    ("top_p", 2),
    ("top_p", -0.1),
    ("top_p", math.nan),
    ("min_p", 1.5),
    ("repetition_penalty", 0.0),
    ("no_repeat_ngram_size", -2),
    ("num_beams", 0),
    ("num_beams", True),
    ("length_penalty", math.nan),
    ("early_stopping", "soon"),
    ("early_stopping", 1),
    ("num_return_sequences", 0),
    ("use_cache", "no"),
    ("prefill_chunk_size", 0),
    ("bos_token_id", -1),
    ("eos_token_id", [3, -1]),
    ("eos_token_id", "3"),
    ("pad_token_id", -1),
    ("pad_token_id", 0.0),
    ("stop_strings", 7),
    ("stop_strings", ["a", 7]),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_refused_when_made_when_replaced_and_in_a_file(name, value):
    def refused(action, *arguments, **settings):
        with pytest.raises(ValueError) as caught:
            action(*arguments, **settings)
        assert str(caught.value).startswith(f"{name}={value!r}, but it has to be ")
        assert "\n" not in str(caught.value)

    refused(GenerationConfig, **{name: value})
    refused(GenerationConfig().replace, **{name: value})
    refused(GenerationConfig().update, **{name: value})
    refused(GenerationConfig.from_dict, {name: value})
    config = GenerationConfig()
    setattr(config, name, value)
    refused(config.check)
    refused(config.validate, is_init=True)


def test_the_edges_are_taken():
    GenerationConfig(top_k=0, top_p=0.0, min_p=1, no_repeat_ngram_size=0, min_length=0, stop_strings=("a", "b"))
    GenerationConfig(top_p=1, early_stopping="never", eos_token_id=[], temperature=1e-9, length_penalty=-2)
    config = GenerationConfig(top_k=np.int64(3), temperature=np.float32(0.5), do_sample=np.bool_(True))
    assert json.loads(config.to_json_string()) == {"do_sample": True, "temperature": 0.5, "top_k": 3}


def test_an_empty_stop_string_is_refused():
    for strings in ("", ["x", ""]):
        with pytest.raises(ValueError, match="an empty stop string"):
            GenerationConfig(stop_strings=strings)


def test_none_for_a_setting_with_a_default_is_the_default():
    nothing = dict.fromkeys(GenerationConfig.names())
    assert GenerationConfig(**nothing) == GenerationConfig() == GenerationConfig(temperature=3.0).replace(**nothing)


@pytest.mark.parametrize(
    ("settings", "width", "least"),
    [
        ({}, 5, 0),
        ({"min_new_tokens": 3}, 5, 3),
        ({"min_length": 9}, 5, 4),
        ({"min_length": 9}, 12, 0),
        ({"min_length": 9, "min_new_tokens": 6}, 5, 6),
        ({"min_length": 9, "min_new_tokens": 2}, 5, 4),
    ],
)
def test_the_least_number_of_new_tokens(settings, width, least):
    assert GenerationConfig(**settings).least_new_tokens(width) == least


# What transformers has and ours does not


def test_settings_of_transformers_say_what_to_use():
    words = r"suppress_tokens \(use logits_processor=\[transformers\.SuppressTokensLogitsProcessor"
    for refused in (GenerationConfig, GenerationConfig().replace, GenerationConfig().update):
        with pytest.raises(TypeError, match=words):
            refused(suppress_tokens=[3])
    with pytest.raises(AttributeError, match="no typical_p: use logits_processor"):
        _ = GenerationConfig().typical_p
    assert not hasattr(GenerationConfig(), "typical_p")


def test_what_a_file_asks_for_in_vain_is_named_once():
    asked = {
        "min_new_tokens": 2, "suppress_tokens": [3], "begin_suppress_tokens": [4], "forced_bos_token_id": 0,
        "forced_eos_token_id": 0, "sequence_bias": {"5": 1.0}, "bad_words_ids": [[6]], "typical_p": 0.9,
        "epsilon_cutoff": 3e-4, "top_h": 0.4,
    }  # fmt: skip
    config = GenerationConfig.from_dict(asked)
    assert list(config.ignored()) == [name for name in asked if name != "min_new_tokens"]
    with pytest.warns(UserWarning) as caught:
        config.warn_of_ignored()
        config.warn_of_ignored()
    assert len(caught) == 1
    assert all(name in str(caught[0].message) for name in config.ignored())
    assert "SuppressTokensLogitsProcessor" in str(caught[0].message)
    assert config.to_dict() == asked, "nothing is lost"


@pytest.mark.filterwarnings("error")
def test_what_changes_no_text_is_not_named():
    extra = {
        "transformers_version": "4.37.2", "_from_model_config": True, "typical_p": 1.0, "num_beam_groups": 1,
        "diversity_penalty": 0.0, "bad_words_ids": None, "suppress_tokens": [], "output_scores": False,
        "epsilon_cutoff": 0.0, "cache_implementation": "static", "is_assistant": True,
    }  # fmt: skip
    config = GenerationConfig.from_dict(extra)
    assert config.ignored() == {}
    config.warn_of_ignored()


def test_settings_of_transformers_are_taken():
    theirs = transformers.GenerationConfig(
        do_sample=True, temperature=0.6, min_new_tokens=3, early_stopping=False, eos_token_id=[2, 3], typical_p=0.5
    )
    ours = GenerationConfig.from_any(theirs)
    assert ours.replace() == GenerationConfig(
        do_sample=True, temperature=0.6, min_new_tokens=3, eos_token_id=[2, 3], extra=ours.extra
    )
    assert list(ours.ignored()) == ["typical_p"]
    assert GenerationConfig.from_any(transformers.GenerationConfig()).ignored() == {}


def test_settings_as_they_are_handed_over():
    config = GenerationConfig(top_k=3)
    assert GenerationConfig.from_any(config) is config
    assert GenerationConfig.from_any({"top_k": 3}) == config
    for wrong in ("top_k", 3, GenerationConfig, None):
        with pytest.raises(TypeError, match=f"generation_config is a {type(wrong).__name__}; give a GenerationConfig"):
            GenerationConfig.from_any(wrong)
    with pytest.raises(ValueError, match="temperature=-1"):
        GenerationConfig.from_any({"temperature": -1})


def test_names_of_transformers_do_what_theirs_do(tmp_path):
    config = GenerationConfig(top_k=3, extra={"transformers_version": "5", "note": 1})
    assert config.update(top_k=4, colour=2) == {"colour": 2}
    assert config.top_k == 4
    assert config.to_diff_dict() == config.to_dict() == {"top_k": 4, "transformers_version": "5", "note": 1}
    assert json.loads(config.to_json_string(ignore_metadata=True)) == {"top_k": 4, "note": 1}
    assert json.loads(config.to_json_string(use_diff=False)).keys() >= {*GenerationConfig.names(), "note"}
    config.to_json_file(tmp_path / "one.json")
    config.save_pretrained(tmp_path, config_file_name="other.json")
    assert (tmp_path / "one.json").read_text() == (tmp_path / "other.json").read_text() == config.to_json_string()
    ids = GenerationConfig.from_model_config(PersimmonConfig.tiny(pad_token_id=5))
    assert (ids.pad_token_id, ids.bos_token_id, ids.eos_token_id) == (5, 1, 2)
    assert GenerationConfig.from_dict({"top_k": 3}, top_k=5).top_k == 5
    with pytest.raises(TypeError, match="return_unused_kwargs .use extra"):
        GenerationConfig.from_dict({}, return_unused_kwargs=True)
    with pytest.raises(TypeError, match="push_to_hub .use huggingface_hub"):
        config.save_pretrained(tmp_path, push_to_hub=True)
    with pytest.raises(TypeError, match="no argument 'colour'"):
        config.save_pretrained(tmp_path, colour=2)
    (tmp_path / "generation_config.json").write_text("[1]")
    with pytest.raises(ValueError, match="a JSON list, not an object"):
        GenerationConfig.from_pretrained(tmp_path)


def test_an_update_that_fails_changes_nothing():
    config = GenerationConfig(top_k=3)
    with pytest.raises(ValueError, match="top_p=2"):
        config.update(top_k=4, top_p=2)
    assert config == GenerationConfig(top_k=3)


@pytest.mark.filterwarnings("error")
def test_it_is_still_a_plain_dataclass():
    config = GenerationConfig(top_k=3, extra={"note": 1})
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert [*inspect.signature(GenerationConfig).parameters] == [*GenerationConfig.names(), "extra"]


def test_no_temperature_is_greedy_and_nothing_else():
    settings = GenerationConfig.from_dict({"temperature": 0.0})
    assert settings.temperature == 0
    with pytest.raises(ValueError, match="temperature=0.0, but it has to be a number above 0; for greedy decoding"):
        settings.replace(do_sample=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "holds a JSON list"),
        (b'{"temperature": "warm"}', "temperature='warm'"),
        (b'{"do_sample": "false"}', "do_sample='false'"),
        (b'{"eos_token_id": [1, "x"]}', "eos_token_id="),
        (b'{"stop_strings": [3]}', "stop_strings="),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, message):
    (tmp_path / "generation_config.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"generation_config\.json.*{message}"):
        GenerationConfig.from_pretrained(tmp_path)


def test_numbers_that_leave_float32_are_refused():
    for setting in ({"temperature": 1e-320}, {"repetition_penalty": 1e300}, {"length_penalty": 1e9}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*has to be"):
            GenerationConfig(**setting)
    assert GenerationConfig(temperature=1e-10, length_penalty=-9, repetition_penalty=1e-3).temperature == 1e-10


@pytest.mark.parametrize("name", ["max_time", "bad_words_ids", "typical_p", "suppress_tokens"])
def test_a_setting_of_transformers_that_is_set_by_its_name_is_refused(name):
    """As a keyword it is; set on the object it was kept, and the text came out as if it were not there."""
    config = GenerationConfig()
    with pytest.raises(AttributeError, match=f"GenerationConfig has no {name}: use"):
        setattr(config, name, 0.5)
    setattr(config, name, None)  # asks for nothing
    assert config.replace(max_new_tokens=3).max_new_tokens == 3
