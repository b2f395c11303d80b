"""The files of a tokenizer: what we write is read back, by other libraries too, and bad files are refused."""

import dataclasses
import json
import warnings
from functools import cache

import huggingface_hub
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from persimmon_lab.checkpoints.errors import CheckpointNotFoundError
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.files import read_json
from persimmon_lab.tokenizer.sentencepiece_model import (
    PieceType,
    fields,
    read_model,
    read_varint,
    retype,
    round_scores,
    write_varint,
)
from tests.fixtures.tokenizer.make import train
from tests.tokenizer.texts import FOLDER, TOKENIZER, texts, texts_with_special_tokens, thorough

END = TOKENIZER.eos_token_id
few = settings(max_examples=20, deadline=None, derandomize=True)
PROTO = (FOLDER / "tokenizer.model").read_bytes()
OVERLAPPING = ["|ENDOFTEXT|", "\n", "lo", "love", "he", "heaven", "in the", "e m"]
TEXT = "Hello, where\n\nare  the \u67ff? |ENDOFTEXT|"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "new" / "folder"
    paths = TOKENIZER.save_pretrained(folder)
    assert sorted(folder.iterdir()) == sorted(paths)  # and nothing temporary
    return folder


# Out and in again


def test_the_settings_come_back(tmp_path):
    options = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<unk>",
        "add_bos_token": False,
        "add_eos_token": True,
        "padding_side": "right",
        "model_max_length": 77,
        "clean_up_tokenization_spaces": True,
    }
    PersimmonTokenizer(FOLDER / "tokenizer.model", **options).save_pretrained(tmp_path)
    again = PersimmonTokenizer.from_pretrained(tmp_path)
    assert {key: getattr(again, key) for key in options} == options
    assert again.encode(TEXT) == [*TOKENIZER.encode(TEXT)[1:], 2]
    assert (tmp_path / "tokenizer.model").read_bytes() == PROTO
    assert PersimmonTokenizer.from_pretrained(tmp_path, padding_side="left").padding_side == "left"


