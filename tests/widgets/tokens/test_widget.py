"""The inspector says of every piece what the tokenizer and the lattice say, and sends only what changed."""

import math
import re

import pytest
from hypothesis import given

from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.unigram import Unigram
from persimmon_lab.viz.html.pieces import details_html, piece_html
from persimmon_lab.widgets.tokens.widget import ALTERNATIVES, WINDOW, Reading, TokenInspector, render, same_start
from tests.fixtures.tokenizer import make
from tests.tokenizer.texts import FOLDER, TOKENIZER, texts_with_special_tokens, thorough

MINI_TOKENIZER = PersimmonTokenizer.from_pretrained(MINI)
MINI_UNIGRAM, SMALL_UNIGRAM = Unigram.of(MINI_TOKENIZER), Unigram.of(TOKENIZER)


def read(text: str, parse_special: bool = False) -> Reading:
    return Reading(text, MINI_TOKENIZER, MINI_UNIGRAM, parse_special)


def names(reading) -> list[str]:
    return [piece.name for piece in reading.pieces]


# Reading


@thorough
@given(texts_with_special_tokens)
def test_every_token_is_a_piece_with_its_bytes_and_its_place(text):
    for parse_special in (False, True):
        reading = Reading(text, TOKENIZER, SMALL_UNIGRAM, parse_special)
        coded = TOKENIZER(text, parse_special=parse_special, return_offsets_mapping=True)
        assert [piece.token_id for piece in reading.pieces] == coded.input_ids
        assert [(piece.start, piece.end) for piece in reading.pieces] == coded.offset_mapping
        special = set(TOKENIZER.all_special_ids)
        for piece in reading.pieces:
            assert (piece.kind == "special") == (piece.token_id in special)
            assert (piece.kind == "byte") == TOKENIZER.sp_model.is_byte(piece.token_id)
            assert piece.data == TOKENIZER.id_to_bytes(piece.token_id)
            if piece.kind == "byte":
                assert piece.character == text[piece.start : piece.end]
                assert piece.character.encode()[piece.byte : piece.byte + 1] == piece.data
                assert piece.of_bytes == len(piece.character.encode())
                assert piece.score == SMALL_UNIGRAM.unknown_score
            elif piece.kind == "piece":
                assert piece.score == SMALL_UNIGRAM.pieces[piece.name][1]


def test_every_stretch_has_the_piece_in_its_best_cut():
    reading = read(
        "the king gave\n\nseven golden rings to Hannah's 柿 |ENDOFTEXT| ___ unbelievably", parse_special=True
    )
    for index, piece in enumerate(reading.pieces):
        stretch, (first, end) = reading.stretch(index)
        assert first <= index < end
        if piece.kind == "special":
            assert stretch is None
            assert (first, end) == (index, index + 1)
            continue
        within = [p for p in reading.pieces[first:end] if p.byte == 0]
        named = tuple(p.character if p.kind == "byte" else p.name for p in within)
        assert stretch.cuts[0].pieces == named
        assert stretch.cuts[0].score == pytest.approx(sum(p.score for p in within), abs=1e-4)
        assert "".join(named) == stretch.text
        assert 0 < stretch.used <= 1 + 1e-9
        assert len(stretch.cuts) == min(stretch.ways, ALTERNATIVES)
        assert sum(cut.share for cut in stretch.cuts) <= 1 + 1e-6
        if stretch.ways <= ALTERNATIVES:
            assert sum(cut.share for cut in stretch.cuts) == pytest.approx(1, abs=1e-5)


def test_a_stretch_is_a_word_with_its_space_cut_for_itself():
    reading = read("golden rings, to Hannah")
    expected = []
    for word in ("golden", "rings", ",", "to", "Hannah"):
        alone = MINI_UNIGRAM.lattice(word)
        cut = ["a comma"] if word == "," else alone.n_best(1)[0].pieces
        expected += ["," if word == "," else f"▁{word}"] * len(cut)
    assert [reading.stretch(index)[0].text for index in range(1, len(reading.pieces))] == expected
    stretch, together = reading.stretch(len(expected))
    assert together == (1 + expected.index("▁Hannah"), 1 + len(expected))
    assert stretch.ways == alone.count() > ALTERNATIVES
    cuts = alone.n_best(alone.count())
    ending_alike = [cut.score for cut in cuts if cut.pieces[-1] == cuts[0].pieces[-1]]
    assert stretch.used == pytest.approx(sum(math.exp(score - alone.log_total) for score in ending_alike), abs=1e-5)
    for cut, found in zip(stretch.cuts, alone.n_best(ALTERNATIVES), strict=True):
        assert cut.pieces == tuple(found.pieces)
        assert cut.share == pytest.approx(math.exp(found.score - alone.log_total))


