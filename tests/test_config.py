"""The configuration: defaults of the page, both dialects, presets and refusals."""

import copy
import inspect
import json
import math
import pickle

import numpy as np
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


NEITHER_TYPE_NOR_VALUE = [
    ("vocab_size", True, "a whole number, at least 1"),
    ("hidden_size", 256.0, "a whole number, at least 1"),
    ("num_hidden_layers", 1e99, "a whole number, at least 1"),
    ("num_attention_heads", "4", "a whole number, at least 1"),
    ("intermediate_size", -5, "a whole number, at least 1"),
    ("max_position_embeddings", [64], "a whole number, at least 1"),
    ("layer_norm_eps", "1e-5", "a number, at least 0"),
    ("layer_norm_eps", -1e-5, "a number, at least 0"),
    ("layer_norm_eps", None, "a number, at least 0"),
    ("initializer_range", math.nan, "a number, at least 0"),
    ("rope_theta", math.inf, "a number above 0"),
    ("rope_theta", True, "a number above 0"),
    ("partial_rotary_factor", "0.5", "a number above 0 and at most 1"),
    ("hidden_dropout", math.nan, "a number from 0 to 1"),
    ("rope_scaling", "linear", "a dictionary"),
    ("rope_scaling", {"type": "linear", "factor": math.nan}, "a number above 1"),
    ("tie_word_embeddings", "false", "True or False"),
    ("use_cache", 1, "True or False"),
    ("hidden_act", 3, "the name of an activation"),
    ("torch_dtype", 16, "the name of a dtype"),
    ("num_labels", 0, "a whole number, at least 1"),
    ("architectures", "PersimmonModel", "a list of names"),
    ("extra", None, "a dictionary"),
    ("pad_token_id", -1, "the id of a token, or None"),
    ("pad_token_id", True, "the id of a token, or None"),
    ("pad_token_id", 128, "0 to 127"),
    ("bos_token_id", 128, "0 to 127"),
    ("bos_token_id", 1.0, "the id of a token, or None"),
    ("eos_token_id", [2, 128], "0 to 127"),
    ("eos_token_id", [2, -1], "a list of ids"),
    ("eos_token_id", "2", "a list of ids"),
]


@pytest.mark.parametrize(("name", "value", "expected"), NEITHER_TYPE_NOR_VALUE)
def test_one_line_names_the_field_what_was_given_and_what_is_right(name, value, expected):
    with pytest.raises(ValueError) as caught:
        PersimmonConfig.tiny(**{name: value})
    words = str(caught.value)
    assert words.startswith(name) and expected in words and "\n" not in words
    given = value["factor"] if isinstance(value, dict) else value
    assert repr(given) in words


@pytest.mark.parametrize(("name", "value", "expected"), NEITHER_TYPE_NOR_VALUE)
def test_a_file_is_refused_in_the_same_words(tmp_path, name, value, expected):
    if name == "extra":
        return  # a file has none
    (tmp_path / "config.json").write_text(json.dumps({**PersimmonConfig.tiny().to_dict(), name: value}))
    with pytest.raises(ValueError, match=name) as caught:
        PersimmonConfig.from_pretrained(tmp_path)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_long_value_is_shown_short():
    with pytest.raises(ValueError) as caught:
        PersimmonConfig.tiny(hidden_size=torch.zeros(40, 40))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_special_tokens_at_both_ends_of_the_vocabulary():
    config = PersimmonConfig.tiny(pad_token_id=0, bos_token_id=127, eos_token_id=(0, 127))
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 127, [0, 127])
    assert PersimmonConfig.tiny(vocab_size=1).eos_token_id == 2, "a default is not held against a vocabulary"


@pytest.mark.parametrize(("vocab_size", "end"), [(71013, None), (71014, 71013)])
def test_8b_has_its_end_of_text_where_the_vocabulary_has_it(vocab_size, end):
    config = PersimmonConfig.persimmon_8b(vocab_size=vocab_size)
    assert (config.bos_token_id, config.eos_token_id) == (end, end)


def test_numbers_of_numpy_are_numbers():
    config = PersimmonConfig.tiny(
        hidden_size=np.int64(64), rope_theta=np.float32(25000.0), use_cache=np.bool_(True), pad_token_id=np.int32(3)
    )
    assert [type(value) for value in (config.hidden_size, config.rope_theta, config.use_cache)] == [int, float, bool]
    assert config.to_json_string() == PersimmonConfig.tiny(pad_token_id=3).to_json_string()


