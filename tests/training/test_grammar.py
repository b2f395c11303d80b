"""Everyday talk by a grammar: its data hold together, its answers stay true, and it gives nothing held out away."""

import re
from collections import Counter
from functools import cache
from itertools import chain

import numpy as np
import pytest

from persimmon_lab.training import grammar
from persimmon_lab.training.conversation import OPENINGS
from persimmon_lab.training.grammar import (
    KINDS,
    SHARES,
    Kind,
    an_everyday_chat,
    answered,
    around,
    continued,
    doubled,
    filled,
    form_names,
    kinds,
    mixed,
    moods,
    retold,
    surrounded,
    words,
)
from persimmon_lab.training.skills.facts import RELATIONS
from persimmon_lab.training.skills.names_remembered import THINGS
from persimmon_lab.training.skills.not_knowing import UNANSWERABLE
from persimmon_lab.training.templates import SLOT, Turn

ALL = list(chain.from_iterable(kinds().values()))
FORMS = {f"{slot}_{form}" if form else slot for slot in words() for form in form_names().get(slot, ("",))}
NAMES = FORMS | {f"{name}_you" for name in FORMS}


def slots(text: str) -> set[str]:
    """The slots of a text, whatever their forms."""
    return {name.partition("_")[0] for name in SLOT.findall(text)}


@cache  # drawing is slow where annotations are checked
def drawn(count: int = 2500, seed: int = 3) -> list[list[str]]:
    """The lines of chats, without who said them."""
    generator = np.random.default_rng(seed)
    chats = [an_everyday_chat(generator) for _ in range(count)]
    return [[line.partition(": ")[2] for line in chat.split("\n\n")] for chat in chats]


def test_there_are_many_kinds_with_many_wordings():
    assert len(ALL) >= 85 and len({kind.name for kind in ALL}) == len(ALL)
    assert sum(SHARES) == pytest.approx(1) and len(SHARES) == len(KINDS)
    for kind in ALL:
        assert len(set(kind.ask)) == len(kind.ask) >= 4, kind.name
        assert len(set(kind.answer)) == len(kind.answer) >= (4 if kind.mood or not slots(kind.ask[0]) else 5), kind.name
        assert all(len(turn.ask) >= 3 and len(turn.answer) >= 3 for turn in kind.then), kind.name
    lists = {slot: len(entries) for slot, entries in words().items()}
    assert lists["deed"] > 250 and lists["topic"] > 140 and lists["loss"] > 60 and lists["feat"] > 60
    assert sum(lists.values()) > 1800


def test_every_slot_has_words_and_every_word_its_forms():
    for kind in ALL:
        mood = moods()[kind.mood].then if kind.mood else ()
        for line in chain.from_iterable((*turn.ask, *turn.answer) for turn in (kind, *kind.then, *mood)):
            assert set(SLOT.findall(line)) <= NAMES, line
    for slot, entries in words().items():
        assert "_" not in slot
        assert len(entries) == len(set(entries)), slot
        for forms in entries:
            assert len(forms) == len(form_names().get(slot, ("",))), forms
            assert set(chain.from_iterable(map(SLOT.findall, forms))) <= NAMES, forms
            assert all(form == form.strip() and form.isascii() and form for form in forms), forms


def test_an_answer_takes_up_nothing_that_was_not_said():
    for kind in ALL:
        for answer in kind.answer:
            assert all(slots(answer) <= slots(ask) for ask in kind.ask), (kind.name, answer)
        for turn in kind.then:
            for answer in turn.answer:
                said = [slots(first) | slots(then) for first in kind.ask for then in turn.ask]
                assert all(slots(answer) <= known for known in said), (kind.name, answer)
    general = [*chain.from_iterable((*mood.first, *mood.rest) for mood in moods().values())]
    general += chain.from_iterable(turn.answer for mood in moods().values() for turn in mood.then)
    general += chain.from_iterable(turn.answer for turn in (*around().greetings, around().advice, around().mixed))
    assert not any(SLOT.search(line) for line in general)


def test_answers_are_plain_text_that_ends():
    for kind in ALL:
        for answer in chain(kind.answer, *(turn.answer for turn in kind.then)):
            assert answer == answer.strip() and answer.isascii() and answer[-1] in ".!?", answer
            assert answer[0].isupper() or answer.startswith("{"), answer


