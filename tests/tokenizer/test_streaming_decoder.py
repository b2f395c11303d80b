"""Text that streams: never half a character, and in the end the same as decoding at once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.generation.streaming import stream
from persimmon_lab.tokenizer import PersimmonTokenizer, StreamingDecoder
from tests.fixtures.tokenizer.make import train
from tests.tokenizer.texts import FOLDER, TOKENIZER, texts, thorough


@thorough
@given(st.lists(st.integers(0, TOKENIZER.vocab_size + 100) | st.integers(0, 300), max_size=20))
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
    for ids in (
        [space, space, space, word],
        [word, word],
        [space, end, space, space, word],
        [200, space, word],
        [5000, word],
        [space, 5000, space, word],
        [space, space, 5000, end, word, 5000],
    ):
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


def test_a_negative_id_is_named():
    with pytest.raises(ValueError, match="token id -100 is none"):
        StreamingDecoder(TOKENIZER).push(-100)


def test_a_model_with_more_rows_than_pieces_streams_and_stops():
    """Such a model may write an id without a piece: the text goes on, and a stop string after it is seen."""
    model = PersimmonForCausalLM(PersimmonConfig.tiny(vocab_size=len(TOKENIZER)), torch.Generator().manual_seed(0))
    model.resize_token_embeddings(len(TOKENIZER) + 60)
    unknown = len(TOKENIZER) + 5
    prompt = TOKENIZER("the", return_tensors="pt").input_ids
    planned = [unknown, *TOKENIZER.encode("a b", add_special_tokens=False), unknown, unknown]

    def write_what_is_planned(ids, scores):
        forced = torch.full_like(scores, -1e9)
        forced[:, planned[ids.shape[1] - prompt.shape[1]]] = 0.0
        return forced

    options = {"max_new_tokens": len(planned), "logits_processor": [write_what_is_planned]}
    text = "".join(event.text for event in stream(model, TOKENIZER, prompt, **options))
    assert text == "\ufffd a b\ufffd\ufffd"
    stopped = stream(model, TOKENIZER, prompt, stop_strings=["\ufffd a"], **options)
    assert "".join(event.text for event in stopped) == ""
    written = model.generate(prompt, tokenizer=TOKENIZER, stop_strings=["b"], **options)
    assert TOKENIZER.decode(written[0], skip_special_tokens=True) == "the\ufffd a b"