def test_defaults_come_back(saved):
    again = PersimmonTokenizer.from_pretrained(str(saved))
    assert again.model_max_length is None
    assert again.encode(TEXT) == TOKENIZER.encode(TEXT)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    paths = TOKENIZER.save_pretrained("~/new")
    assert {path.parent for path in paths} == {tmp_path / "home" / "new"}
    assert PersimmonTokenizer.from_pretrained("~/new").encode(TEXT) == TOKENIZER.encode(TEXT)
    assert PersimmonTokenizer("~/new/tokenizer.model").encode(TEXT) == TOKENIZER.encode(TEXT)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_configs_of_transformers_are_read(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(PROTO)
    config = {
        "add_bos_token": True,
        "bos_token": {"__type": "AddedToken", "content": "<s>", "lstrip": False},
        "eos_token": "</s>",
        "pad_token": None,
        "model_max_length": int(1e30),
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = PersimmonTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")
    assert tokenizer.model_max_length is None


# Other libraries read the same ids


@thorough
@given(text=texts)
def test_tokenizers_reads_the_same_ids(saved, text):
    assert Tokenizer.from_file(str(saved / "tokenizer.json")).encode(text).ids == TOKENIZER.encode(text)


@thorough
@given(text=texts_with_special_tokens)
def test_tokenizers_treats_special_tokens_the_same(saved, text):
    peer = Tokenizer.from_file(str(saved / "tokenizer.json"))
    assert peer.encode(text).ids == TOKENIZER.encode(text, parse_special=True)
    peer.encode_special_tokens = True  # its name for encoding them as plain text
    assert peer.encode(text).ids == TOKENIZER.encode(text)


def test_tokenizers_matches_no_reserved_piece_in_a_poor_vocabulary(tmp_path):
    """Without `<`, `|`, `X` or `9` in it, spelling a reserved piece costs more than any score it could get."""
    train(FOLDER / "text.txt", tmp_path / "tokenizer.model", character_coverage=0.98, vocab_size=450)
    tokenizer = PersimmonTokenizer.from_pretrained(tmp_path)
    assert not {"<", "|", "X", "9"} & {*tokenizer.get_vocab()}
    tokenizer.save_pretrained(tmp_path)
    peer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    @thorough
    @given(texts_with_special_tokens)
    def compare(text):
        peer.encode_special_tokens = False
        assert peer.encode(text).ids == tokenizer.encode(text, parse_special=True)
        peer.encode_special_tokens = True
        assert peer.encode(text).ids == tokenizer.encode(text)

    compare()


@pytest.mark.parametrize(
    "settings",
    [{"byte_fallback": False, "vocab_size": 400}, {"add_dummy_prefix": False}, {"user_defined_symbols": OVERLAPPING}],
    ids=str,
)
def test_tokenizers_reads_other_models(tmp_path, settings):
    train(FOLDER / "text.txt", tmp_path / "tokenizer.model", **settings)
    tokenizer = PersimmonTokenizer.from_pretrained(tmp_path, add_eos_token=True)
    tokenizer.save_pretrained(tmp_path)
    peer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    @thorough
    @given(texts)
    def compare(text):
        assert peer.encode(text).ids == tokenizer.encode(text)

    compare()


@pytest.mark.parametrize("read", [AutoTokenizer, PreTrainedTokenizerFast])
@pytest.mark.parametrize("model_type", [None, "persimmon"])
def test_transformers_reads_the_same_ids(tmp_path, read, model_type):
    TOKENIZER.save_pretrained(tmp_path)
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    peer = read.from_pretrained(tmp_path)
    for row in json.loads((FOLDER / "reference.json").read_text())["rows"]:
        assert peer(row["text"]).input_ids == row["ids"]
        ours = TOKENIZER.decode(row["ids"], skip_special_tokens=True)
        assert peer.decode(row["ids"], skip_special_tokens=True) == ours
    batch = peer(["love", "is not love"], padding=True)
    assert batch.input_ids == TOKENIZER(["love", "is not love"], padding=True).input_ids
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        assert getattr(peer, name) == getattr(TOKENIZER, name)


@pytest.mark.parametrize(
    "settings",
    [{"model_type": "bpe"}, {"normalization_rule_name": "nmt_nfkc"}, {"remove_extra_whitespaces": True}],
    ids=str,
)
def test_no_tokenizer_json_rather_than_a_wrong_one(tmp_path, settings):
    train(FOLDER / "text.txt", tmp_path / "tokenizer.model", **settings)
    tokenizer = PersimmonTokenizer.from_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no tokenizer.json was written: .* can only be written for a"):
        paths = tokenizer.save_pretrained(tmp_path / "out")
    assert [path.name for path in paths] == ["tokenizer.model", "tokenizer_config.json"]
    assert PersimmonTokenizer.from_pretrained(tmp_path / "out").encode(TEXT) == tokenizer.encode(TEXT)


# What transformers saved, without tokenizer.model


@pytest.fixture(scope="module")
def saved_by_transformers(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("theirs")
    AutoTokenizer.from_pretrained(saved).save_pretrained(folder)
    assert not (folder / "tokenizer.model").exists()
    return folder


@thorough
@given(text=texts_with_special_tokens)
def test_what_transformers_saved_is_read(saved_by_transformers, text):
    tokenizer = read_once(saved_by_transformers)
    assert tokenizer.encode(text) == TOKENIZER.encode(text)
    assert tokenizer.encode(text, parse_special=True) == TOKENIZER.encode(text, parse_special=True)
    assert tokenizer.decode(tokenizer.encode(text)) == TOKENIZER.decode(TOKENIZER.encode(text))


@cache
def read_once(folder):
    return PersimmonTokenizer.from_pretrained(folder)


def test_the_same_pieces_come_back(saved, saved_by_transformers, tmp_path):
    tokenizer = PersimmonTokenizer(saved_by_transformers / "tokenizer.json")
    assert tokenizer.special_tokens == TOKENIZER.special_tokens
    ours, theirs = read_model(PROTO), read_model(tokenizer.sp_model.serialized_model_proto())
    assert dataclasses.replace(ours, pieces=[]) == dataclasses.replace(theirs, pieces=[])
    end_as_control = dataclasses.replace(ours.pieces[END], type=PieceType.CONTROL)  # no text matches it anyway
    assert [*ours.pieces[:END], end_as_control, *ours.pieces[END + 1 :]] == theirs.pieces
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (saved / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("settings", "ends"),
    [
        ({"vocab_size": 450, "character_coverage": 0.98}, {}),
        ({"byte_fallback": False, "vocab_size": 400}, {"add_bos_token": False}),
        ({"add_dummy_prefix": False}, {"add_eos_token": True}),
        ({"user_defined_symbols": OVERLAPPING}, {"add_bos_token": False, "add_eos_token": True}),
    ],
    ids=str,
)
def test_other_models_that_transformers_saved(tmp_path, settings, ends):
    train(FOLDER / "text.txt", tmp_path / "tokenizer.model", **settings)
    tokenizer = PersimmonTokenizer.from_pretrained(tmp_path, **ends)
    tokenizer.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "theirs")
    again = PersimmonTokenizer.from_pretrained(tmp_path / "theirs")

    @few
    @given(texts_with_special_tokens)
    def compare(text):
        assert again.encode(text) == tokenizer.encode(text)

    compare()


def test_tokens_that_were_added_with_transformers_are_pieces(saved, tmp_path):
    peer = AutoTokenizer.from_pretrained(saved)
    peer.add_special_tokens({"pad_token": "[PAD]"})
    peer.add_tokens(["flibbertigibbet"])
    peer.save_pretrained(tmp_path)
    tokenizer = PersimmonTokenizer.from_pretrained(tmp_path)
    assert (tokenizer.pad_token, tokenizer.pad_token_id, len(tokenizer)) == ("[PAD]", 700, 702)
    assert 701 in tokenizer.encode("a flibbertigibbet")
    assert 700 not in tokenizer.encode("a [PAD]")
    assert tokenizer(["a", "a b c"], padding=True).input_ids[0][0] == 700


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": {"type": "BPE"}}, "its model is 'BPE', and Persimmon's is 'Unigram'"),
        ({"normalizer": {"type": "NFKC"}}, "its normalizer does more than write spaces"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "its pre_tokenizer 'Whitespace' cuts texts"),
        ({"model": {"type": "Unigram"}}, "not of the form that is known"),
        ({"added_tokens": [{"id": 900, "content": "x", "special": True}]}, "'x' has id 900, which is not the next"),
    ],
)
def test_a_tokenizer_json_of_another_kind_says_where_to_look(saved, tmp_path, change, reason):
    content = json.loads((saved / "tokenizer.json").read_text()) | change
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointNotFoundError, match=rf"has no tokenizer.model, .*{reason}.* Copy tokenizer.model"):
        PersimmonTokenizer.from_pretrained(tmp_path)


