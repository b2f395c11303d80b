"""What collators, trainers and evaluations look up under transformers' names, beside transformers."""

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from persimmon_lab.tokenizer import PersimmonTokenizer
from tests.tokenizer.texts import FOLDER, TOKENIZER, texts, thorough

END = TOKENIZER.eos_token_id
BOTH_ENDS = PersimmonTokenizer(FOLDER / "tokenizer.model", add_eos_token=True)
TEXT = "Love is not love"


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    BOTH_ENDS.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    "name",
    ["special_tokens_map", "mask_token", "mask_token_id", "vocab_size", "model_input_names", "truncation_side"]
    + ["padding_side", "clean_up_tokenization_spaces", "pad_token_type_id"],
)
def test_same_as_transformers(peer, name):
    assert getattr(BOTH_ENDS, name) == getattr(peer, name)


@thorough
@given(text=texts)
def test_pieces_of_a_text(peer, text):
    assert BOTH_ENDS.tokenize(text) == peer.tokenize(text, split_special_tokens=True)
    ids = BOTH_ENDS.encode(text)
    assert BOTH_ENDS.convert_ids_to_tokens(ids, skip_special_tokens=True) == BOTH_ENDS.tokenize(text)
    assert BOTH_ENDS.convert_tokens_to_string(BOTH_ENDS.tokenize(text)) == BOTH_ENDS.decode(ids, True)


@pytest.mark.parametrize("ends", [(True, False), (True, True), (False, False), (False, True)])
def test_special_tokens_around_a_text(ends):
    tokenizer = PersimmonTokenizer(
        FOLDER / "tokenizer.model", add_bos_token=ends[0], add_eos_token=ends[1], model_max_length=100
    )
    plain, coded = tokenizer.encode(TEXT, add_special_tokens=False), tokenizer.encode(TEXT)
    assert tokenizer.build_inputs_with_special_tokens(plain) == coded
    assert tokenizer.build_inputs_with_special_tokens(plain, plain) == coded * 2
    assert tokenizer.num_special_tokens_to_add() == sum(ends) == 100 - tokenizer.max_len_single_sentence
    mask = [int(index == END) for index in coded]
    assert tokenizer.get_special_tokens_mask(coded, already_has_special_tokens=True) == mask
    assert tokenizer.get_special_tokens_mask(plain) == mask
    assert tokenizer.get_special_tokens_mask(plain, plain) == mask * 2
    with pytest.raises(TypeError, match="one text a row"):
        tokenizer.num_special_tokens_to_add(pair=True)


def test_the_vocabulary_alone(tmp_path):
    [path] = TOKENIZER.save_vocabulary(tmp_path / "new", filename_prefix="mine")
    assert path == str(tmp_path / "new" / "mine-tokenizer.model")
    assert PersimmonTokenizer(path).vocab == TOKENIZER.vocab


def test_where_it_is_from():
    assert TOKENIZER.name_or_path == str(FOLDER)
    assert PersimmonTokenizer(FOLDER / "tokenizer.model").name_or_path == ""


@given(st.booleans())
def test_cleaning_is_a_setting(cleaning):
    tokenizer = PersimmonTokenizer(FOLDER / "tokenizer.model", clean_up_tokenization_spaces=cleaning)
    ids = tokenizer.encode("so , is it ?", add_special_tokens=False)
    assert tokenizer.decode(ids) == ("so, is it?" if cleaning else "so , is it ?")
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=not cleaning) != tokenizer.decode(ids)


def test_names_that_are_refused_say_what_to_use():
    with pytest.raises(AttributeError, match=r"PersimmonTokenizer has no encode_plus: use tokenizer\(text\)"):
        TOKENIZER.encode_plus("text")
    assert not hasattr(TOKENIZER, "deprecation_warnings")
    with pytest.raises(AttributeError, match="has no attribute 'encode_minus'"):
        TOKENIZER.encode_minus("text")
    for twin in (pickle.loads(pickle.dumps(TOKENIZER)), copy.deepcopy(TOKENIZER)):
        assert twin.name_or_path == TOKENIZER.name_or_path


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("text_pair", "a call of the tokenizer does not take text_pair .use one text a row"),
        ("return_token_type_ids", "use attention_mask"),
        ("stride", "or cut input_ids yourself"),
        ("no_such_option", "takes no argument 'no_such_option'"),
    ],
)
def test_arguments_that_are_refused_say_what_to_use(option, message):
    for call in (TOKENIZER, TOKENIZER.encode, TOKENIZER.tokenize):
        with pytest.raises(TypeError, match=message):
            call(TEXT, **{option: True})
    if option != "no_such_option":
        assert TOKENIZER(TEXT, **{option: False}) == TOKENIZER(TEXT, **{option: None}) == TOKENIZER(TEXT)


def test_arguments_that_do_nothing_are_told_of(tmp_path):
    with pytest.warns(UserWarning, match="ignores verbose .warnings are Python's"):
        TOKENIZER(TEXT, verbose=True)
    with pytest.warns(UserWarning, match="save_pretrained ignores legacy_format"):
        TOKENIZER.save_pretrained(tmp_path, legacy_format=True)
    with pytest.warns(UserWarning, match="from_pretrained ignores force_download"):
        PersimmonTokenizer.from_pretrained(tmp_path, force_download=True)
    with pytest.raises(TypeError, match="from_pretrained does not take subfolder"):
        PersimmonTokenizer.from_pretrained(tmp_path, subfolder="tokenizer")


def test_a_template_that_nothing_follows_is_refused():
    with pytest.raises(AttributeError, match="has no chat_template: use"):
        PersimmonTokenizer(FOLDER / "tokenizer.model").chat_template = "{{ messages }}"
