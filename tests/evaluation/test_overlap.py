"""Runs of words that a prompt shares with training text are found word for word, and nothing else is."""

import random

import pytest

from persimmon_lab.evaluation.overlap import CANNOT_SEE, overlaps, words_of

LINE = "Shall I compare thee to a summer's day? Thou art more lovely and more temperate"


def test_words_have_one_case_and_no_punctuation_and_nobody_speaks_them():
    assert words_of("human: What's 7 + 5?\n\nadept: Twelve!") == ("what", "s", "7", "5", "twelve")
    assert words_of("a human: being") == ("a", "human", "being")


def test_a_quoted_prompt_is_covered_whole_whatever_its_case_and_punctuation():
    [overlap] = overlaps([LINE], [f"He read: {LINE.upper().replace('?', ' --')}, and wept."])
    assert overlap.share == 1 and overlap.is_seen
    assert overlap.passages == (" ".join(words_of(LINE)),)


def test_what_is_covered_is_the_run_and_no_word_more():
    [overlap] = overlaps([f"one two {LINE} three"], [LINE], width=5)
    assert overlap.covered == (False, False, *[True] * len(words_of(LINE)), False)
    assert overlap.share == pytest.approx(16 / 19)


def test_a_run_shorter_than_the_width_is_not_found():
    prompt = "the cat sat on the mat and looked at me"
    [overlap] = overlaps([prompt], ["a cat sat on the mat while a dog looked at me"], width=6)
    assert overlap.share == 0 and overlap.passages == ()
    [overlap] = overlaps([prompt], ["a cat sat on the mat while a dog looked at me"], width=5)
    assert overlap.passages == ("cat sat on the mat",)


def test_a_short_prompt_is_looked_for_as_a_whole():
    seen, unseen = overlaps(["What is the capital of France?", "What is the capital of Chad?"],
                            ["Tell me: what is the capital of France, please?"])  # fmt: skip
    assert seen.is_seen and not unseen.is_seen and unseen.share == 0


def test_a_run_does_not_go_on_into_the_next_document():
    assert overlaps([LINE], [LINE])[0].is_seen
    first, second = LINE.split("? ")
    assert overlaps([LINE], [first, second], width=10)[0].share == 0


def test_runs_of_two_documents_add_up():
    first, second = LINE.split("? ")
    [overlap] = overlaps([LINE], [second, first], width=6)
    assert overlap.share == 1


def test_a_prompt_is_seen_from_four_fifths_on():
    words = [f"w{index}" for index in range(20)]
    [seen] = overlaps([" ".join(words)], [" ".join(words[:16])])
    [unseen] = overlaps([" ".join(words)], [" ".join(words[:15])])
    assert (seen.share, seen.is_seen) == (0.8, True)
    assert (unseen.share, unseen.is_seen) == (0.75, False)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_it_equals_asking_for_every_run_in_turn(width):
    """Of few different words, so that runs meet by accident: the plain way, with strings."""
    generator = random.Random(width)
    texts = [" ".join(generator.choices("abcdef", k=generator.randint(0, 30))) for _ in range(40)]
    prompts, documents = texts[:20], texts[20:]
    for prompt, overlap in zip(prompts, overlaps(prompts, documents, width=width), strict=True):
        words = prompt.split()
        size = min(width, len(words))
        expected = [False] * len(words)
        for start in range(len(words) - size + 1):
            run = f" {' '.join(words[start : start + size])} "
            if words and any(run in f" {document} " for document in documents):
                expected[start : start + size] = [True] * size
        assert list(overlap.covered) == expected


def test_a_prompt_without_words_is_not_seen():
    [overlap] = overlaps(["?!"], ["?!"])
    assert overlap.share == 0 and not overlap.is_seen


def test_a_paraphrase_passes_unseen_and_it_says_so():
    [overlap] = overlaps(["Name the city from which France is governed."], ["What is the capital of France? Paris."])
    assert overlap.share == 0
    assert "paraphrase" in CANNOT_SEE


def test_documents_are_read_once_and_one_by_one():
    documents = iter(["nothing", LINE])
    assert overlaps([LINE, LINE], documents)[1].is_seen
    assert next(documents, None) is None


def test_one_string_is_no_list_of_documents():
    with pytest.raises(ValueError, match=r"training is one string; give a list of documents, or \[text\]"):
        overlaps([LINE], LINE)


@pytest.mark.parametrize("width", [0, -3])
def test_a_run_has_a_word(width):
    with pytest.raises(ValueError, match=f"width is {width}"):
        overlaps([LINE], [LINE], width=width)
