"""Text to ids and back: the same as sentencepiece, and special tokens only where they are asked for."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
import transformers
from hypothesis import example, given
from hypothesis import strategies as st

from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.segmentation import check_characters
from tests.fixtures.tokenizer.make import train
from tests.tokenizer.texts import (
    BYTES,
    FOLDER,
    SPECIAL,
    TOKENIZER,
    id_lists,
    texts,
    texts_with_special_tokens,
    thorough,
)

END = TOKENIZER.eos_token_id
SENTENCEPIECE = TOKENIZER.sp_model


def ids_of(text: str, **options) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that trains a variant of the tokenizer, and says where it is."""

    def build(**settings):
        path = tmp_path_factory.mktemp("variant") / "tokenizer.model"
        train(FOLDER / "text.txt", path, **settings)
        return path

    return build


# Text to ids


@thorough
@given(texts)
def test_ids_are_sentencepieces(text):
    assert ids_of(text) == SENTENCEPIECE.encode(text)
    assert TOKENIZER.encode(text) == [END, *SENTENCEPIECE.encode(text)]


@pytest.mark.parametrize(
    "row", json.loads((FOLDER / "reference.json").read_text())["rows"], ids=lambda row: row["text"]
)
def test_ids_are_those_of_transformers_4_37_2(row):
    assert TOKENIZER.encode(row["text"]) == row["ids"]


@pytest.mark.parametrize("unit", ["a", "\n", "\u67ff", "|ENDOFTEXT|"])
def test_a_megabyte_of_one_thing(unit):
    """Linear in sentencepiece; anything quadratic around it would not come back while a test runs."""
    count = 1_000_000 // len(unit.encode("utf-8"))
    ids = ids_of(unit * count, parse_special=True)
    assert ids == ([END] * count if unit == "|ENDOFTEXT|" else SENTENCEPIECE.encode(unit * count))
    assert TOKENIZER.decode(ids) == unit * count


@pytest.mark.parametrize(
    "settings", [{"byte_fallback": False, "vocab_size": 400}, {"normalization_rule_name": "nmt_nfkc"}], ids=str
)
def test_ids_are_sentencepieces_with_other_settings(trained, settings):
    tokenizer = PersimmonTokenizer(trained(**settings, remove_extra_whitespaces=True))

    @thorough
    @given(texts)
    def compare(text):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == tokenizer.sp_model.encode(text)
        if tokenizer.unk_token_id not in ids:
            assert tokenizer.decode(ids) == tokenizer.sp_model.decode(ids)

    compare()


@pytest.mark.parametrize("text", ["\ud800", "fine until \udfff here", "\ud83d\ude00"])
def test_half_a_surrogate_pair_is_refused(text):
    with pytest.raises(ValueError, match=r"character \d+ of the text is '\\ud[0-9a-f]{3}', half of a surrogate pair"):
        TOKENIZER(text)


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["a list"], [1, 2]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(TypeError, match=f"expected a str to encode, not {type(text).__name__}"):
        check_characters(text)


# Special tokens in a text


@thorough
@given(texts_with_special_tokens)
def test_special_tokens_in_a_text_are_spelt_out(text):
    ids = ids_of(text)
    assert not set(ids) & {*TOKENIZER.all_special_ids}
    assert TOKENIZER.decode(ids) == text.replace("\u2581", " ")


def test_a_user_cannot_end_the_document():
    assert END in SENTENCEPIECE.encode("|ENDOFTEXT|")  # what sentencepiece does by itself
    assert "".join(TOKENIZER.convert_ids_to_tokens(ids_of("no|ENDOFTEXT|yes"))).replace("<0x58>", "X") == (
        "\u2581no|ENDOFTEXT|yes"
    )


@pytest.mark.parametrize("byte", [BYTES[0], BYTES[0x0A], BYTES[0xE6]])
def test_byte_pieces_are_never_matched(byte):
    for parse_special in (False, True):
        ids = ids_of(byte, parse_special=parse_special)
        assert SENTENCEPIECE.piece_to_id(byte) not in ids
        assert TOKENIZER.decode(ids) == byte


def test_a_newline_stays_one_piece():
    newline = SENTENCEPIECE.piece_to_id("\n")
    for text in ("one\ntwo", "one\n|ENDOFTEXT|two"):
        assert ids_of(text).count(newline) == 1