def test_a_stretch_of_any_length_is_read_near_its_piece():
    tokenizer = TOKENIZER
    reading = Reading("e" * 300, tokenizer, SMALL_UNIGRAM)
    stretch, (first, end) = reading.stretch(150)
    assert len(stretch.text) <= 2 * WINDOW + 20
    assert first > 100
    assert end < 200


def test_the_share_of_the_best_cut_and_the_least_certain_piece():
    reading = read("the king gave seven golden rings to Hannah")
    whole = MINI_UNIGRAM.lattice("the king gave seven golden rings to Hannah")
    share = math.exp(whole.n_best(1)[0].score - whole.log_total)
    assert f" cuts has {share:.1%} of the probability".replace("%", " %") in reading.counts()
    digits, power = re.search(r"the best of ([\d.]+) × 10(.) cuts", reading.counts()).groups()
    assert float(digits) * 10 ** "⁰¹²³⁴⁵⁶⁷⁸⁹".index(power) == pytest.approx(whole.count(), rel=0.03)
    used = [reading.stretch(index)[0].used for index in range(1, len(reading.pieces))]
    assert used[reading.least_certain() - 1] == pytest.approx(min(used), abs=1e-3)
    twice = read("the king gave seven golden rings to Hannah|ENDOFTEXT|Hannah", parse_special=True)
    share *= math.exp(MINI_UNIGRAM.lattice("Hannah").n_best(1)[0].score - MINI_UNIGRAM.lattice("Hannah").log_total)
    assert f" cuts has {share:.1%} of the probability".replace("%", " %") in twice.counts()
    assert read("").least_certain() == 0  # the token before the text
    assert Reading("", PersimmonTokenizer(FOLDER / "tokenizer.model", add_bos_token=False), SMALL_UNIGRAM).pieces == []


def test_tokens_that_a_tokenizer_puts_around_a_text():
    for before, after in ((True, True), (False, True), (False, False)):
        tokenizer = PersimmonTokenizer(FOLDER / "tokenizer.model", add_bos_token=before, add_eos_token=after)
        reading = Reading("the the", tokenizer, SMALL_UNIGRAM)
        kinds = [piece.kind for piece in reading.pieces]
        assert kinds == ["special"] * before + ["piece"] * 2 + ["special"] * after
        assert [reading.stretch(i)[0] is None for i in range(len(kinds))] == [kind == "special" for kind in kinds]
        assert reading.stretch(int(before))[1][0] == int(before)


# The widget


@pytest.fixture
def sent(monkeypatch):
    """What inspectors send to the browser, beside their traits."""
    messages = []
    monkeypatch.setattr(TokenInspector, "send", lambda self, content, buffers=None: messages.append(content))
    return messages


def applied(spans: list[str], message: dict) -> list[str]:
    """As tokens.js does it."""
    end = len(spans) if message["end"] < 0 else message["end"]
    return [*spans[: message["start"]], *message["spans"], *spans[end:]]


def test_only_the_pieces_that_changed_are_sent(sent):
    inspector = TokenInspector("the king gave seven golden rings to Hannah")
    spans, version = applied([], sent[0]), sent[0]["version"]
    changes = [
        "the king gave six golden rings to Hannah",
        "the king",
        "",
        "a 柿\n b",
        "the king and a 柿\n b",
        "the the the",
        "the the the the the",
    ]
    changes += ["the the", "the the the"]
    for text in changes:
        inspector.text = text
        message = sent.pop()
        assert message["base"] == version
        version = message["version"]
        spans = applied(spans, message)
        assert spans == [piece_html(piece) for piece in read(text).pieces]
    inspector.text = "the king gave seven golden rings to Hannah " * 40
    inspector.text = "the king gave seven golden rings to Hannah " * 20 + "x" + inspector.text[860:]
    assert len(sent[-1]["spans"]) < 10