# The model file


@given(st.integers(0, 2**64))
def test_varints(value):
    data = write_varint(value)
    assert read_varint(b"\xff" + data + b"\x01", 1) == (value, 1 + len(data))


def test_the_model_file_says_what_sentencepiece_says():
    model = read_model(PROTO)
    processor = TOKENIZER.sp_model
    assert b"".join(raw for _, _, raw in fields(PROTO)) == PROTO
    assert [piece.text for piece in model.pieces] == [processor.id_to_piece(index) for index in range(700)]
    assert [piece.score for piece in model.pieces] == [processor.get_score(index) for index in range(700)]
    for piece_type, says in [
        (PieceType.CONTROL, processor.is_control),
        (PieceType.BYTE, processor.is_byte),
        (PieceType.UNKNOWN, processor.is_unknown),
    ]:
        assert [piece.type == piece_type for piece in model.pieces] == [says(index) for index in range(700)]
    user_defined = [piece.text for piece in model.pieces if piece.type == PieceType.USER_DEFINED]
    assert user_defined == ["|ENDOFTEXT|", "\n"]
    assert (model.is_unigram, model.has_character_map) == (True, False)
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces, model.escape_whitespaces) == (True, False, True)


def test_settings_that_a_file_does_not_give_are_sentencepieces_defaults():
    silent = b"".join(raw for number, _, raw in fields(PROTO) if number != 3)
    model, processor = read_model(silent), sentencepiece.SentencePieceProcessor(model_proto=silent)
    assert model.add_dummy_prefix and processor.encode("one") == TOKENIZER.sp_model.encode("one")
    assert model.remove_extra_whitespaces and processor.encode("a  b ") == processor.encode("a b")
    assert model.escape_whitespaces and "".join(processor.encode("a b", out_type=str)) == "\u2581a\u2581b"
    assert not model.has_character_map


