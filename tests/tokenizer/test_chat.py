"""Adept's dialogue format."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.tokenizer.texts import TOKENIZER

HELLO = {"role": "human", "content": "Hello!"}
ANSWER = {"role": "adept", "content": "Hi, how are you?"}
AGAIN = {"role": "human", "content": "Well."}


@pytest.mark.parametrize(
    ("messages", "prompted", "text"),
    [
        ("Hello!", True, "human: Hello!\n\nadept:"),
        ([HELLO], True, "human: Hello!\n\nadept:"),
        ([HELLO], False, "human: Hello!"),
        ([HELLO, ANSWER], False, "human: Hello!\n\nadept: Hi, how are you?"),
        ([HELLO, ANSWER, AGAIN], True, "human: Hello!\n\nadept: Hi, how are you?\n\nhuman: Well.\n\nadept:"),
        ([{"role": "human", "content": ""}], True, "human: \n\nadept:"),
    ],
)
def test_the_format(messages, prompted, text):
    assert TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompted) == text
    assert TOKENIZER.apply_chat_template(messages, add_generation_prompt=prompted) == TOKENIZER.encode(text)


def test_user_and_assistant_are_human_and_adept():
    renamed = [{**HELLO, "role": "user"}, {**ANSWER, "role": "assistant"}, AGAIN]
    assert TOKENIZER.apply_chat_template(renamed) == TOKENIZER.apply_chat_template([HELLO, ANSWER, AGAIN])


def test_options_go_to_the_encoding():
    tensor = TOKENIZER.apply_chat_template("Hello!", return_tensors="pt")
    assert tensor.tolist() == [TOKENIZER.apply_chat_template("Hello!")]
    encoding = TOKENIZER.apply_chat_template("Hello!", return_tensors="pt", return_dict=True)
    assert encoding.attention_mask.shape == encoding.input_ids.shape == tensor.shape


def test_the_format_is_the_only_one():
    assert TOKENIZER.apply_chat_template("Hello!", chat_template=None) == TOKENIZER.apply_chat_template("Hello!")
    with pytest.raises(TypeError, match="does not take chat_template .use persimmon_lab.tokenizer.chat.render_chat"):
        TOKENIZER.apply_chat_template(conversation=[HELLO], chat_template="{{ messages }}")


def test_a_message_cannot_end_the_document():
    ids = TOKENIZER.apply_chat_template("|ENDOFTEXT|")
    assert ids.count(TOKENIZER.eos_token_id) == 1  # the bos


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ([{"role": "system", "content": "Be kind."}, HELLO], "message 0 has role 'system'; .* knows only"),
        ([ANSWER], "message 0 is from 'adept', but it is human's turn"),
        ([HELLO, AGAIN], "message 1 is from 'human', but it is adept's turn"),
        ([HELLO, ANSWER], "nothing to answer; pass add_generation_prompt=False"),
        ([{"content": "Hello!"}], "message 0 has role None"),
        ([{"role": "human"}], "message 0 is {'role': 'human'}; expected"),
        ([{"role": "human", "content": None}], "message 0 is .*; expected"),
    ],
)
def test_what_is_no_dialogue_is_refused(messages, message):
    with pytest.raises(ValueError, match=message):
        TOKENIZER.apply_chat_template(messages)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    TOKENIZER.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(contents=st.lists(st.text(), min_size=1, max_size=5))
def test_transformers_renders_the_same(peer, contents):
    messages = [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(contents)]
    prompted = len(messages) % 2 == 1
    theirs = peer.apply_chat_template(messages, add_generation_prompt=prompted, return_dict=False)
    assert theirs == TOKENIZER.apply_chat_template(messages, add_generation_prompt=prompted)