def test_a_null_switch_in_a_file_is_its_default():
    assert PersimmonConfig.from_dict({"output_attentions": None, "use_cache": None}) == PersimmonConfig()


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


# What other software asks of a configuration


def test_of_two_rotary_fractions_the_one_that_transformers_computes_with_holds(tmp_path):
    """transformers 5.0 to 5.3 write the default at the top level, and compute with the other."""
    rope = {"rope_type": "default", "rope_theta": 9.0, "partial_rotary_factor": 0.25}
    contents = {"model_type": "persimmon", "partial_rotary_factor": 0.5, "rope_parameters": rope}
    (tmp_path / "config.json").write_text(json.dumps(contents))
    with pytest.warns(UserWarning, match=r"partial_rotary_factor is 0\.5, but rope_parameters says 0\.25, which holds"):
        config = PersimmonConfig.from_pretrained(tmp_path)
    theirs = transformers.PersimmonConfig.from_pretrained(tmp_path)
    assert config.partial_rotary_factor == theirs.rope_parameters["partial_rotary_factor"] == 0.25
    assert config.rope_theta == 9.0


@pytest.mark.filterwarnings("error")
def test_rotary_fractions_that_agree_are_taken_in_silence():
    rope = {"rope_theta": 9.0, "partial_rotary_factor": 0.25}
    config = PersimmonConfig.from_dict({"partial_rotary_factor": 0.25, "rope_parameters": rope})
    assert config.partial_rotary_factor == 0.25
    config = PersimmonConfig.from_dict({"partial_rotary_factor": 0.75, "rope_parameters": {"rope_theta": 9.0}})
    assert config.partial_rotary_factor == 0.75


def test_labels_have_names_and_their_number(tmp_path):
    assert PersimmonConfig.tiny().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    config = PersimmonConfig.tiny(id2label={0: "no", 1: "perhaps", 2: "yes"})
    assert config.num_labels == 3
    assert config.label2id == {"no": 0, "perhaps": 1, "yes": 2}
    assert PersimmonConfig.tiny(label2id=config.label2id) == config
    config.save_pretrained(tmp_path)
    theirs = transformers.PersimmonConfig.from_pretrained(tmp_path)
    assert (theirs.id2label, theirs.label2id, theirs.num_labels) == (config.id2label, config.label2id, 3)
    theirs.save_pretrained(tmp_path)
    ours = PersimmonConfig.from_pretrained(tmp_path)
    assert (ours.id2label, ours.label2id, ours.num_labels) == (config.id2label, config.label2id, 3)


def test_labels_of_another_number():
    """The old names count the old labels."""
    config = PersimmonConfig.tiny(id2label={0: "no", 1: "perhaps", 2: "yes"})
    config.num_labels = 2
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert PersimmonConfig.from_dict(config.to_dict()).num_labels == 2
    config.id2label = {0: "a", 1: "b", 2: "c", 3: "d"}
    assert (config.num_labels, config.label2id["d"]) == (4, 3)
    config.update({"num_labels": 5})
    assert config.label2id["LABEL_4"] == 4


def test_labels_while_reading(tmp_path):
    PersimmonConfig.tiny(id2label={0: "no", 1: "perhaps", 2: "yes"}).save_pretrained(tmp_path)
    assert PersimmonConfig.from_pretrained(tmp_path, num_labels=4).id2label[3] == "LABEL_3"
    assert PersimmonConfig.from_pretrained(tmp_path, id2label={0: "a", 1: "b"}).num_labels == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_labels": 3, "id2label": {0: "a"}}, "num_labels is 3.*id2label has 1"),
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, "id2label is .* but label2id is"),
        ({"id2label": ["a", "b"]}, r"id2label is \['a', 'b'\].*dictionary"),
        ({"id2label": {"first": "a"}}, "'first' is no whole number"),
    ],
)
def test_labels_that_disagree(fields, words):
    with pytest.raises(ValueError, match=words):
        PersimmonConfig.tiny(**fields)


def test_a_dtype_is_kept_by_its_name():
    for given in (torch.float16, "torch.float16", "float16"):
        config = PersimmonConfig.tiny(torch_dtype=given)
        assert config.torch_dtype == json.loads(config.to_json_string())["torch_dtype"] == "float16"


