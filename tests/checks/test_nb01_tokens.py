"""The marks of notebook 01 accept right answers, written here another way, and name what is wrong with wrong ones."""

import codecs
import math
from functools import cache

import pytest

from persimmon_lab.checks import nb01_tokens as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {"count_cuts": checks.count_cuts, "log_probability_of_text": checks.log_probability_of_text}
TEXT = "how much wood would a woodchuck chuck if a woodchuck could chuck wood " * 6


# Right answers, found another way: by the last piece and by the first, recursively


def count_by_the_first_piece(text, scores):
    @cache
    def ways(start):
        if start == len(text):
            return 1
        return sum(ways(start + len(piece)) for piece in scores if text.startswith(piece, start))

    return ways(0)


def forward(text, scores, combine=None):
    sums = [0.0] + [-math.inf] * len(text)
    for end in range(1, len(text) + 1):
        terms = [sums[s] + scores[text[s:end]] for s in range(end) if text[s:end] in scores and sums[s] > -math.inf]
        if terms:
            top = max(terms)
            sums[end] = top if combine is max else top + math.log(sum(math.exp(term - top) for term in terms))
    return sums[-1]


def without_logs(text, scores):
    sums = [1.0] + [0.0] * len(text)
    for end in range(1, len(text) + 1):
        sums[end] = sum(sums[s] * math.exp(scores[text[s:end]]) for s in range(end) if text[s:end] in scores)
    return math.log(sums[-1]) if sums[-1] else -math.inf


def arcs(text, scores):
    return sum(text[a:b] in scores for a in range(len(text)) for b in range(a + 1, len(text) + 1))


def off_by_one(text, scores):
    sums = [1] + [0] * len(text)
    for end in range(1, len(text) + 1):
        sums[end] = sum(sums[s] for s in range(end - 1) if text[s:end] in scores)
    return sums[-1]


def mean_of_logs(text, scores):
    return forward(text, scores) - math.log(count_by_the_first_piece(text, scores))


# Streams


def hold_back(chunks):
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return [decoder.decode(chunk) for chunk in chunks]


