"""A listener takes up what was said: its words, turned, and nothing that leans on what came before."""

import re
from collections import Counter

import numpy as np
import pytest

from persimmon_lab.training import listening as module
from persimmon_lab.training.listening import (
    ABOUT,
    ECHOES,
    GLAD,
    QUESTIONS,
    SAD,
    STATEMENTS,
    SYMPATHY,
    feeling,
    heard,
    listening,
    turned,
)
from persimmon_lab.training.readers import Document


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("I'm proud of my sister", "you're proud of your sister"),
        ("My dog saw me and I wasn't there", "your dog saw you and you weren't there"),
        ("do you like your job", "do me like my job"),
        ("we lost our map", "you lost your map"),
        ("The miner saw a wasp", "The miner saw a wasp"),
    ],
)
def test_the_words_of_one_in_the_mouth_of_the_other(said, expected):
    assert turned(said) == expected


@pytest.mark.parametrize(
    ("said", "taken_up", "feels"),
    [
        ("I burned the rice again lol", "ou burned the rice again", "sad"),
        ("Yeah, well, my grandma is turning 90 this weekend!", "our grandma is turning 90 this weekend", ""),
        ("It's a beautiful day.", "t's a beautiful day", "glad"),
        ("I want to go camping this summer", "ou want to go camping this summer", ""),
        ("The bus was late again.", "he bus was late again", "sad"),
    ],
)
def test_what_is_said_is_taken_up_with_sympathy(said, taken_up, feels):
    assert feeling(said) == feels
    generator = np.random.default_rng(0)
    replies = [heard(said, generator) for _ in range(300)]
    often, words, rest = SYMPATHY[feels]
    near = tuple(way.format(near=taken_up.split()[1]) for way in ABOUT)
    said_again = [taken_up in reply for reply in replies]
    assert abs(sum(said_again) / 300 - ECHOES) < 0.1
    plain = [reply for reply, again in zip(replies, said_again, strict=True) if not again]
    assert all(reply.endswith(near if taken_up.startswith("our") else rest) for reply in plain)
    assert len(set(replies)) > 6
    felt = [reply for reply in replies if reply.startswith(words)]
    assert abs(len(felt) / 300 - often) < 0.1
    other = [word for name, (_, words, _) in SYMPATHY.items() if name != feels for word in words]
    assert not any(reply.startswith(tuple(other)) for reply in replies)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("I lost my keys", "sad"),
        ("I'm not happy with this", "sad"),
        ("I don't feel good at all", "sad"),
        ("I never feel lonely", ""),
        ("I like slow and rainy mornings", ""),
        ("I love the cold", "glad"),
        ("I need a vacation", ""),
        ("I need a break, I'm so tired", "sad"),
        ("I won, but I'm sick", ""),
        ("We went to the store", ""),
        ("Sad and happy and nice", "glad"),
    ],
)
def test_how_it_feels(said, expected):
    assert feeling(said) == expected


def test_the_words_of_feelings_are_read_once_and_part():
    assert isinstance(SAD, frozenset) and isinstance(GLAD, frozenset)
    assert len(SAD) > 150 and len(GLAD) > 80 and not SAD & GLAD
    assert all(word == word.lower() and word.isalpha() for word in SAD | GLAD)


def test_of_what_is_long_only_the_first_clause_is_said_again(monkeypatch):
    monkeypatch.setattr(module, "ECHOES", 1.0)
    generator = np.random.default_rng(0)
    for _ in range(20):
        reply = heard("I baked a pie, but the dog that my aunt gave us ate it all before we came home.", generator)
        assert "ou baked a pie" in reply and "dog" not in reply
        long = heard("I have read nearly every book on the shelf that my late uncle once built himself.", generator)
        assert "shelf" not in long and long.endswith(SYMPATHY[feeling("late")][2])