def test_a_word_keeps_its_value_and_turns_in_the_others_mouth():
    values: dict[str, str] = {}
    generator = np.random.default_rng(0)
    ask = filled("I {loss} and I {deed_past}, after {deed_ing}.", values, generator)
    answer = filled("{loss_you}? So you {deed_past_you}.", values, generator)
    assert values["loss"] in ask and values["deed_past"] in ask and values["deed_ing"] in ask
    assert answer == f"{values['loss_you'].capitalize()[:1]}{values['loss_you'][1:]}? So you {values['deed_past_you']}."
    for seed in range(400):
        values = {}
        filled("{loss} {feat} {deed} {sorrow} {belief} {why} {chore} {about}", values, np.random.default_rng(seed))
        for name in values:
            if name.endswith("_you") and not re.search(r"\byou", values[name.removesuffix("_you")]):
                assert not re.search(r"\b(I|I'm|my|me|mine)\b", values[name]), values[name]
    with pytest.raises(KeyError):
        filled("{nothing}", {}, generator)


def test_articles_fit():
    assert filled("I have a {pet}.", {"pet": "old dog"}, np.random.default_rng(0)) == "I have an old dog."
    text = "\n".join(chain.from_iterable(drawn()))
    assert not re.findall(r"\b[Aa] (?!one\b|us|uni|eu)[aeiou]\w*", text)
    assert not re.findall(r"\b[Aa]n (?!hour|honest|[AX]\b)[^aeiouAEIOU]\w*", text)
    assert not SLOT.search(text) and "  " not in text


