"""A lattice holds every cut of a text: its best is sentencepiece's, its sums are those of all paths, one by one."""

import math
import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.lattice import Arc, Lattice, log_sum
from persimmon_lab.tokenizer.sentencepiece_model import ModelFile, Piece, PieceType, read_model
from persimmon_lab.tokenizer.unigram import Unigram
from tests.fixtures.tokenizer import make
from tests.tokenizer.texts import FOLDER, MADE_TO_BREAK, TOKENIZER, texts, texts_with_special_tokens, thorough

SHIPPED = PersimmonTokenizer.from_pretrained(MINI)
SMALL, LARGE = Unigram.of(TOKENIZER), Unigram.of(SHIPPED)
REAL = [
    "the king gave seven golden rings to Hannah",
    "human: Hello, how are you?\n\nadept:",
    "moon table seven bread never green speak house under sister light door",
    "def rotate(x, cos, sin):\n    return x * cos + quarter_turn(x) * sin\n",
    "\u67ff is a persimmon, \U0001f34a is not \U0001f431",
    "one   two     three\t\n\n\n",
    "1234567890 -1.5e-12",
    "a _____________ b ........... |ENDOFTEXT| <s> <0x0A>",
    "",
    " ",
]


def toy(*scored: tuple[str, float]) -> Unigram:
    """A vocabulary of a few pieces, and all bytes; no space is put before a text."""
    pieces = [Piece("<unk>", 0.0, PieceType.UNKNOWN)]
    pieces += [Piece(f"<0x{byte:02X}>", 0.0, PieceType.BYTE) for byte in range(256)]
    pieces += [Piece(text, score, PieceType.NORMAL) for text, score in scored]
    return Unigram(ModelFile(pieces, True, False, False, False, True))


def all_cuts(text: str) -> list[list[str]]:
    """Every way to cut a text anywhere at all."""
    places = range(1, len(text))
    cuts = [(0, *chosen, len(text)) for size in range(len(text)) for chosen in combinations(places, size)]
    return [[text[a:b] for a, b in zip(cut, cut[1:])] for cut in cuts]


def scores_by_hand(unigram: Unigram, text: str) -> dict[tuple[str, ...], float]:
    """Every cut into pieces of the vocabulary, and the sum of their scores."""
    known = {piece: score for piece, (_, score) in unigram.pieces.items()}
    known |= {character: unigram.unknown_score for character in text if character not in known}
    return {tuple(cut): sum(known[p] for p in cut) for cut in all_cuts(text) if all(p in known for p in cut)}


# The best path is sentencepiece's


@pytest.mark.parametrize("text", REAL + MADE_TO_BREAK)
def test_the_best_path_of_real_texts_is_what_the_tokenizer_gives(text):
    for tokenizer, unigram in ((SHIPPED, LARGE), (TOKENIZER, SMALL)):
        best = unigram.lattice(text).best()
        assert best.ids == tokenizer.encode(text, add_special_tokens=False)
        assert best.score == pytest.approx(sum(arc.score for arc in best.arcs), rel=1e-5)


@thorough
@given(texts_with_special_tokens)
def test_the_best_path_of_any_text_is_what_the_tokenizer_gives(text):
    for tokenizer, unigram in ((SHIPPED, LARGE), (TOKENIZER, SMALL)):
        assert unigram.lattice(text).best().ids == tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture(scope="module")
