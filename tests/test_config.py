"""The configuration: defaults of the page, both dialects, presets and refusals."""

import json

import pytest
import torch
import transformers

from persimmon_lab import PersimmonConfig

PAGE_DEFAULTS = {
    "vocab_size": 262144,
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 36,
    "num_attention_heads": 64,
    "hidden_act": "relu2",
    "max_position_embeddings": 16384,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
    "use_cache": True,
    "tie_word_embeddings": False,
    "rope_theta": 25000.0,
    "rope_scaling": None,
    "qk_layernorm": True,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "partial_rotary_factor": 0.5,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def test_defaults_are_the_page_s():
    config = PersimmonConfig()
    assert {name: getattr(config, name) for name in PAGE_DEFAULTS} == PAGE_DEFAULTS


def test_8b_preset_is_adept_s_release():
    config = PersimmonConfig.persimmon_8b()
    assert (config.bos_token_id, config.eos_token_id, config.torch_dtype) == (71013, 71013, "bfloat16")
    assert (config.head_dim, config.rotary_dim) == (64, 32)


def test_json_round_trip(tmp_path):
    config = PersimmonConfig.tiny(
        rope_scaling={"type": "dynamic", "factor": 3},
        rope_precision="adept",
        num_labels=5,
        pad_token_id=0,
        extra={"a": 1},
    )
    config.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    again = PersimmonConfig.from_pretrained(tmp_path)
    again.extra = {"a": again.extra["a"]}  # the label names are written for transformers
    assert again == config


V4 = {
    "model_type": "persimmon",
    "rope_theta": 12345.0,
    "partial_rotary_factor": 0.25,
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "torch_dtype": "bfloat16",
}
V5 = {
    "model_type": "persimmon",
    "rope_parameters": {
        "rope_type": "linear",
        "factor": 2.0,
        "rope_theta": 12345.0,
        "partial_rotary_factor": 0.25,
    },
    "dtype": "bfloat16",
}


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    config = PersimmonConfig.tiny(rope_theta=700.0)
    config.save_pretrained("~/new")
    assert [path.name for path in (tmp_path / "home" / "new").iterdir()] == ["config.json"]
    assert PersimmonConfig.from_pretrained("~/new") == config
    assert PersimmonConfig.from_pretrained("~/new/config.json") == config
    assert PersimmonConfig.from_json_file("~/new/config.json") == config
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("scaling", "limit"),
    [(None, 1000), ({"type": "linear", "factor": 2.5}, 2500), ({"rope_type": "dynamic", "factor": 1.0005}, 1000)],
)
def test_how_far_a_text_may_go(scaling, limit):
    config = PersimmonConfig.tiny(max_position_embeddings=1000, rope_scaling=scaling)
    assert config.context_limit == limit
    assert type(config.context_limit) is int
    assert "context_limit" not in config.to_dict(), "it follows from the others"


def test_both_dialects_say_the_same():
    assert PersimmonConfig.from_dict(V4) == PersimmonConfig.from_dict(V5)
    config = PersimmonConfig.from_dict(V5)
    assert (config.rope_theta, config.partial_rotary_factor, config.torch_dtype) == (12345.0, 0.25, "bfloat16")
    assert config.rope_scaling == {"type": "linear", "factor": 2.0}


def test_what_we_write_transformers_reads(tmp_path):
    """The fields that transformers 5 renamed arrive there with their values."""
    PersimmonConfig.from_dict(V4).save_pretrained(tmp_path)
    theirs = transformers.PersimmonConfig.from_pretrained(tmp_path)
    assert theirs.rope_parameters["rope_theta"] == 12345.0
    assert theirs.rope_parameters["partial_rotary_factor"] == 0.25
    assert (theirs.rope_parameters["rope_type"], theirs.rope_parameters["factor"]) == ("linear", 2.0)
    assert theirs.dtype == torch.bfloat16


def test_what_transformers_writes_we_read(tmp_path):
    theirs = transformers.PersimmonConfig(
        vocab_size=77, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 999.0,
                                        "partial_rotary_factor": 0.75}, num_labels=7
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    ours = PersimmonConfig.from_pretrained(tmp_path)
    assert (ours.vocab_size, ours.rope_theta, ours.partial_rotary_factor, ours.num_labels) == (77, 999.0, 0.75, 7)
    assert ours.rope_scaling == {"type": "dynamic", "factor": 4.0}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"hidden_size": 65}, ["hidden_size 65", "num_attention_heads 4"]),
        ({"hidden_size": 40, "partial_rotary_factor": 0.5}, ["rotary width 5 is odd", "head_dim 10"]),
        ({"partial_rotary_factor": 0.0}, ["partial_rotary_factor is 0.0"]),
        ({"partial_rotary_factor": 1.5}, ["partial_rotary_factor is 1.5"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers is 0"]),
        ({"rope_theta": -1.0}, ["rope_theta is -1.0"]),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, ["'yarn'", "linear", "dynamic"]),
        ({"rope_scaling": {"type": "linear", "factor": 1.0}}, ["factor is 1.0", "above 1"]),
        ({"rope_scaling": {"type": "linear", "factor": True}}, ["factor is True"]),
        ({"rope_scaling": {"type": "linear"}}, ["factor is None"]),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "partial_rotary_factor": 0.125}, ["width above 2"]),
        ({"rope_precision": "half"}, ["'half'", "'adept'"]),
        ({"attn_implementation": "flash"}, ["'flash'", "'sdpa'"]),
        ({"problem_type": "ranking"}, ["'ranking'", "'regression'"]),
        ({"hidden_dropout": -0.1}, ["hidden_dropout is -0.1"]),
    ],
)
def test_contradictions_are_refused_by_name(fields, names):
    with pytest.raises(ValueError) as caught:
        PersimmonConfig.tiny(**fields)
    assert all(name in str(caught.value) for name in names), caught.value


def test_a_whole_factor_means_the_same():
    assert PersimmonConfig.tiny(rope_scaling={"type": "linear", "factor": 2}) == PersimmonConfig.tiny(
        rope_scaling={"rope_type": "linear", "factor": 2.0}
    )


def test_a_misspelt_keyword_is_an_error():
    with pytest.raises(TypeError, match="num_layers"):
        PersimmonConfig(num_layers=3)


@pytest.mark.parametrize(
    ("contents", "names"),
    [
        ('{"model_type": "llama"}', ["'llama'", "'persimmon'"]),
        ('{"rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}}', ["rope_theta is 1.0", "2.0"]),
        ('{"rope_parameters": 7}', ["rope_parameters is 7", "dictionary"]),
        ('{"torch_dtype": "float16", "dtype": "bfloat16"}', ["torch_dtype", "float16", "bfloat16"]),
        ("<html>", ["not JSON", "config.json"]),
        ("[1]", ["list", "config.json"]),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path, contents, names):
    (tmp_path / "config.json").write_text(contents)
    with pytest.raises(ValueError) as caught:
        PersimmonConfig.from_pretrained(tmp_path)
    assert all(name in str(caught.value) for name in names), caught.value


def test_unknown_keys_survive():
    config = PersimmonConfig.from_dict({"vocab_size": 9, "our_note": [1, 2]})
    assert config.extra == {"our_note": [1, 2]}
    assert json.loads(config.to_json_string())["our_note"] == [1, 2]


def test_a_function_as_activation_cannot_be_written():
    with pytest.raises(ValueError, match="only a name"):
        PersimmonConfig.tiny(hidden_act=torch.tanh).to_dict()
