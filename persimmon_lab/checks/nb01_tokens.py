"""Marks for notebook 01, Tokens are probabilities."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, call, verdict
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer
from persimmon_lab.tokenizer.lattice import Arc, Lattice
from persimmon_lab.tokenizer.unigram import Unigram

Number = Float[Tensor, ""]
Scores = Mapping[str, float]

TOY = {"a": -3.0, "b": -2.5, "c": -4.0, "ab": -3.25, "bc": -4.5, "abc": -6.0, "aa": -7.0}
WORDS = ("\u2581Hannah", "\u2581rings", "\u2581unbelievably", "\u2581persimmon")


@cache
def shipped() -> PersimmonTokenizer:
    return PersimmonTokenizer.from_pretrained(MINI)


@cache
def shipped_pieces() -> dict[str, tuple[int, float]]:
    return Unigram.of(shipped()).pieces


def lattice_of(text: str, scores: Scores) -> Lattice:
    """Every occurrence of every piece in a text."""
    places = [(start, piece) for piece in scores for start in range(len(text)) if text.startswith(piece, start)]
    return Lattice(text, [Arc(start, start + len(piece), piece, scores[piece], ()) for start, piece in places])


def scored_texts() -> Iterator[Case]:
    """Small ones that can be worked out by hand, and words with the shipped vocabulary's pieces."""
    for text in ("c", "abc", "aabcab", "bcbcbc", "abcaabbcabc"):
        yield {"text": text, "scores": TOY}
    pieces = shipped_pieces()
    for text in WORDS:
        yield {"text": text, "scores": {piece: score for piece, (_, score) in pieces.items() if piece in text}}


# Easy: count_cuts


def count(text: str, scores: Scores) -> Number:
    return torch.tensor(float(lattice_of(text, scores).count()))


def count_greedily(text: str, scores: Scores) -> Number:
    return torch.tensor(1.0)


def count_arcs(text: str, scores: Scores) -> Number:
    return torch.tensor(float(len(lattice_of(text, scores).arcs)))


def count_anywhere(text: str, scores: Scores) -> Number:
    return torch.tensor(2.0 ** (len(text) - 1))


def count_without_single_characters(text: str, scores: Scores) -> Number:
    """Loops over range(start + 2, ...): an end that is one too far."""
    return count(text, {piece: score for piece, score in scores.items() if len(piece) > 1})


count_cuts = Exercise(
    reference=count,
    cases=scored_texts,
    axes=(),
    praise="the same walk as Viterbi, with + in place of max; a word of 12 letters has a hundred cuts, a page 10^400",
    mistakes={
        "this is always 1: it follows one cut instead of adding up all of them": count_greedily,
        "this counts the pieces that occur (arcs), not the ways to put them together (paths)": count_arcs,
        "this counts every way to cut a text anywhere; only pieces of the vocabulary count": count_anywhere,
        "pieces of one character are missing; does a range stop one too early, or start one too late?": (
            count_without_single_characters
        ),
    },
)


# Medium: log_probability_of_text


def log_total(text: str, scores: Scores) -> Number:
    return torch.tensor(lattice_of(text, scores).log_total)


def log_of_best(text: str, scores: Scores) -> Number:
    return torch.tensor(lattice_of(text, scores).best().score)


def sum_of_logs(text: str, scores: Scores) -> Number:
    """Adds up log-probabilities where pieces end together, instead of their probabilities."""
    lattice = lattice_of(text, scores)
    sums = [0.0] * (len(text) + 1)
    for end in range(1, len(text) + 1):
        sums[end] = math.fsum(sums[arc.start] + arc.score for arc in lattice.arcs if arc.end == end)
    return torch.tensor(sums[-1])


def not_logged(text: str, scores: Scores) -> Number:
    return log_total(text, scores).exp()


def in_bits(text: str, scores: Scores) -> Number:
    return log_total(text, scores) / math.log(2)


def averaged(text: str, scores: Scores) -> Number:
    return log_total(text, scores) - math.log(lattice_of(text, scores).count())


def long_texts() -> Iterator[Case]:
    yield from scored_texts()
    yield {"text": "abcaab" + 200 * "c", "scores": TOY}  # its probability is below the smallest float


log_probability_of_text = Exercise(
    reference=log_total,
    cases=long_texts,
    axes=(),
    praise="the text's own probability, whichever way it is cut, and in logs it does not underflow",
    mistakes={
        "this is the best cut alone (max); the text's probability is the sum over all its cuts": log_of_best,
        "this adds log-probabilities where it should add probabilities: exp before the sum, log after it": sum_of_logs,
        "this is the probability; asked for is its logarithm": not_logged,
        "this is a logarithm to base 2; the scores are natural logarithms": in_bits,
        "this is the mean over the cuts; their probabilities add up": averaged,
    },
)


# Medium: stream_text

STREAMED = (
    "\u67ff",
    "a persimmon is a \u67ff, said Hannah",
    "\U0001f431\U0001f34a two of four bytes each",
    "caf\u00e9 \u2014 na\u00efve",
    "plain letters",
    "\u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f467",
)
BROKEN = (b"\xe6\x9f", b"\x9f", b"\xf0\x9f\x90", b"\xff")  # then letters: nothing can complete these any more


def stream_text(answer: Callable[[list[bytes]], list[str]]) -> Verdict:
    """Marks a function from the bytes of each token to what a screen shows after each: never half a character, each
    character as soon as its last byte is there, and bytes that make none as U+FFFD rather than silence."""
    praise = "no half character is ever shown, none comes late, and broken bytes do not silence the rest"
    return verdict(_check_stream, answer, praise)