def byte_by_byte_replaced(chunks):
    """As the tokenizer does it: a U+FFFD for each broken byte."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="surrogateescape")
    texts = [decoder.decode(chunk) for chunk in chunks]
    return ["".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in text) for text in texts]


def each_alone(chunks):
    return [chunk.decode("utf-8", errors="replace") for chunk in chunks]


def ignoring(chunks):
    return [chunk.decode("utf-8", errors="ignore") for chunk in chunks]


def all_at_the_end(chunks):
    return [""] * (len(chunks) - 1) + [b"".join(chunks).decode("utf-8", errors="replace")]


def one_late(chunks):
    shown = hold_back(chunks)
    return ["", *shown[:-2], "".join(shown[-2:])] if len(shown) > 1 else shown


def stuck(chunks):
    shown, held = [], b""
    for chunk in chunks:
        held += chunk
        try:
            shown.append(held.decode("utf-8"))
            held = b""
        except UnicodeDecodeError:
            shown.append("")
    return shown


def silent(chunks):
    return [text.replace("\ufffd", "") for text in hold_back(chunks)]


def twice(chunks):
    return [text * 2 for text in hold_back(chunks)]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.count_cuts, count_by_the_first_piece),
        (checks.log_probability_of_text, forward),
        (checks.stream_text, hold_back),
        (checks.stream_text, byte_by_byte_replaced),
        (checks.stream_text, lambda chunks: iter(hold_back(chunks))),
    ],
)
def test_a_right_answer_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.count_cuts, lambda text, scores: 1, "always 1"),
        (checks.count_cuts, arcs, "not the ways to put them together"),
        (checks.count_cuts, lambda text, scores: 2 ** (len(text) - 1), "only pieces of the vocabulary count"),
        (checks.count_cuts, off_by_one, "pieces of one character are missing"),
        (checks.count_cuts, lambda text, scores: count_by_the_first_piece(text, scores) - 1, "the numbers are not"),
        (checks.log_probability_of_text, lambda text, scores: forward(text, scores, max), "the best cut alone"),
        (checks.log_probability_of_text, without_logs, "not finite"),
        (checks.log_probability_of_text, lambda text, scores: math.exp(forward(text, scores)), "its logarithm"),
        (checks.log_probability_of_text, lambda text, scores: forward(text, scores) / math.log(2), "to base 2"),
        (checks.log_probability_of_text, mean_of_logs, "the mean over the cuts"),
        (checks.stream_text, each_alone, "half a character was shown"),
        (checks.stream_text, ignoring, "characters are lost"),
        (checks.stream_text, all_at_the_end, "as soon as its last byte is there"),
        (checks.stream_text, one_late, "as soon as its last byte is there"),
        (checks.stream_text, stuck, "must not hold back the rest"),
        (checks.stream_text, silent, "show U+FFFD"),
        (checks.stream_text, twice, "the text came out as"),
        (checks.stream_text, lambda chunks: "".join(hold_back(chunks)), "strings, one for each token"),
        (checks.stream_text, lambda chunks: chunks, "strings, one for each token"),
        (checks.stream_text, lambda chunks: "?" * len(chunks), "strings, one for each token"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, told):
    assert_told(check, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


def on_woodchucks(answer):
    return checks.make_vocabulary(answer, TEXT)


@pytest.mark.parametrize("check", EXERCISES.values())
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


@pytest.mark.parametrize("check", [checks.stream_text, on_woodchucks])
def test_an_answer_that_is_no_stream_and_no_vocabulary(check):
    assert_no_answers(check, tensor=False)


# The open exercise: any vocabulary that is worth its pieces


def of_words(text, size):
    """Each character, and each word with its space, as often as they are."""
    counts = dict.fromkeys(set(text), 1.0)
    for word in {word for word in text.split(" ") if text.count(word + " ") > 1} - {""}:
        counts[word + " "] = counts.get(word + " ", 0) + text.count(word + " ")
    total = sum(counts.values())
    return {piece: math.log(count / total) for piece, count in list(counts.items())[:size]}


def of_characters(text, size):
    return {character: math.log(text.count(character) / len(text)) for character in set(text)}


def test_a_vocabulary_of_words_is_right_and_told_its_bits():
    verdict = assert_right(on_woodchucks, of_words)
    bits = -forward(TEXT, of_words(TEXT, 10**6)) / math.log(2) / len(TEXT)
    entropy = -sum(TEXT.count(c) / len(TEXT) * math.log2(TEXT.count(c) / len(TEXT)) for c in set(TEXT))
    assert repr(verdict) == f"✓ right: {bits:.2f} bits a character, of {entropy:.2f} without"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (of_characters, "or fewer are asked for"),
        (lambda text, size: {piece: score + 0.5 for piece, score in of_words(text, size).items()}, "sum to 1.649"),
        (lambda text, size: {p: s for p, s in of_words(text, size).items() if p != "w"}, "without 'w' as a piece"),
        (lambda text, size: of_words(text, size) | {"x" * n: -50.0 for n in range(1, 90)}, "were allowed"),
        (lambda text, size: {**of_words(text, size - 1), text: -40.0}, "does not occur twice"),
        (lambda text, size: list(of_words(text, size)), "expected a dict"),
        (lambda text, size: of_words(text, size) | {"": -3.0}, "expected a dict"),
    ],
)
def test_a_vocabulary_that_is_not_worth_it_is_told_why(answer, told):
    assert_told(on_woodchucks, answer, told)


def test_the_cases_are_not_all_easy():
    """Every case but the first has several cuts, so that the best is not all; one text is too long for plain floats."""
    cases = list(checks.long_texts())
    assert all(count_by_the_first_piece(**case) > 1 for case in cases[1:-1])
    assert without_logs(**cases[-1]) == -math.inf
    assert any("\u2581" in case["text"] for case in cases)


def test_a_text_costs_all_its_cuts_together():
    bits = checks.bits_of("abcaab", checks.TOY)
    assert bits == pytest.approx(-forward("abcaab", checks.TOY) / math.log(2))
    assert bits < -forward("abcaab", checks.TOY, max) / math.log(2) - 0.1
