"""Marks for notebook 09, Choosing words: temperature, top-p and stop strings."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, call, numbers, verdict
from persimmon_lab.generation.sampling import apply_temperature, keep_min_p, keep_top_p
from persimmon_lab.generation.stopping import split_at_stop_string

Number = Float[Tensor, ""]
Logits = Float[Tensor, "vocab"]
Mask = Float[Tensor, "vocab"]

# Easy: temperature_for


def entropy_bits(logits: Logits) -> Number:
    """-sum p log2 p of softmax(logits); what was removed with -inf counts nothing."""
    probabilities = logits.double().softmax(dim=-1)
    return -torch.xlogy(probabilities, probabilities).sum() / math.log(2)


def temperature_of(logits: Logits, bits: float, entropy: Callable[[Logits], Number] = entropy_bits) -> Number:
    """Halves an interval of log-temperatures until the entropy is `bits`."""
    low, high = math.log(1e-3), math.log(1e3)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(logits / math.exp(middle)) < bits else (low, middle)
    return torch.tensor(math.exp((low + high) / 2))


def entropy_cases() -> Iterator[Case]:
    draw = numbers(9)
    for width, scale, bits in ((8, 3.0, 1.0), (50, 2.0, 3.5), (4096, 4.0, 2.5), (100, 0.5, 4.0)):
        yield {"logits": scale * draw(width), "bits": bits}


temperature_for = Exercise(
    reference=temperature_of,
    cases=entropy_cases,
    axes=(),
    praise="entropy only grows with temperature, so halving an interval finds it",
    mistakes={
        "this is 1 / temperature: logits are divided by the temperature, and a higher one has more entropy": (
            lambda logits, bits: 1 / temperature_of(logits, bits)
        ),
        "its entropy is in nats; asked for are bits, with log2 in place of log": (
            lambda logits, bits: temperature_of(logits, bits / math.log(2))
        ),
        "it does not follow the entropy: this is the entropy asked for, as a part of the entropy at temperature 1": (
            lambda logits, bits: bits / entropy_bits(logits)
        ),
    },
)


# Medium: nucleus


def kept(logits: Logits, temperature: float, top_p: float) -> Mask:
    return (keep_top_p(apply_temperature(logits, temperature), top_p) > -math.inf).float()


def ranked_mask(count: int, logits: Logits) -> Mask:
    return torch.zeros_like(logits).scatter(0, logits.topk(count).indices, 1.0)


def kept_but(change: int, logits: Logits, temperature: float, top_p: float) -> Mask:
    """So many tokens more, or fewer, than are needed."""
    count = int(kept(logits, temperature, top_p).sum()) + change
    return ranked_mask(min(count, len(logits)), logits)


def kept_in_order_of_rank(logits: Logits, temperature: float, top_p: float) -> Mask:
    """Marks the first places of the vocabulary where it should mark the best tokens: the order is not undone."""
    return kept(logits.sort(descending=True).values, temperature, top_p)


def kept_tail(logits: Logits, temperature: float, top_p: float) -> Mask:
    """Adds up from the least probable token."""
    ascending, order = apply_temperature(logits, temperature).softmax(dim=-1).sort()
    first = (ascending.cumsum(dim=-1) - ascending < top_p).float()
    return torch.zeros_like(logits).scatter(0, order, first)


def kept_by_ratio(logits: Logits, temperature: float, top_p: float) -> Mask:
    return (keep_min_p(apply_temperature(logits, temperature), top_p) > -math.inf).float()


def nucleus_cases() -> Iterator[Case]:
    draw = numbers(10)
    for width, scale, temperature, top_p in (
        (6, 1.0, 1.0, 0.5),
        (40, 2.0, 0.6, 0.9),
        (40, 1.0, 2.0, 0.8),
        (500, 3.0, 1.3, 0.95),
        (12, 8.0, 0.5, 0.3),
    ):
        yield {"logits": scale * draw(width), "temperature": temperature, "top_p": top_p}


nucleus = Exercise(  # its answer is a mask, of bools or of 0 and 1
    reference=kept,
    cases=nucleus_cases,
    axes=("vocab",),
    praise="the token that crosses top_p stays, so the mass reaches top_p and something is always kept",
    mistakes={
        "it stops before the token that crosses top_p. What is kept then falls short of top_p, and a first token above "
        "top_p leaves nothing at all: shift by one": partial(kept_but, -1),
        "it keeps one token too many: the one that crosses top_p is the last to stay": partial(kept_but, 1),
        "it keeps the right number of tokens and the wrong ones: the mask is still in the order of the ranks; scatter "
        "it back to the order of the vocabulary": kept_in_order_of_rank,
        "the mass is that of the probabilities before the temperature; divide first, as transformers and Adept do": (
            lambda logits, temperature, top_p: kept(logits, 1.0, top_p)
        ),
        "it multiplies by the temperature; logits are divided by it": (
            lambda logits, temperature, top_p: kept(logits, 1 / temperature, top_p)
        ),
        "it adds up from the least probable token: sort in descending order": kept_tail,
        "this is min-p: it compares each token with the best one; top-p adds up from the best one": kept_by_ratio,
    },
)


# Medium: shown_until

STREAMS = (
    (["I", " am", " fine", ".", "\n", "\n", "hu", "man", ":", " And"], "\n\nhuman:"),
    (["I", " am", " fine", ".\n\nhuman: And"], "\n\nhuman:"),
    (["A", "\n", "\n", "hum", "ble", " man", "\n", "end"], "\n\nhuman:"),
    (["a", "a", "a", "b", "c"], "aab"),
    (["one", "\n", "\n", "\n", "human", ":"], "\n\nhuman:"),
    (["no", " stop", " here", "\n"], "\n\n"),
    (["stop", " at", " once"], "stop"),
)


def shown_until(answer: Callable[[list[str], str], list[str]]) -> Verdict:
    """Marks a function (pieces, stop) to what a screen shows after each piece: nothing of the stop string nor behind
    it, all that is before it, and each character as soon as it cannot belong to a stop string any more."""
    praise = "the text before the stop string, as early as can be, and never a letter of it"
    return verdict(_check_shown, answer, praise)


def due(pieces: list[str], stop: str) -> list[str]:
    """All that may be on the screen after each piece."""
    texts = ["".join(pieces[: count + 1]) for count in range(len(pieces))]
    on_screen = [split_at_stop_string(text, [stop])[0] for text in texts]
    for index, text in enumerate(texts):
        if stop in text:
            return on_screen[:index] + [text[: text.index(stop)]] * (len(texts) - index)
    return [*on_screen[:-1], texts[-1]]  # the text has ended: what waited was no stop string


def _check_shown(answer: Callable[[list[str], str], list[str]]) -> None:
    for pieces, stop in STREAMS:
        shown = call(answer, pieces, stop)
        if isinstance(shown, str) or not isinstance(shown, list | tuple) or not all(isinstance(x, str) for x in shown):
            what = f"the shape {tuple(shown.shape)}" if isinstance(shown, Tensor) else f"a {type(shown).__name__}"
            raise Wrong(f"it returned {what}; expected a list of {len(pieces)} strings, one for each piece")
        if len(shown) != len(pieces):
            raise Wrong(
                f"it returned {len(shown)} strings; expected {len(pieces)}, one for each piece (also empty ones)"
            )
        whole, right = "".join(shown), due(pieces, stop)
        where = f"for the pieces {pieces} and the stop string {stop!r}"
        if stop in whole:
            raise Wrong(
                f"the stop string was shown, {where}: it begins in one piece and ends in another, so look in the text "
                "of the pieces together"
            )
        if whole != right[-1] and whole.startswith(right[-1]):
            raise Wrong(
                f"{whole[len(right[-1]) :]!r} was shown, {where}; a stop string may have begun there: wait, and show "
                "nothing once it is complete"
            )
        if whole != right[-1] and right[-1].startswith(whole):
            raise Wrong(
                f"{right[-1][len(whole) :]!r} was never shown, {where}; what waited and became no stop string belongs "
                "to the text, also at its end"
            )
        if whole != right[-1]:
            raise Wrong(f"the text came out as {whole!r} and should be {right[-1]!r}, {where}")
        _check_when(list(shown), right, where)


def _check_when(shown: list[str], right: list[str], where: str) -> None:
    so_far = ""
    for count, (piece, expected) in enumerate(zip(shown, right, strict=True), start=1):
        so_far += piece
        if len(so_far) > len(expected):
            raise Wrong(
                f"after {count} pieces {so_far!r} is on the screen, and the end of it may still become a stop string, "
                f"{where}; show {expected!r}"
            )
        if len(so_far) < len(expected):
            raise Wrong(
                f"after {count} pieces {so_far!r} is on the screen, and {expected!r} can be shown by then, {where}; "
                "keep back what may be the beginning of the stop string, and no more"
            )
