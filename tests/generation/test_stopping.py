"""Stop strings beside Python's `in`, over every way of cutting a text into tokens."""

import itertools

import pytest
import torch

from persimmon_lab.generation import GenerationConfig
from persimmon_lab.generation.stopping import Ending, ends_with_stop_string, split_at_stop_string


class Pieces:
    """A tokenizer with these pieces, in their order; bytes join into characters as in sentencepiece."""

    def __init__(self, pieces: list[str | bytes]):
        self.pieces = [piece.encode() if isinstance(piece, str) else piece for piece in pieces]

    def decode(self, token_ids, skip_special_tokens=False):
        return b"".join(self.pieces[index] for index in token_ids).decode("utf-8", errors="replace")


def stops_after(pieces: list[str | bytes], stop_strings: list[str]) -> list[int]:
    """The numbers of pieces, taken from the first on, that end with a stop string."""
    tokenizer, ids = Pieces(pieces), list(range(len(pieces)))
    return [count for count in range(1, len(ids) + 1) if ends_with_stop_string(tokenizer, ids[:count], stop_strings)]


@pytest.mark.parametrize("text", ["st-op", "stop", "st-opera", "sto-pper", "las-topper", "s-to-pped"])
def test_matches_of_transformers_documentation(text):
    pieces = ["so ", *text.split("-")]
    assert stops_after(pieces, ["stop"]) == [len(pieces)]


@pytest.mark.parametrize("text", ["stop-at", "st-op-at", "st-opera-tion"])
def test_only_the_token_that_completes_it_counts(text):
    pieces = ["so ", *text.split("-")]
    assert stops_after(pieces, ["stop"]) == [len(pieces) - 1]


STOP = "\n\nhuman:"


def every_cut(text: str):
    for cuts in itertools.product([False, True], repeat=len(text) - 1):
        bounds = [0, *(index + 1 for index, cut in enumerate(cuts) if cut), len(text)]
        yield [text[start:end] for start, end in itertools.pairwise(bounds)]


def test_every_cut_is_seen_at_the_token_that_completes_it():
    for pieces in every_cut("." + STOP + " x"):
        first = next(count for count in range(1, len(pieces) + 1) if STOP in "".join(pieces[:count]))
        assert stops_after(pieces, [STOP]) == [first]


def test_characters_that_come_byte_by_byte():
    """Before its last byte the text ends in replacement characters, which are not text."""
    assert stops_after(["ab", b"\xf0", b"\x9f", b"\x98", b"\x80", "c"], ["😀"]) == [5]


def test_several_stop_strings_and_none():
    assert stops_after(["a", "bc", "zz"], ["zz", "ab"]) == [2, 3]
    assert stops_after(["a", "bc"], []) == []


@pytest.mark.parametrize(
    ("settings", "row", "answer"),
    [
        ({"eos_token_id": [9, 3]}, [1, 3, 5, 6, 3, 0, 0], [5, 6, 3]),  # the prompt may hold an end
        ({"eos_token_id": 3}, [1, 2, 5, 6], [5, 6]),
        ({}, [1, 2, 3, 3], [3, 3]),
        ({"stop_strings": "de"}, [1, 2, 3, 4, 0, 0], [3, 4]),
        ({"stop_strings": ["bcd"], "eos_token_id": 0}, [1, 2, 3, 0, 0], [3]),  # it begins in the prompt
        ({"eos_token_id": 3}, [1, 2], []),
    ],
)
def test_an_answer_is_what_comes_up_to_its_end(settings, row, answer):
    """Which is where `generate` would have ended it: what follows only fills the row."""
    ending = Ending(GenerationConfig(**settings), Pieces(["a", "b", "c", "d", "e", "f", "g"]), torch.device("cpu"))
    assert ending.until_end(row, 2) == answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fine.", ("fine.", "")),
        ("fine.\n", ("fine.", "\n")),
        ("fine.\n\nhum", ("fine.", "\n\nhum")),
        ("fine.\n\nhumid", ("fine.\n\nhumid", "")),
        ("fine.\n\nhuman: and", ("fine.", "\n\nhuman: and")),
        ("\n\n\nhuman:", ("\n", "\n\nhuman:")),
        ("\n\n\n", ("\n", "\n\n")),
        ("a END b\n\nhuman:", ("a ", "END b\n\nhuman:")),
        ("", ("", "")),
    ],
)
def test_what_is_shown_and_what_waits(text, expected):
    assert split_at_stop_string(text, [STOP, "END"]) == expected


def test_streamed_text_is_the_text_before_the_stop_string():
    """Character by character: nothing of the stop string is ever shown, and nothing before it is lost."""
    text, shown, waiting = "one\n\nhum two\n\n\nhuman: three", "", ""
    for character in text:
        now, waiting = split_at_stop_string(waiting + character, [STOP])
        shown += now
        if STOP in waiting:
            break
        assert (text[: text.index(STOP)]).startswith(shown)
    assert shown == "one\n\nhum two\n"