def test_retyping_changes_one_type_and_nothing_else():
    changed = sentencepiece.SentencePieceProcessor(model_proto=retype(PROTO, {3}, PieceType.CONTROL))
    assert [index for index in range(700) if changed.is_control(index)] == [1, 2, 3]
    before, after = read_model(PROTO), read_model(changed.serialized_model_proto())
    assert before.pieces[:3] + before.pieces[4:] == after.pieces[:3] + after.pieces[4:]
    assert changed.encode("as it was\n\u67ff") == TOKENIZER.sp_model.encode("as it was\n\u67ff")


def test_rounding_moves_scores_to_the_grid_and_nothing_else():
    assert round_scores(PROTO, 2**-20) == PROTO  # whose scores are multiples of 2**-8
    scores = [piece.score for piece in read_model(round_scores(PROTO, 2**-3)).pieces]
    assert all((score * 8).is_integer() for score in scores)
    before = [piece.score for piece in read_model(PROTO).pieces]
    assert max(abs(one - other) for one, other in zip(scores, before)) <= 2**-4


# Files that are no tokenizer


def test_a_missing_folder_is_named(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(CheckpointNotFoundError, match="There is no folder .*/no/such-model, .* hub cannot be reached"):
        PersimmonTokenizer.from_pretrained("no/such-model")
    for name in (str(tmp_path / "missing"), "not an id"):
        with pytest.raises(FileNotFoundError, match=f"'{name}' is neither a folder nor a hub id"):
            PersimmonTokenizer.from_pretrained(name)


def test_the_file_itself_is_not_the_folder(saved):
    with pytest.raises(CheckpointNotFoundError, match=r"tokenizer.model is a file; give the folder that holds token"):
        PersimmonTokenizer.from_pretrained(saved / "tokenizer.model")


def test_a_hub_id_downloads_the_tokenizer_alone(monkeypatch, saved):
    asked = {}

    def download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    options = {"revision": "main", "token": "secret", "cache_dir": "there", "local_files_only": True}
    tokenizer = PersimmonTokenizer.from_pretrained("adept/persimmon-8b-chat", **options)
    assert tokenizer.encode(TEXT) == TOKENIZER.encode(TEXT)
    wanted = ["tokenizer_config.json", "tokenizer.model"]
    assert asked == {"repo_id": "adept/persimmon-8b-chat", "allow_patterns": wanted, **options}


def test_a_folder_without_a_vocabulary_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointNotFoundError, match=r"has no tokenizer.model, .* it has \['tokenizer.json'\]"):
        PersimmonTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"version https://git-lfs.github.com/spec/v1\n", PROTO[:5000], b"\x00" * 100, b"PK\x03\x04"],
    ids=["empty", "git-lfs", "truncated", "zeros", "zip"],
)
def test_a_broken_vocabulary_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ValueError, match=rf"tokenizer.model is not a sentencepiece model \({len(content)} bytes"):
        PersimmonTokenizer.from_pretrained(tmp_path)


