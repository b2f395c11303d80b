"""Small talk and stories of our own: that they are what they must be, and what they expand to."""

import re
from collections import Counter
from importlib.resources import files
from itertools import chain

import numpy as np
import pytest

from persimmon_lab.training import templates
from persimmon_lab.training.templates import (
    CLOSINGS,
    OPENINGS,
    SLOT,
    Exchange,
    Story,
    Turn,
    a_conversation,
    a_story,
    as_typed,
    exchanges,
    fill,
    said,
    stories,
    taking_up,
    telling,
)

ALL = list(chain.from_iterable(exchanges().values()))
TURNS = [turn for exchange in ALL for turn in (exchange, *exchange.then)]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def runs(text: str, length: int) -> set[tuple[str, ...]]:
    """Every run of `length` words."""
    said_words = words(text)
    return {tuple(said_words[start : start + length]) for start in range(len(said_words) - length + 1)}


def test_there_are_as_many_as_promised():
    assert len(ALL) >= 800 and len(stories()) >= 80
    assert {OPENINGS, CLOSINGS} < set(exchanges())


def test_every_exchange_has_wordings_and_a_follow_up():
    for exchange in ALL:
        assert len(set(exchange.ask)) == len(exchange.ask) >= 3, exchange.ask
        assert len(set(exchange.answer)) == len(exchange.answer) >= 3, exchange.ask
        assert exchange.then and all(len(turn.ask) >= 2 and len(turn.answer) >= 2 for turn in exchange.then)


def test_lines_are_plain_text_that_ends():
    for line in chain.from_iterable((*turn.ask, *turn.answer) for turn in TURNS):
        assert line == line.strip() and line.isascii() and line[-1] in '.!?"', line
        assert "\n" not in line and "human:" not in line and "adept:" not in line


@pytest.mark.parametrize("kind", [ALL, stories()], ids=["exchanges", "stories"])
def test_every_slot_is_known_and_has_values(kind):
    for entry in kind:
        turns = (entry, *entry.then) if isinstance(entry, Exchange) else ()
        lines = [*chain.from_iterable(entry.sentences)] if isinstance(entry, Story) else []
        lines += chain.from_iterable((*turn.ask, *turn.answer) for turn in turns)
        for slot in {slot for line in lines for slot in SLOT.findall(line)}:
            assert len(entry.slots[slot]) >= 4, slot


def test_stories_are_short_and_have_wordings():
    for story in stories():
        assert 4 <= len(story.sentences) <= 10
        assert all(len(set(sentence)) >= 2 for sentence in story.sentences)


def test_a_conversation_goes_in_turns_and_ends_with_an_answer():
    generator = np.random.default_rng(0)
    lengths = Counter()
    for _ in range(300):
        turns = a_conversation(generator).split("\n\n")
        assert [turn.partition(": ")[0] for turn in turns] == ["human", "adept"] * (len(turns) // 2)
        assert not any(SLOT.search(turn) for turn in turns)
        lengths[len(turns) // 2] += 1
    assert set(lengths) <= set(range(1, 9)) and lengths[1] > 60 and len(lengths) >= 4


def test_a_slot_keeps_its_value_through_an_exchange():
    exchange = Exchange(
        ask=("My {pet} is ill.",), answer=("Poor {pet}!",), then=(Turn(("The {pet} sleeps.",), ("Good {pet}.",)),),
        slots={"pet": ("cat", "dog", "hen")},
    )  # fmt: skip
    seen = set()
    for seed in range(40):
        lines = said(exchange, np.random.default_rng(seed))
        pets = {pet for line in lines for pet in ("cat", "dog", "hen") if pet in line}
        assert len(pets) == 1 and len(lines) in (2, 4)
        seen |= pets | {len(lines)}
    assert seen == {"cat", "dog", "hen", 2, 4}


def test_a_slot_that_begins_a_line_is_capitalised():
    assert fill("{pet} and I saw {pet}s.", {"pet": "cat"}) == "Cat and I saw cats."


def test_an_answer_takes_up_what_was_said_where_one_can():
    exchange = Exchange(
        ask=("My violin is out of tune.", "The {pet} howls."), then=(), slots={"pet": ("cat",)},
        answer=("Violins need care.", "Oh dear, that.", "Is the {pet} old?"),
    )  # fmt: skip
    assert taking_up(exchange.ask[0], exchange.answer) == ["Violins need care."]
    assert taking_up(exchange.ask[1], exchange.answer) == ["Is the {pet} old?"]
    assert taking_up("Nothing of that.", exchange.answer) == exchange.answer
    assert not telling("I think that sounds very good, what would you like to do about that?")
    said_to = Counter(tuple(said(exchange, np.random.default_rng(seed))) for seed in range(600))
    fits = sum(count for (ask, answer), count in said_to.items() if ("iolin" in ask) == ("iolin" in answer)
               and ("cat" in ask.lower()) == ("cat" in answer))  # fmt: skip
    assert abs(fits / 600 - (0.8 + 0.2 / 3)) < 0.06


def test_people_do_not_always_type_tidily():
    typed = Counter(as_typed("Is it Anna?", np.random.default_rng(seed)) for seed in range(600))
    assert set(typed) == {"Is it Anna?", "Is it Anna", "is it anna?", "is it anna"}
    assert typed["Is it Anna?"] / 600 == pytest.approx(1 - templates.PLAIN, abs=0.05)


def test_drawing_depends_on_the_generator_alone():
    for draw in (a_conversation, a_story):
        first = [draw(np.random.default_rng(7)) for _ in range(2)]
        assert first[0] == first[1] != draw(np.random.default_rng(8))


def test_what_they_expand_to_is_varied(report_table):
    generator = np.random.default_rng(0)
    rows = []
    for name, draw, most_twice in (("conversations", a_conversation, 0.02), ("stories", a_story, 0.001)):
        texts = [draw(generator) for _ in range(5000)]
        twice = 1 - len(set(texts)) / len(texts)
        eights = Counter(run for text in texts for run in runs(text, 8))
        rows.append(
            {
                "what": name,
                "text": f"{sum(map(len, texts)) / 1e6:.1f} MB",
                "distinct 8-grams of words": f"{len(eights):,}",
                "seen twice": f"{twice:.1%}",
            }
        )
        assert twice < most_twice
        assert len(eights) > 40_000
    report_table("5,000 expanded conversations and stories", rows)


def test_no_opening_to_be_judged_shares_six_words_in_a_row_with_a_template():
    """The openings were written by somebody who had not seen the templates; nothing may be taught of them."""
    opened = (files(templates.__package__) / "openings.txt").read_text(encoding="utf-8").splitlines()
    assert len(opened) == len(set(opened)) == 100
    taught = set().union(*(runs(ask, 6) for turn in TURNS for ask in turn.ask))
    assert [line for line in opened if runs(line, 6) & taught] == []


def test_turns_of_one_exchange_do_not_run_into_each_other():
    """A follow-up is another question than the one it follows."""
    for exchange in ALL:
        for turn in exchange.then:
            assert not set(map(str.lower, turn.ask)) & set(map(str.lower, exchange.ask)), turn.ask


def test_sentences_of_a_story_follow_in_order(monkeypatch):
    story = Story(
        (("One {pet}.", "A {pet}."), ("Then two.", "Two then."), ("Last.", "The end.")), {"pet": ("cat", "dog")}
    )
    monkeypatch.setattr(templates, "stories", lambda: (story,))
    told = {a_story(np.random.default_rng(seed)) for seed in range(80)}
    assert len(told) == 16 and "A dog. Two then. The end." in told and "One cat. Then two. Last." in told