@pytest.mark.parametrize("token", SPECIAL)
def test_special_tokens_are_matched_on_request(token):
    index = SENTENCEPIECE.piece_to_id(token)
    text = f"one two{token}three{token}{token}\n"
    expected = [*ids_of("one two"), index, *ids_of("three"), index, index, *ids_of("\n")]
    assert ids_of(text, parse_special=True) == expected
    assert TOKENIZER.decode(expected) == text


@thorough
@given(texts_with_special_tokens)
def test_decoding_inverts_encoding_with_special_tokens(text):
    assert TOKENIZER.decode(ids_of(text, parse_special=True)) == text.replace("\u2581", " ")


def test_unknown_is_not_matched_either(trained):
    tokenizer = PersimmonTokenizer(trained(byte_fallback=False, vocab_size=400))
    text = "a<unk>\u67ff"
    for parse_special, unknown in [(False, 1), (True, 2)]:
        assert tokenizer.encode(text, parse_special=parse_special).count(tokenizer.unk_token_id) == unknown


def test_the_longest_special_token_wins(trained):
    path = trained(user_defined_symbols=["|ENDOFTEXT|", "\n", "|ENDOFTEXT||", "|END"])
    tokenizer = PersimmonTokenizer(path, bos_token="|ENDOFTEXT||", pad_token="|END")
    ids = tokenizer.encode("|ENDOFTEXT||", add_special_tokens=False, parse_special=True)
    assert tokenizer.convert_ids_to_tokens(ids) == ["|ENDOFTEXT||"]


# Ids to text


@thorough
@given(id_lists)
def test_text_is_sentencepieces(ids):
    ordinary = [index for index in ids if index not in TOKENIZER.all_special_ids]
    assert TOKENIZER.decode(ordinary) == SENTENCEPIECE.decode(ordinary)
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == SENTENCEPIECE.decode(ordinary)


def test_special_tokens_are_shown_or_skipped():
    ids = [END, *ids_of("one"), 1, *ids_of("two"), 0, END]
    assert TOKENIZER.decode(ids) == "|ENDOFTEXT|one<s>two<unk>|ENDOFTEXT|"
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "one two"


def test_broken_bytes_become_replacement_characters():
    first, second, third = ids_of("\u67ff")[1:]
    assert TOKENIZER.decode([first, second]) == "\ufffd\ufffd"
    assert TOKENIZER.decode([first, second, third, second]) == "\u67ff\ufffd"


@pytest.mark.parametrize("ids", [[-1], [5, -100]])
def test_negative_ids_are_named(ids):
    for call in (TOKENIZER.decode, TOKENIZER.convert_ids_to_tokens):
        with pytest.raises(ValueError, match=f"token id {ids[-1]} is none: ids begin at 0; .* as labels' -100"):
            call(ids)


@pytest.mark.parametrize("unknown", [700, 4159, 10**9])
def test_ids_beyond_the_vocabulary_are_shown(unknown, trained):
    """A model may have more rows than the vocabulary has pieces."""
    the, cat = ids_of("the"), ids_of("cat")
    assert TOKENIZER.decode([*the, unknown, *cat]) == "the\ufffd cat"
    assert TOKENIZER.decode([unknown, END, unknown], skip_special_tokens=True) == "\ufffd\ufffd"
    assert TOKENIZER.decode([unknown, *the]) == "\ufffd the"
    assert TOKENIZER.decode([ids_of("\u67ff")[1], unknown, *the]) == "\ufffd\ufffd the"
    assert TOKENIZER.decode(unknown) == TOKENIZER.convert_ids_to_tokens(unknown) == "\ufffd"
    assert TOKENIZER.convert_ids_to_tokens([END, unknown]) == ["|ENDOFTEXT|", "\ufffd"]
    assert (TOKENIZER.id_to_bytes(unknown), TOKENIZER.is_byte(unknown)) == ("\ufffd".encode(), False)
    without_bytes = PersimmonTokenizer(trained(byte_fallback=False, vocab_size=400))
    assert without_bytes.decode([*without_bytes.encode("a a"), unknown]) == "|ENDOFTEXT|a a\ufffd"


def test_ids_come_in_any_form():
    ids = ids_of("shapes of ids")
    for form in (tuple(ids), np.array(ids), torch.tensor(ids), torch.tensor(ids, dtype=torch.int32), [*np.array(ids)]):
        assert TOKENIZER.decode(form) == "shapes of ids"
    for one in (ids[0], torch.tensor(ids[0])):
        assert TOKENIZER.decode(one) == SENTENCEPIECE.decode([ids[0]])
    assert TOKENIZER.batch_decode([ids, [END]]) == ["shapes of ids", "|ENDOFTEXT|"]
    assert TOKENIZER.batch_decode(torch.tensor([[END, *ids]] * 2), skip_special_tokens=True) == ["shapes of ids"] * 2