def test_a_broken_config_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(PROTO)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": ')
    with pytest.raises(ValueError, match="tokenizer_config.json is not JSON"):
        PersimmonTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<bos>"}')
    with pytest.raises(ValueError, match="special token '<bos>' is not one of the 700 pieces"):
        PersimmonTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"a":' * 100_000])
def test_settings_nested_too_deep_are_refused_by_the_name_of_their_file(tmp_path, deep):
    path = tmp_path / "tokenizer_config.json"
    path.write_text(deep)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not JSON: it is nested too deep"):
        read_json(path)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("add_bos_token", "false", "True or False"),
        ("add_eos_token", 0, "True or False"),
        ("clean_up_tokenization_spaces", "no", "True or False"),
        ("padding_side", "middle", "one of 'left', 'right'"),
        ("padding_side", 1, "one of 'left', 'right'"),
        ("model_max_length", "512", "a whole number, at least 1"),
        ("model_max_length", 0, "a whole number, at least 1"),
        ("model_max_length", True, "a whole number, at least 1"),
        ("bos_token", 7, "the text of a token"),
        ("pad_token", {"lstrip": False}, "the text of a token"),
        ("unk_token", ["<unk>"], "the text of a token"),
        ("chat_template", 3, "the text of a template"),
    ],
)
def test_a_setting_of_another_type_is_refused_by_its_name(tmp_path, key, value, expected, unchecked_annotations):
    PersimmonTokenizer(FOLDER / "tokenizer.model").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=rf"tokenizer_config\.json: {key} is .*, but it has to be {expected}"):
        PersimmonTokenizer.from_pretrained(tmp_path)
    if key not in ("unk_token", "chat_template"):
        with pytest.raises(ValueError, match=rf"PersimmonTokenizer\(\): {key} is .*, but it has to be {expected}"):
            PersimmonTokenizer(FOLDER / "tokenizer.model", **{key: value})


@pytest.mark.parametrize("limit", [10**30, 1e30, 1000000000000000019884624838656])
def test_no_limit_is_written_in_several_ways(tmp_path, limit):
    PersimmonTokenizer(FOLDER / "tokenizer.model").save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": limit}))
    assert PersimmonTokenizer.from_pretrained(tmp_path).model_max_length is None


@pytest.mark.parametrize(
    "damage", [{"post_processor": [1]}, {"post_processor": {"single": [3]}}, {"post_processor": "x"}]
)
def test_a_tokenizer_json_of_another_form_is_refused(tmp_path, damage):
    PersimmonTokenizer(FOLDER / "tokenizer.model").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(ValueError, match=r"tokenizer\.json: post_processor is .*not of the form"):
        PersimmonTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        ({"truncation_side": "left"}, "truncation_side is 'left'"),
        ({"chat_template": "{{ messages }}"}, "chat_template is not Adept's"),
        ({"added_tokens_decoder": {"4096": {"content": "<x>"}}}, "'<x>'.* was added behind the vocabulary"),
        ({"added_tokens_decoder": {"x": 1, "5000": 2}}, "2 was added behind the vocabulary"),
    ],
)
def test_what_files_ask_for_and_is_not_done_is_told(tmp_path, stored, told):
    PersimmonTokenizer.from_pretrained(MINI).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PersimmonTokenizer.from_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | stored))
    with pytest.warns(UserWarning, match=told):
        PersimmonTokenizer.from_pretrained(tmp_path)


def test_a_template_beside_is_told(tmp_path):
    PersimmonTokenizer.from_pretrained(MINI).save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.warns(UserWarning, match="chat_template is not Adept's"):
        PersimmonTokenizer.from_pretrained(tmp_path)
