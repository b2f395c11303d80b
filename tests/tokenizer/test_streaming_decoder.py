"""Text that streams: never half a character, and in the end the same as decoding at once."""

import pytest
from hypothesis import given

from persimmon_lab.tokenizer import PersimmonTokenizer, StreamingDecoder
from tests.fixtures.tokenizer.make import train
from tests.tokenizer.texts import FOLDER, TOKENIZER, id_lists, texts, thorough


@thorough
@given(id_lists)
def test_the_stream_is_the_text(ids):
    for skip in (False, True):
        decoder = StreamingDecoder(TOKENIZER, skip_special_tokens=skip)
        for _ in range(2):  # finishing leaves it ready for another text
            text = "".join([*map(decoder.push, ids), decoder.finish()])
            assert text == TOKENIZER.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("add_dummy_prefix", [False, True])
@pytest.mark.parametrize("remove_extra_whitespaces", [False, True])
def test_the_stream_follows_the_model_about_the_first_space(tmp_path, add_dummy_prefix, remove_extra_whitespaces):
    settings = {"add_dummy_prefix": add_dummy_prefix, "remove_extra_whitespaces": remove_extra_whitespaces}
    train(FOLDER / "text.txt", tmp_path / "tokenizer.model", **settings)
    tokenizer = PersimmonTokenizer(tmp_path / "tokenizer.model")
    space, word, end = tokenizer.convert_tokens_to_ids(["\u2581", "\u2581the", "|ENDOFTEXT|"])
    for ids in ([space, space, space, word], [word, word], [space, end, space, space, word], [200, space, word]):
        decoder = StreamingDecoder(tokenizer)
        assert "".join([*map(decoder.push, ids), decoder.finish()]) == tokenizer.decode(ids)


@thorough
@given(texts)
def test_a_valid_text_is_never_shown_broken(text):
    decoder = StreamingDecoder(TOKENIZER)
    shown = ""
    for index in TOKENIZER.encode(text, add_special_tokens=False):
        shown += decoder.push(index)
        assert text.replace("\u2581", " ").startswith(shown)
    assert decoder.finish() == ""


def test_a_character_is_held_back_until_its_last_byte():
    decoder = StreamingDecoder(TOKENIZER)
    ids = TOKENIZER.encode("a\U0001f431b", add_special_tokens=False)
    assert [*map(decoder.push, ids)] == ["a", "", "", "", "\U0001f431", "b"]


def test_broken_bytes_are_shown_when_nothing_can_complete_them():
    first, second, third = TOKENIZER.encode("\u67ff", add_special_tokens=False)[1:]
    letter = TOKENIZER.convert_tokens_to_ids("a")
    decoder = StreamingDecoder(TOKENIZER)
    assert [*map(decoder.push, [first, second, letter])] == ["", "", "\ufffd\ufffda"]
    assert [*map(decoder.push, [first, second]), decoder.finish()] == ["", "", "\ufffd\ufffd"]
    assert decoder.push(third) == "\ufffd"


def test_a_special_token_is_skipped_even_inside_a_character():
    first, second, third = TOKENIZER.encode("\u67ff", add_special_tokens=False)[1:]
    ids = [first, TOKENIZER.eos_token_id, second, third]
    assert "".join(map(StreamingDecoder(TOKENIZER, skip_special_tokens=True).push, ids)) == "\u67ff"
    assert "".join(map(StreamingDecoder(TOKENIZER).push, ids)) == "\ufffd|ENDOFTEXT|\ufffd\ufffd"


def test_an_id_outside_the_vocabulary_is_named():
    with pytest.raises(ValueError, match="token id 700 is outside the vocabulary"):
        StreamingDecoder(TOKENIZER).push(700)