def test_fields_as_of_a_dictionary():
    config = PersimmonConfig.tiny(extra={"note": 1})
    assert all(name in config for name in ("hidden_size", "note", "model_type", "id2label"))
    assert not any(name in config for name in ("is_decoder", "hidden", 3))
    assert (config.get("hidden_size"), config.get("note"), config.get("is_decoder", 7)) == (64, 1, 7)


def test_updates_are_checked_together():
    config = PersimmonConfig.tiny()
    config.update({"hidden_size": 96, "num_attention_heads": 6})
    assert (config.head_dim, config.num_attention_heads) == (16, 6)
    before = copy.deepcopy(config)
    with pytest.raises(ValueError, match="pad_token_id is 500"):
        config.update({"hidden_size": 48, "pad_token_id": 500})
    with pytest.raises(TypeError, match="is_decoder .use nothing, it is a decoder alone"):
        config.update({"hidden_size": 48, "is_decoder": True})
    assert config == before


def test_what_differs_from_the_defaults(tmp_path):
    config = PersimmonConfig(rope_theta=7.0, extra={"note": 1})
    assert config.to_diff_dict() == {"model_type": "persimmon", "rope_theta": 7.0, "note": 1}
    config.to_json_file(tmp_path / "short.json", use_diff=True)
    config.to_json_file(tmp_path / "whole.json")
    assert json.loads((tmp_path / "short.json").read_text()) == config.to_diff_dict()
    for name in ("short", "whole"):
        assert PersimmonConfig.from_json_file(tmp_path / f"{name}.json") == config


def test_names_of_transformers_say_what_to_use():
    config = PersimmonConfig.tiny()
    assert not hasattr(config, "top_k")
    with pytest.raises(AttributeError, match="no top_k: use GenerationConfig"):
        _ = config.top_k
    with pytest.raises(TypeError, match="top_k .use GenerationConfig"):
        PersimmonConfig.tiny(top_k=3)
    assert PersimmonConfig.from_dict({"top_k": 3}).extra == {"top_k": 3}, "a file keeps what it has"
    with pytest.raises(TypeError, match=r"push_to_hub .use huggingface_hub"):
        config.save_pretrained("anywhere", push_to_hub=True)
    with pytest.raises(TypeError, match="no argument 'colour'"):
        config.save_pretrained("anywhere", colour=True)


def test_where_it_was_read_from_is_neither_written_nor_compared(tmp_path):
    config = PersimmonConfig.tiny()
    config.save_pretrained(tmp_path)
    again = PersimmonConfig.from_pretrained(tmp_path)
    assert (again.name_or_path, config.name_or_path) == (str(tmp_path), "")
    assert again == config
    assert "name_or_path" not in again.to_dict()
    assert again.keys_to_ignore_at_inference is not again.keys_to_ignore_at_inference, "callers add to theirs"


def test_it_is_still_a_plain_dataclass():
    config = PersimmonConfig.tiny(id2label={0: "no", 1: "yes"})
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert [*inspect.signature(PersimmonConfig).parameters][:2] == ["vocab_size", "hidden_size"]


def test_special_tokens_beyond_a_vocabulary():
    config = PersimmonConfig.tiny(eos_token_id=[3, 90], pad_token_id=None, bos_token_id=1)
    assert config.token_ids_beyond(91) == {}
    assert config.token_ids_beyond(90) == {"eos_token_id": [3, 90]}
    assert config.token_ids_beyond(1) == {"eos_token_id": [3, 90], "bos_token_id": 1}


@pytest.mark.parametrize(
    ("stored", "right"),
    [
        ({"rope_parameters": {"type": "linear", "factor": 2.0, "rope_theta": 25000.0}}, (25000.0, 0.5, 2.0)),
        ({"rope_theta": 5.0, "rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": 99.0}}, (99.0, 0.5, 2.0)),
        ({"rope_scaling": {"type": "default", "rope_theta": 9.0, "partial_rotary_factor": 0.25}}, (9.0, 0.25, None)),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 8.0}}, (8.0, 0.5, 4.0)),
    ],
)  # fmt: skip
def test_rope_settings_are_read_where_transformers_5_reads_them(stored, right):
    config = PersimmonConfig.from_dict(stored)
    factor = None if config.rope_scaling is None else config.rope_scaling["factor"]
    assert (config.rope_theta, config.partial_rotary_factor, factor) == right
    theirs = transformers.PersimmonConfig(**stored).rope_parameters
    assert (theirs["rope_theta"], theirs["partial_rotary_factor"], theirs.get("factor")) == right