def unrounded(tmp_path_factory):
    """The tests' tokenizer with the scores that training gave, whose sums round: as Adept's vocabulary has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "round_scores", lambda proto: proto)
        path = tmp_path_factory.mktemp("unrounded") / "tokenizer.model"
        make.train(FOLDER / "text.txt", path)
    return PersimmonTokenizer(path)


def test_paths_that_tie_are_told_apart_by_float32s_rounding(unrounded):
    unigram, decided = Unigram.of(unrounded), 0
    for run in range(2, 120):
        text = "_" * run + "\n"
        best = unigram.lattice(text).best()
        assert best.ids == unrounded.encode(text, add_special_tokens=False)
        decided += best.pieces.index("_") != len(best.pieces) - 2 if "_" in best.pieces else 0
    assert decided  # the odd one stands first or last, as the sums happened to round

    @settings(parent=thorough)
    @given(texts)
    def agree(text):
        assert unigram.lattice(text).best().ids == unrounded.encode(text, add_special_tokens=False)

    agree()


def test_of_equal_paths_the_one_with_the_longer_last_piece_wins():
    lattice = toy(("a", -2.0), ("aa", -3.0)).lattice("aaa")
    assert [cut.pieces for cut in lattice.n_best(9)] == [["a", "aa"], ["aa", "a"], ["a", "a", "a"]]


def test_the_first_space_is_an_arc_over_nothing_of_the_text():
    lattice = LARGE.lattice("a b")
    assert lattice.text == "\u2581a\u2581b"
    assert [(arc.start, arc.end, arc.text) for arc in lattice.best().arcs] == [(0, 2, "\u2581a"), (2, 4, "\u2581b")]
    assert toy(("a", -1.0)).lattice("a").text == "a"


def test_a_character_outside_the_vocabulary_is_one_arc_and_several_ids():
    lattice = LARGE.lattice("a\u67ff")
    (arc,) = [arc for arc in lattice.arcs if arc.text == "\u67ff"]
    assert SHIPPED.convert_ids_to_tokens(list(arc.ids)) == ["<0xE6>", "<0x9F>", "<0xBF>"]
    worst = min(SHIPPED.sp_model.get_score(i) for i in range(SHIPPED.vocab_size) if not SHIPPED.sp_model.is_byte(i))
    assert arc.score == LARGE.unknown_score == worst - 10
    assert (arc.start, arc.end) == (2, 3)


def test_a_character_that_only_longer_pieces_have_may_be_unknown_too():
    lattice = toy(("ab", -1.0), ("bc", -2.0)).lattice("abc")
    assert [cut.pieces for cut in lattice.n_best(9)] == [["ab", "c"], ["a", "bc"], ["a", "b", "c"]]


def test_special_tokens_are_spelt_out_and_a_newline_always_is_one_piece():
    assert "|ENDOFTEXT|" not in LARGE.pieces
    assert not {"<s>", "</s>", "<unk>", "<0x0A>"} & set(LARGE.pieces)
    token_id, score = LARGE.pieces["\n"]
    best = max(score for piece, (_, score) in LARGE.pieces.items() if piece != "\n")
    assert token_id == SHIPPED.convert_tokens_to_ids("\n")
    assert score == pytest.approx(best - 0.1)
    matched = Unigram(read_model(SHIPPED.sp_model.serialized_model_proto()))
    assert matched.lattice("a|ENDOFTEXT|").best().ids == SHIPPED.sp_model.encode("a|ENDOFTEXT|")
    assert SHIPPED.eos_token_id in matched.lattice("a|ENDOFTEXT|").best().ids


# The runners-up, and all paths together


def score_of_ids(ids: list[int]) -> float:
    """The sum of the scores of some ids, a character in bytes counted once, at its first byte."""
    known = dict(LARGE.pieces.values())
    first = [token_id for token_id in ids if not 0x80 <= SHIPPED.id_to_bytes(token_id)[0] < 0xC0]
    return sum(known.get(token_id, LARGE.unknown_score) for token_id in first)


@pytest.mark.parametrize("text", ["Hannah", "unbelievably", "table rings", "\u67ff!", "to  be", "the persimmon"])
def test_the_runners_up_are_sentencepieces(text):
    count = 40
    ours = LARGE.lattice(text).n_best(count)
    theirs = SHIPPED.sp_model.nbest_encode_as_ids(text, count)
    scores = [score_of_ids(ids) for ids in theirs]
    assert [cut.score for cut in ours] == pytest.approx(scores, abs=1e-4)
    assert ours[0].ids == theirs[0]
    worst = round(scores[-1], 3)  # those that tie with the last may be others
    better = {tuple(ids) for ids, score in zip(theirs, scores) if round(score, 3) > worst}
    assert {tuple(cut.ids) for cut in ours if round(cut.score, 3) > worst} == better
    assert len({tuple(cut.ids) for cut in ours}) == len(ours)


@pytest.mark.parametrize("text", ["ring", "table", "seven", "\u67ffa\u67ff", "x_ _y", "a"])
def test_every_path_and_their_sum_by_hand(text):
    lattice = LARGE.lattice(text)
    expected = scores_by_hand(LARGE, lattice.text)
    found = lattice.n_best(10**6)
    assert {tuple(cut.pieces): cut.score for cut in found} == pytest.approx(expected, abs=1e-4)
    assert [cut.score for cut in found] == sorted((cut.score for cut in found), reverse=True)
    assert lattice.count() == len(expected) == len(found)
    assert lattice.log_total == pytest.approx(math.log(sum(map(math.exp, expected.values()))), abs=1e-6)
    for arc, share in zip(lattice.arcs, lattice.probabilities(), strict=True):
        using = [cut.score for cut in found if arc in cut.arcs]
        assert share == pytest.approx(sum(math.exp(score - lattice.log_total) for score in using), rel=1e-4)


def test_a_long_text_neither_underflows_nor_overflows():
    text = " ".join(["the king gave seven golden rings"] * 30)
    lattice = LARGE.lattice(text)
    assert math.exp(lattice.log_total) == 0.0
    assert lattice.best().score < lattice.log_total < 0
    assert lattice.count() > 10**100
    shares = lattice.probabilities()
    assert all(0 <= share <= 1 + 1e-9 for share in shares)
    for position in range(1, len(lattice.text)):
        crossing = [s for arc, s in zip(lattice.arcs, shares) if arc.start < position <= arc.end]
        assert sum(crossing) == pytest.approx(1)  # every path covers every character once


@thorough
@given(texts)
def test_between_joints_a_text_is_cut_for_itself(text):
    for unigram in (LARGE, SMALL):
        lattice = unigram.lattice(text)
        joints = lattice.joints()
        assert joints[0] == 0
        assert joints[-1] == len(lattice.text)
        parts = [lattice.part(start, end) for start, end in zip(joints, joints[1:])]
        assert "".join(part.text for part in parts) == lattice.text
        assert sum(part.log_total for part in parts) == pytest.approx(lattice.log_total, abs=1e-6)
        assert math.prod(part.count() for part in parts) == lattice.count()


def test_joints_are_where_no_piece_crosses():
    lattice = toy(("a", -1.0), ("b", -1.0), ("ab", -1.5), ("bb", -2.0)).lattice("abba b")
    assert lattice.joints() == [0, 3, 4, 5, 6]
    part = lattice.part(1, 4)
    assert part.text == "bba"
    assert [(arc.start, arc.end, arc.text) for arc in part.arcs] == [
        (0, 1, "b"),
        (0, 2, "bb"),
        (1, 2, "b"),
        (2, 3, "a"),
    ]


# What cannot be


def test_a_lattice_without_a_way_through():
    lattice = Lattice("abc", [Arc(0, 1, "a", -1.0, (1,)), Arc(2, 3, "c", -1.0, (2,))])
    assert lattice.count() == 0
    assert lattice.log_total == -math.inf
    assert lattice.probabilities() == [0.0, 0.0]
    with pytest.raises(ValueError, match="lead from one end of 'abc' to the other"):
        lattice.best()


def test_what_is_refused():
    with pytest.raises(ValueError, match="from 1 to 4 has no place in a text of 3"):
        Lattice("abc", [Arc(1, 4, "bcd", 0.0, (1,))])
    with pytest.raises(ValueError, match="from 1 to 1 has no place"):
        Lattice("abc", [Arc(1, 1, "", 0.0, (1,))])
    with pytest.raises(ValueError, match="at least one"):
        LARGE.lattice("a").n_best(0)
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        LARGE.lattice("a\ud800")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model_type": "bpe"}, "Unigram"),
        ({"normalization_rule_name": "nmt_nfkc"}, "rewrites the text"),
        ({"remove_extra_whitespaces": True}, "rewrites the text"),
        ({"byte_fallback": False, "vocab_size": 400}, "has 0"),
    ],
)
def test_models_that_it_cannot_follow(tmp_path, options, told):
    make.train(FOLDER / "text.txt", tmp_path / "tokenizer.model", **options)
    with pytest.raises(ValueError, match=re.escape(told)):
        Unigram.of(PersimmonTokenizer(tmp_path / "tokenizer.model"))


@given(st.lists(st.floats(-800, 800), max_size=6))
def test_log_sum(scores):
    if not scores:
        assert log_sum(scores) == -math.inf
        return
    assert max(scores) <= log_sum(scores) <= max(scores) + math.log(len(scores)) + 1e-9
    if max(map(abs, scores)) < 600:
        assert log_sum(scores) == pytest.approx(math.log(sum(map(math.exp, scores))), abs=1e-9)