def test_a_new_view_gets_the_whole(sent):
    inspector = TokenInspector("the king")
    inspector._handle_custom_msg({"type": "whole"}, [])
    assert sent[-1]["base"] == -1
    assert applied(["anything", "at all"], sent[-1]) == [piece_html(piece) for piece in inspector.pieces]
    count = len(sent)
    inspector._handle_custom_msg({"type": "something else"}, [])
    assert len(sent) == count


def test_what_is_looked_at_goes_before_what_is_chosen():
    inspector = TokenInspector()
    least = inspector.reading.least_certain()
    assert inspector.shown == least
    assert inspector.together == list(inspector.reading.stretch(least)[1])
    inspector.chosen = 2
    assert inspector.shown == 2
    assert inspector.details == details_html(inspector.pieces[2], inspector.reading.stretch(2)[0])
    inspector.looked_at = 0
    assert inspector.shown == 0
    assert "a special token" in inspector.details
    assert inspector.together == [0, 1]
    inspector.looked_at = -1
    assert inspector.shown == 2
    inspector.chosen = 999
    assert inspector.shown == least
    inspector.chosen = 3
    inspector.text = "the king"
    assert inspector.chosen == -1


def test_special_tokens_are_read_on_request():
    inspector = TokenInspector("a|ENDOFTEXT|b")
    assert names(inspector).count("|ENDOFTEXT|") == 1
    inspector.parse_special = True
    assert names(inspector) == ["|ENDOFTEXT|", "▁a", "|ENDOFTEXT|", "▁b"]
    assert names(TokenInspector("a|ENDOFTEXT|b", parse_special=True)) == names(inspector)


def test_errors_are_shown_and_go_away():
    inspector = TokenInspector("fine")
    inspector.text = "half \ud83d"
    assert inspector.error.startswith("ValueError: character 5 of the text")
    assert (inspector.counts, names(inspector)) == ("", ["|ENDOFTEXT|"])
    assert "text/html" not in inspector._repr_mimebundle_()[0]
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        inspector.static()
    inspector.text = "fine again"
    assert inspector.error == ""
    assert inspector.counts


def test_any_other_error_is_shown_too(monkeypatch):
    inspector = TokenInspector("fine")
    monkeypatch.setattr(Reading, "counts", lambda self: 1 / 0)
    inspector.text = "not fine"
    assert inspector.error == "ZeroDivisionError: division by zero"


def test_a_page_that_cannot_run_it_shows_what_it_shows():
    inspector = TokenInspector("to Hannah <b>")
    data, _ = inspector._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert data["text/html"] == inspector.static().data == render("to Hannah <b>", MINI_TOKENIZER).data
    assert inspector.details in data["text/html"]
    assert inspector.counts in data["text/html"]
    assert "<b>" not in re.sub(r"<b>[\d,.]+</b>", "", data["text/html"])
    assert inspector.details not in render("to Hannah <b>", MINI_TOKENIZER, inspect=0).data


def test_its_name_is_its_text():
    assert repr(TokenInspector("a")) == "TokenInspector('a')"
    assert repr(TokenInspector("a" * 99)) == f"TokenInspector({'a' * 59 + '…'!r})"


def test_any_unigram_tokenizer_will_do_and_others_are_refused(tmp_path):
    inspector = TokenInspector("persimmon", TOKENIZER)
    assert [piece.token_id for piece in inspector.pieces] == TOKENIZER.encode("persimmon")
    make.train(FOLDER / "text.txt", tmp_path / "tokenizer.model", model_type="bpe")
    with pytest.raises(ValueError, match="Unigram"):
        TokenInspector("a", PersimmonTokenizer(tmp_path / "tokenizer.model"))


def test_same_start():
    assert same_start([], ["a"]) == 0
    assert same_start(["a", "b"], ["a", "b", "c"]) == 2
    assert same_start(["a", "x"], ["a", "b"]) == 1