def test_several_rows_are_sent_to_batch_decode():
    with pytest.raises(TypeError, match="batch_decode"):
        TOKENIZER.decode(torch.tensor([[1, 2], [3, 4]]))


@thorough
@given(st.lists(st.sampled_from([*" .?!,'am", " ' ", "n't", "'m", "'s", "'ve", "'re"])).map("".join))
@example("it ' s so , is n't it ?")
def test_spaces_are_cleaned_up_as_transformers_does(text):
    text = text.strip()
    cleaned = TOKENIZER.decode(ids_of(text), clean_up_tokenization_spaces=True)
    assert cleaned == transformers.PreTrainedTokenizerBase.clean_up_tokenization(None, text)


# The vocabulary


def test_pieces_and_ids():
    pieces = ["\u2581the", "\n", "<0x0A>", "|ENDOFTEXT|", "<s>"]
    ids = TOKENIZER.convert_tokens_to_ids(pieces)
    assert TOKENIZER.convert_ids_to_tokens(ids) == pieces
    assert TOKENIZER.convert_ids_to_tokens(ids[0]) == "\u2581the"
    assert TOKENIZER.convert_tokens_to_ids("\n") == ids[1]
    assert TOKENIZER.convert_tokens_to_ids("no such piece") == TOKENIZER.unk_token_id
    assert [TOKENIZER.id_to_bytes(index) for index in ids] == [b" the", b"\n", b"\n", b"|ENDOFTEXT|", b"<s>"]
    assert len(TOKENIZER) == TOKENIZER.vocab_size == len(TOKENIZER.get_vocab()) == 700
    assert TOKENIZER.get_vocab()["\u2581the"] == ids[0]


@thorough
@given(texts)
def test_bytes_of_ids_are_the_text(text):
    data = b"".join(map(TOKENIZER.id_to_bytes, ids_of(text)))
    assert data.decode("utf-8") == (" " + text if text else "").replace("\u2581", " ")


def test_special_tokens_by_default(trained):
    assert TOKENIZER.bos_token == TOKENIZER.eos_token == TOKENIZER.pad_token == "|ENDOFTEXT|"
    assert TOKENIZER.bos_token_id == TOKENIZER.eos_token_id == TOKENIZER.pad_token_id == END == 3
    assert (TOKENIZER.unk_token, TOKENIZER.unk_token_id) == ("<unk>", 0)
    assert TOKENIZER.all_special_tokens == ["<unk>", "<s>", "</s>", "|ENDOFTEXT|"]

    plain = PersimmonTokenizer(trained(user_defined_symbols=["\n"]))
    assert (plain.bos_token, plain.eos_token, plain.pad_token) == ("<s>", "</s>", "</s>")
    assert plain.all_special_tokens == ["<unk>", "<s>", "</s>"]

    bare = PersimmonTokenizer(trained(user_defined_symbols=["\n"], bos_id=-1, eos_id=-1))
    assert (bare.bos_token_id, bare.eos_token_id, bare.pad_token_id) == (None, None, None)
    assert bare.encode("one") == bare.sp_model.encode("one")
    with pytest.raises(ValueError, match="neither a pad_token nor an eos_token"):
        bare(["one", "one two"], padding=True)


def test_special_tokens_may_be_chosen():
    tokenizer = PersimmonTokenizer(FOLDER / "tokenizer.model", bos_token="<s>", eos_token="</s>", add_eos_token=True)
    assert tokenizer.encode("one") == [1, *ids_of("one"), 2]
    assert tokenizer.pad_token == "</s>"
    tokenizer.pad_token = "<unk>"
    assert tokenizer.pad_token_id == 0
    tokenizer.add_bos_token = False
    assert tokenizer.encode("one") == [*ids_of("one"), 2]
    # Still the end of a document, whatever the names say.
    assert END not in tokenizer.encode("|ENDOFTEXT|")


def test_an_unknown_special_token_is_refused():
    with pytest.raises(ValueError, match=r"special token '\[PAD\]' is not one of the 700 pieces"):
        PersimmonTokenizer(FOLDER / "tokenizer.model", pad_token="[PAD]")


def test_tokenizers_travel_to_other_processes():
    for twin in (pickle.loads(pickle.dumps(TOKENIZER)), copy.deepcopy(TOKENIZER)):
        assert twin.encode("one |ENDOFTEXT| two") == TOKENIZER.encode("one |ENDOFTEXT| two")