def _check_stream(answer: Callable[[list[bytes]], list[str]]) -> None:
    tokenizer = shipped()
    for text in STREAMED:
        chunks = [tokenizer.id_to_bytes(index) for index in tokenizer.encode(text, add_special_tokens=False)]
        _check_one_stream(answer, chunks)
        _check_one_stream(answer, [bytes([byte]) for byte in text.encode("utf-8")])
    for broken in BROKEN:
        chunks = [b"so ", *(bytes([byte]) for byte in broken), b"far", b" so", b" good"]
        shown = _streamed(answer, chunks)
        said = "".join(shown)
        if not said.endswith("far so good"):
            raise Wrong(
                f"the bytes {broken.hex(' ')} never become a character, and the letters after them did not all appear "
                f"({said!r}); bytes that cannot be completed must not hold back the rest"
            )
        if "\ufffd" not in said:
            raise Wrong(f"the bytes {broken.hex(' ')} never become a character and vanish; show U+FFFD for them")


def _check_one_stream(answer: Callable[[list[bytes]], list[str]], chunks: list[bytes]) -> None:
    shown, text = _streamed(answer, chunks), b"".join(chunks).decode("utf-8")
    whole, sent = "".join(shown), b""
    if "\ufffd" in whole:
        raise Wrong(
            f"half a character was shown: {text!r} came out as {whole!r}; hold bytes back until they make a character"
        )
    if whole != text:
        if len(whole) < len(text) and set(whole) <= set(text):
            raise Wrong(f"characters are lost: {text!r} came out as {whole!r}; bytes held back belong before the next")
        raise Wrong(f"the text came out as {whole!r} and should be {text!r}")
    for index, chunk in enumerate(chunks):
        sent += chunk
        due = sent.decode("utf-8", errors="ignore")  # whole characters; the rest of a valid text is an unfinished one
        seen = "".join(shown[: index + 1])
        if seen != due:
            raise Wrong(
                f"after {index + 1} of {len(chunks)} tokens of {text!r} the screen shows {seen!r}, and {due!r} is "
                "complete by then; show each character as soon as its last byte is there"
            )


def _streamed(answer: Callable[[list[bytes]], list[str]], chunks: list[bytes]) -> list[str]:
    def listed(chunks: list[bytes]) -> object:
        """A generator's strings as well: running it is part of calling it."""
        shown: object = answer(chunks)
        return list(shown) if isinstance(shown, Iterable) and not isinstance(shown, str) else shown

    shown = call(listed, chunks)
    if not isinstance(shown, list) or len(shown) != len(chunks) or not all(isinstance(text, str) for text in shown):
        raise Wrong(f"it returned {shown!r:.80}; expected a list of {len(chunks)} strings, one for each token")
    return shown


# Open: make_vocabulary

FEW = 60  # pieces
MUCH_BETTER = 0.95  # of the bits that single characters need


def make_vocabulary(answer: Callable[[str, int], Scores], text: str) -> Verdict:
    """Marks a function (text, size) to {piece: log-probability}. Any vocabulary of at most `size` pieces will do that
    occur twice, whose probabilities sum to 1 at most, and that needs clearly fewer bits for the text than its
    characters, each drawn by itself, would. Says how many."""

    def praise(bits: float) -> str:
        return f"{bits / len(text):.2f} bits a character, of {_characters_alone(text):.2f} without"

    return verdict(lambda answer: _check_vocabulary(answer, text), answer, praise)


def bits_of(text: str, scores: Scores) -> float:
    """What a text costs under a vocabulary, all its cuts together, in bits; inf where there is none."""
    return -lattice_of(text, scores).log_total / math.log(2)


def _characters_alone(text: str) -> float:
    """The entropy of a text's characters, in bits for each: the least that a vocabulary of single ones can need."""
    shares = [text.count(character) / len(text) for character in set(text)]
    return -math.fsum(share * math.log2(share) for share in shares)


def _check_vocabulary(answer: Callable[[str, int], Scores], text: str) -> float:
    size = len(set(text)) + FEW
    scores = call(answer, text, size)
    if not isinstance(scores, Mapping) or not all(isinstance(piece, str) and piece for piece in scores):
        raise Wrong(f"it returned {scores!r:.60}; expected a dict from pieces to log-probabilities")
    if len(scores) > size:
        raise Wrong(f"it has {len(scores)} pieces, and {size} were allowed")
    missing = sorted(set(text) - set("".join(piece for piece in scores if len(piece) == 1)))
    if missing:
        raise Wrong(f"without {missing[0]!r} as a piece some texts of these characters cannot be cut at all")
    once = sorted(piece for piece in scores if len(piece) > 1 and text.count(piece) < 2)
    if once:
        raise Wrong(f"the piece {once[0]!r} does not occur twice: that is learning the text by heart")
    total = math.fsum(math.exp(score) for score in scores.values())
    if total > 1 + 1e-6:
        raise Wrong(f"its probabilities sum to {total:.3f}; nothing is cheaper than it is likely: at most 1")
    bits = bits_of(text, scores)
    least = _characters_alone(text) * len(text)
    if not bits <= MUCH_BETTER * least:
        raise Wrong(
            f"it needs {bits / len(text):.2f} bits a character, where characters alone need {least / len(text):.2f}; "
            f"{MUCH_BETTER * least / len(text):.2f} or fewer are asked for"
        )
    return bits
