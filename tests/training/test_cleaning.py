"""Chats made fit to learn from."""

import doctest

import pytest

from persimmon_lab.training import cleaning, readers
from persimmon_lab.training.cleaning import clean_segments, is_clean, is_sensible, tidy


@pytest.mark.parametrize("module", [cleaning, readers])
def test_the_examples_in_the_docstrings(module):
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    "message",
    [
        "what the FUCK", "that is bullshit", "see www.example.com", "http://x.y", "write to me@example.org",
        "I am @somebody",
        "call 801-555-0199", "call (801) 555 0199", "my number is 8015550199", "add me on snapchat", "#blessed day",
        "how many points do you have", "the chitchat app", "it is on example.com",
    ],
)  # fmt: skip
def test_profanity_addresses_and_service_talk_are_caught(message: str):
    assert not is_clean(message)


@pytest.mark.parametrize(
    "message",
    ["I have a class at 10.30", "We had a Scunthorpe cocktail", "It was $1,200 in 2018", "I passed my class", "Hello!"],
)
def test_plain_talk_passes(message: str):
    assert is_clean(message)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("i dont know", "I don't know."),
        ("thats great!!! whats up", "That's great! What's up?"),
        ("HELLO THERE", "Hello there."),
        ("sooooo good 😀😀", "Soo good."),
        ("hahahaha yes", "Haha yes."),
        ("wow... ok", "Wow... okay."),
        ("do you like it", "Do you like it?"),
        ("I see you. what is it", "I see you. What is it?"),
        ("“nice”", '"nice"'),
        ("😀", ""),
        ("Already fine, isn't it?", "Already fine, isn't it?"),
    ],
)
def test_tidy(message: str, expected: str):
    assert tidy(message) == expected
    assert tidy(expected) == expected


def test_sensible_turns():
    assert is_sensible("That sounds good.")
    assert not is_sensible("test test test test test.")
    assert not is_sensible("1234 5678 9.")
    assert not is_sensible("word " * 100)


def test_consecutive_messages_of_one_sender_become_one_turn():
    chat = [("a", "hello"), ("a", "how are you"), ("b", "good"), ("b", "you?"), ("a", "fine thanks")]
    assert clean_segments(chat) == [["Hello. How are you?", "Good. You?", "Fine thanks."]]


def test_an_unfit_turn_parts_the_chat_and_is_left_out():
    chat = [("a", "hello there"), ("b", "hi to you"), ("a", "nice day"), ("a", "call 801-555-0199"),
            ("b", "it is nice"), ("a", "it surely is")]  # fmt: skip
    assert clean_segments(chat) == [["Hello there.", "Hi to you."], ["It is nice.", "It surely is."]]


def test_short_monologue_and_repetitive_chats_are_dropped():
    assert clean_segments([("a", "hello"), ("a", "is anybody here")]) == []
    assert clean_segments([("a", "hello"), ("b", "what the hell"), ("a", "bye then")]) == []
    assert clean_segments([("a", "hello friend"), ("b", "hi you")] * 5) == []