def test_who_is_near_is_asked_about(monkeypatch):
    monkeypatch.setattr(module, "ECHOES", 0.0)
    generator = np.random.default_rng(0)
    replies = {heard("I went to town with my little sister.", generator) for _ in range(60)}
    assert all(reply.endswith(tuple(way.format(near="little sister") for way in ABOUT)) for reply in replies)
    assert not any("your" in heard("I went to town with my own mind.", generator) for _ in range(20))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Do you like green tea?", {"I only know green tea from what I have read. Do you like green tea?",
                                    "I like to hear about green tea. And you, do you like green tea?"}),
        ("Have you ever lost your keys?", {"No, I have never lost my keys. Have you?"}),
        ("Can you bring me my coat?", {"I'm afraid I can't bring you your coat. All I do is talk."}),
        ("do you go out with your family?", {"No, I don't go out with my family. Tell me about you."}),
        ("What's your favorite color?", {"I don't have a favorite color. What's yours?"}),
        ("Should I call my dad?", {"That's for you to say. Do you want to call your dad?"}),
        ("What's a good idea?", {"I don't know much about that. What would be a good idea for you?"}),
        ("What do you think of my plan?", {"I know little about your plan. What do you think?"}),
        ("Where did you grow up?", {"I have no life like yours, so I can't say. How is it with you?",
                                    "I'm a language model, so that is nothing for me. What about you?"}),
        ("How do planes fly?", {"I don't know that. Do you?"}),
    ],
)  # fmt: skip
def test_questions_are_answered_by_what_they_ask(asked, expected):
    generator = np.random.default_rng(1)
    replies = {heard(asked, generator) for _ in range(40)}
    assert expected <= replies
    assert not any(re.search(r"[{}]|do me|me like", reply) for reply in replies)


@pytest.mark.parametrize(
    "said",
    [
        "I see.", "I think so.", "That's true.", "I like them a lot.", "Nice to meet you!", "I told you my name.",
        "Why?", "The war heads.", "What is the capital of Norway?", "What is your name?", "How are you today?",
        "What is 3 plus 4?", "I don't want to live anymore.", "What comes after Monday?", "What? No.",
        "I " + "really " * 30 + "like it.", "My friend (the old one) left.", "",
    ],
)  # fmt: skip
def test_what_says_nothing_alone_is_left(said):
    assert heard(said, np.random.default_rng(0)) is None


def test_every_rule_is_used_and_no_reply_has_a_hole():
    """Each pattern is the first to match some sentence, so none is dead."""
    sentences = [
        "I want to sleep", "I have to sleep", "I can't sleep now", "I don't sleep much", "I love my bed",
        "I'm about to go", "I'm reading a book", "I'm so tired", "I have a cat",
        "I'll be back soon", "I hate my job", "I think it rains", "My cat sleeps",
        "I saw a cat", "I sing at night", "It's raining again",
    ]  # fmt: skip
    first = [next(p for p in STATEMENTS if re.match(p, turned(one.replace("It's", "it's")))) for one in sentences]
    assert first == list(STATEMENTS)
    questions = [
        "do you like tea", "do you have a cat", "do you play chess", "have you ever seen it", "can you dance",
        "what is your favorite day", "what do you think of tea", "should I go", "how do I cook", "what should I do",
        "what's a nice gift", "where is your home", "where is the moon",
    ]  # fmt: skip
    first = [next(p for p in QUESTIONS if re.fullmatch(p, one, re.IGNORECASE)) for one in questions]
    assert first == list(QUESTIONS)
    generator = np.random.default_rng(0)
    for one in [f"{s}." for s in sentences] + [f"{q}?" for q in questions]:
        for _ in range(20):
            reply = heard(one, generator)
            assert reply and "{" not in reply and reply[0].isupper() and reply[-1] in ".?!", (one, reply)


def test_turns_become_exchanges_alone_and_with_the_rest_of_the_turn():
    text = "human: Haha. I saw a cat today. It's so small!\n\nadept: Wow.\n\nhuman: Do you like cats? Them."
    chat = Document("w", text)
    found = list(listening([chat], np.random.default_rng(0)))
    assert {document.work for document in found} == {"w"}
    said = Counter(document.text.split("\n\n")[0].lower().rstrip(".?!") for document in found)
    assert said == Counter(
        f"human: {one}"
        for one in ("i saw a cat today", "it's so small", "haha. i saw a cat today. it's so small", "do you like cats")
    )
    whole = next(d.text for d in found if "haha" in d.text.lower())
    assert whole.partition("adept: ")[2]
    assert all(document.text.count("\n\n") == 1 and "\n\nadept: " in document.text for document in found)
    assert [d.text for d in listening([chat], np.random.default_rng(0))] == [d.text for d in found]