def test_a_chat_goes_in_turns_and_ends_with_an_answer():
    generator = np.random.default_rng(1)
    lengths = Counter()
    for _ in range(600):
        said = [line.partition(": ")[0] for line in an_everyday_chat(generator).split("\n\n")]
        assert said == ["human", "adept"] * (len(said) // 2)
        lengths[len(said) // 2] += 1
    assert set(lengths) == {1, 2, 3} and lengths[1] > 300 and lengths[3] > 20
    first = [an_everyday_chat(np.random.default_rng(7)) for _ in range(2)]
    assert first[0] == first[1] != an_everyday_chat(np.random.default_rng(8))


def test_a_mood_has_its_words_and_no_others():
    generator = np.random.default_rng(2)
    every = {name: {*mood.first} for name, mood in moods().items()}
    for kind in ALL:
        if not kind.mood:
            continue
        values: dict[str, str] = {}
        filled(kind.ask[0], values, generator)
        answers = [answered(kind, values, generator) for _ in range(200)]
        firsts = [next((word for word in every[kind.mood] if said.startswith(word)), "") for said in answers]
        assert abs(sum(map(bool, firsts)) / 200 - grammar.FIRST[kind.mood]) < 0.14, kind.name
        assert len({*firsts}) > 3
        strange = set().union(*every.values()) - every[kind.mood]
        assert not any(said.startswith(tuple(strange)) for said in answers), kind.name
    sad, glad = every["sad"], every["glad"]
    assert not sad & glad and not sad & every["open"] and not glad & every["open"]


def test_what_goes_wrong_is_sad_and_what_goes_well_is_not():
    moods_of = {"loss": "sad", "sorrow": "sad", "petbad": "sad", "skybad": "sad", "sad": "sad",
                "feat": "glad", "joy": "glad", "petgood": "glad", "skygood": "glad", "childjoy": "glad"}  # fmt: skip
    for kind in kinds()["statements"]:
        for slot in set().union(*map(slots, kind.ask)) & set(moods_of):
            assert kind.mood in (moods_of[slot], "open"), (kind.name, slot)


def test_two_things_of_one_mood_are_said_and_the_second_is_answered():
    first = next(kind for kind in ALL if kind.name == "a loss")
    for seed in range(60):
        ask, kind, values = doubled("I lost my keys.", first, np.random.default_rng(seed))
        assert kind.mood == "sad" and ask.startswith("I lost my keys")
        assert not values or any(value.lower() in ask.lower() for value in values.values())
        second = re.fullmatch(r"I lost my keys(\. | and )(.+)", ask)
        assert second
        asks = [SLOT.sub("~", line).replace("~", ".+") if SLOT.search(line) else re.escape(line) for line in kind.ask]
        assert any(re.fullmatch(line, second[2], re.IGNORECASE) for line in asks), ask


def test_what_is_good_and_bad_at_once_is_answered_as_both():
    glad = {line.rstrip(".!?") for kind in kinds()["statements"] if kind.mood == "glad" for line in kind.ask}
    patterns = re.compile("|".join(SLOT.sub(".+", re.sub(r"([{}])", r"\1", line)) for line in glad if line[0] != "{"))
    for seed in range(60):
        ask, answer = mixed("I lost my keys.", "glad", np.random.default_rng(seed))
        assert re.match(r"I lost my keys(,|\.)? [bB]ut \S", ask) and answer in around().mixed.answer
        second = re.split(r" [bB]ut ", ask, maxsplit=1)[1]
        assert second[0].islower() or second[0] == "I" or patterns.match(second), ask


def test_a_greeting_is_returned_and_only_what_is_told_trails_off():
    greetings = around().greetings
    seen = Counter()
    for seed in range(500):
        generator = np.random.default_rng(seed)
        ask, answer = surrounded("My keys are lost.", "Oh no.", seed % 2 == 0, generator)
        greeting = next((turn for turn in greetings if ask.startswith(tuple(f"{line} " for line in turn.ask))), None)
        if greeting and answer != "Oh no.":
            assert answer.removesuffix(" Oh no.") in greeting.answer and ask.endswith(" My keys are lost.")
            seen["greeted"] += 1
        elif ask != "My keys are lost.":
            assert answer == "Oh no."
            if ask.startswith("My keys are lost"):
                assert seed % 2 == 0 and ask.removeprefix("My keys are lost") in around().after
                seen["trailed"] += 1
            else:
                assert ask.endswith("my keys are lost.")
                seen["filled"] += 1
    assert seen["greeted"] > 20 and seen["filled"] > 12 and seen["trailed"] > 4


def test_names_stay_large():
    assert continued("My dog ran.") == "my dog ran." and continued("What now?") == "what now?"
    assert continued("I ran.") == "I ran." and continued("Mondays are long.") == "Mondays are long."


def test_our_small_talk_is_heard_by_rule():
    generator = np.random.default_rng(4)
    told = [retold(generator).split("\n\n") for _ in range(200)]
    assert all(len(turns) == 2 and turns[1].startswith("adept: ") for turns in told)
    assert len({turns[0] for turns in told}) > 150
    assert not any(turns[0].endswith("?") for turns in told)


def test_nothing_held_out_is_given_away():
    asked = [line for lines in drawn() for line in lines[::2]]
    runs = {run for line in OPENINGS for run in six_words(line)}
    assert [line for line in asked if runs & six_words(line)] == []
    patterns = [*chain.from_iterable(relation.held_out for relation in RELATIONS.values())]
    patterns += chain.from_iterable(entry["asks"] for entry in UNANSWERABLE[True])
    held_out = re.compile(
        "|".join(SLOT.sub(".+", re.escape(p).replace(r"\{", "{").replace(r"\}", "}")) for p in patterns), re.I
    )
    assert [line for line in asked if held_out.fullmatch(line)] == []
    names = [name for kind in ("name", "pet", "town") for name in THINGS[kind][True]]
    found = re.compile(rf"\b({'|'.join(names)})\b")
    own = chain.from_iterable(chain.from_iterable(entries) for entries in words().values())
    assert [word for word in own if found.search(word)] == []


def six_words(text: str) -> set[tuple[str, ...]]:
    said = re.findall(r"[a-z']+", text.lower())
    return {tuple(said[start : start + 6]) for start in range(len(said) - 5)}


def test_what_it_expands_to_is_varied(report_table):
    chats = ["\n".join(lines) for lines in drawn()]
    twice = 1 - len(set(chats)) / len(chats)
    eights = Counter()
    for chat in chats:
        said = re.findall(r"[a-z']+", chat.lower())
        eights.update(tuple(said[start : start + 8]) for start in range(len(said) - 7))
    row = {"text": f"{sum(map(len, chats)) / 1e6:.1f} MB", "distinct 8-grams of words": f"{len(eights):,}"}
    report_table("2,500 everyday chats", [row | {"seen twice": f"{twice:.1%}"}])
    assert twice < 0.12 and len(eights) > 20_000


def test_statements_come_by_mood_and_what_fits_anything_is_likeliest():
    assert sum(grammar.MOODS.values()) == pytest.approx(1)
    assert {*grammar.MOODS} == {kind.mood for kind in kinds()["statements"]}
    likeliest = {
        name: grammar.FIRST[name] * max(Counter(mood.first).values()) / len(mood.first) * grammar.MOODS[name]
        for name, mood in moods().items()
    }
    assert likeliest["open"] > 2 * max(likeliest["sad"], likeliest["glad"])


def test_kinds_are_drawn_by_the_shares_of_their_files(monkeypatch):
    monkeypatch.setattr(grammar, "MOODS", {"": 1.0})
    files = {
        file: (Kind(ask=(file,), answer=("Yes.",), name=file, mood="", then=(Turn(("So",), ("So.",)),)),)
        for file in KINDS
    }
    monkeypatch.setattr(grammar, "kinds", lambda: files)
    monkeypatch.setattr(grammar, "SMALL_TALK_SHARE", 0.0)
    generator = np.random.default_rng(0)
    chats = [an_everyday_chat(generator) for _ in range(2000)]
    seen = Counter(next(file for file in KINDS if file in chat.partition("\n")[0].lower()) for chat in chats)
    for file, share in zip(KINDS, SHARES, strict=True):
        assert abs(seen[file] / 2000 - share) < 0.05, file
