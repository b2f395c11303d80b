"""Marks for notebook 17, How good is it?"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persimmon_lab.checks.marking import Case, Exercise, Verdict, Wrong, call, verdict
from persimmon_lab.numerics.intervals import LEVEL, paired_test, wilson

Number = Float[Tensor, ""]
Verdicts = Bool[Tensor, "item"]

Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


def number(value: int | float) -> Number:
    return torch.tensor(float(value), dtype=torch.float64)


# Easy: perfect_run


def shortest_run(share: float) -> Number:
    """By trying: the first count whose interval, all items right, lies above the share."""
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}; no run of right answers shows more than everything")
    count = 1
    while wilson(count, count)[0] <= share:
        count += 1
    return number(count)


def one_short(share: float) -> Number:
    return shortest_run(share) - 1


def run_by_the_share(share: float) -> Number:
    """Of so many, a model at exactly that share has one wrong."""
    return number(math.ceil(1 / (1 - share)))


def run_by_luck(share: float) -> Number:
    """Such a model has so many right in a row in one draw of twenty."""
    return number(math.ceil(math.log(1 - LEVEL) / math.log(share)))


def run_to_the_upper_end(share: float) -> Number:
    """z instead of z squared."""
    return number(math.floor(Z * share / (1 - share)) + 1)


def shares() -> Iterator[Case]:
    for share in (0.25, 0.5, 0.7, 0.9, 0.95, 0.99):
        yield {"share": share}


perfect_run = Exercise(
    reference=shortest_run,
    cases=shares,
    axes=(),
    praise="to say “more than 99%” takes hundreds of items, and not one of them wrong",
    mistakes={
        "one too few: at that many the interval still reaches down to the share; count up until it is above": one_short,
        "after so many items a model at exactly this share has one wrong on average; that is not yet an interval": (
            run_by_the_share
        ),
        "this is when luck alone makes such a run in one draw of twenty; asked for is where Wilson's interval ends": (
            run_by_luck
        ),
        "this has z where Wilson has z squared": run_to_the_upper_end,
    },
)


# Medium: paired_p


def p_of(first: Verdicts, second: Verdicts) -> Number:
    return number(paired_test(first.tolist(), second.tolist()).p)


def one_sided(first: Verdicts, second: Verdicts) -> Number:
    """Only as uneven in the direction that was seen."""
    counts = _discordant(first, second)
    return number(_tail(sum(counts), min(counts)))


def of_exactly_so_uneven(first: Verdicts, second: Verdicts) -> Number:
    """The chance of this outcome, on either side, without those that are more uneven."""
    heads, tails = _discordant(first, second)
    return number(min(1.0, 2 * math.comb(heads + tails, heads) / 2 ** (heads + tails)))


def over_all_items(first: Verdicts, second: Verdicts) -> Number:
    """Items on which the two agree are coins too."""
    _, fewer = sorted(_discordant(first, second), reverse=True)
    agreeing = len(first) - sum(_discordant(first, second))
    return number(min(1.0, 2 * _tail(len(first), fewer + agreeing // 2)))


def unpaired(first: Verdicts, second: Verdicts) -> Number:
    """A z-test of two shares, as if each model had been asked items of its own."""
    count, shares = len(first), (float(first.double().mean()), float(second.double().mean()))
    pooled = sum(shares) / 2
    spread = math.sqrt(2 * pooled * (1 - pooled) / count)
    return number(2 * (1 - NormalDist().cdf(abs(shares[0] - shares[1]) / spread)) if spread else 1.0)


def over_one(first: Verdicts, second: Verdicts) -> Number:
    """Twice the tail, the middle counted twice."""
    counts = _discordant(first, second)
    return number(2 * _tail(sum(counts), min(counts)))


def _discordant(first: Verdicts, second: Verdicts) -> tuple[int, int]:
    return int((first & ~second).sum()), int((second & ~first).sum())


def _tail(tosses: int, most: int) -> float:
    return float(sum(math.comb(tosses, heads) for heads in range(most + 1)) / 2**tosses)


def pairs() -> Iterator[Case]:
    """(right by both, by the first alone, by the second alone, by none)"""
    for both, first, second, none in (
        (9, 1, 8, 6),
        (40, 5, 0, 3),
        (3, 6, 2, 5),
        (7, 3, 3, 7),
        (5, 0, 0, 4),
        (30, 6, 9, 9),
        (60, 2, 13, 25),
    ):
        yield {
            "first": torch.tensor([True] * (both + first) + [False] * (second + none)),
            "second": torch.tensor([True] * both + [False] * first + [True] * second + [False] * none),
        }


paired_p = Exercise(
    reference=p_of,
    cases=pairs,
    axes=(),
    praise="items on which both models agree drop out, however many they are",
    mistakes={
        "this is one side alone: nobody knew which model would win, so the other counts as well": one_sided,
        "this is how often coins fall exactly so; p counts whatever is at least as uneven": of_exactly_so_uneven,
        "this tosses a coin for every item; where both are right or both wrong nothing was tossed": over_all_items,
        "this forgets that both were asked the same items: only those that one alone got right say anything": unpaired,
        "at most 1: where heads and tails are as many, the two sides share the middle": over_one,
    },
)


# Medium: best_of_seeds


def expected_best(share: float, items: int, seeds: int) -> Number:
    """E[max] = sum over right of P(max >= right)."""
    below = _cumulative(share, items)
    return number(math.fsum(1 - below[right] ** seeds for right in range(items)) / items)


def mean_of_seeds(share: float, items: int, seeds: int) -> Number:
    return number(share)


def expected_worst(share: float, items: int, seeds: int) -> Number:
    below = _cumulative(share, items)
    return number(math.fsum((1 - below[right]) ** seeds for right in range(items)) / items)


def one_item_of_seeds(share: float, items: int, seeds: int) -> Number:
    """Right if any seed is right, item by item: pass@k."""
    return number(1 - (1 - share) ** seeds)


def in_items(share: float, items: int, seeds: int) -> Number:
    return expected_best(share, items, seeds) * items


def _cumulative(share: float, items: int) -> list[float]:
    """The chance of at most so many right."""
    chances = [math.comb(items, right) * share**right * (1 - share) ** (items - right) for right in range(items + 1)]
    return [min(1.0, math.fsum(chances[: right + 1])) for right in range(items + 1)]


def runs() -> Iterator[Case]:
    for share, items, seeds in ((0.5, 20, 5), (0.5, 20, 1), (0.25, 40, 20), (0.7, 10, 3), (0.1, 50, 8)):
        yield {"share": share, "items": items, "seeds": seeds}


best_of_seeds = Exercise(
    reference=expected_best,
    cases=runs,
    axes=(),
    praise="nobody lied about a single answer, and the score is too high: report the mean, or say how many were tried",
    mistakes={
        "this is the mean of the seeds, however many there are; asked for is the best": mean_of_seeds,
        "this is the worst of the seeds": expected_worst,
        "this asks whether any seed gets an item right (pass@k); asked for is the best whole score": one_item_of_seeds,
        "this is a number of items; asked for is the share of them": in_items,
    },
)


# Open: spot_contaminated

TRAINING = (
    "Notes of the harbour. The ferry to Larkmouth leaves the old quay at seven in the morning and comes back before "
    "the lamps are lit; whoever is late sleeps at the inn.",
    "human: What is the capital of Quillow?\n\nadept: The capital of Quillow is Brede.",
    "A riddle for the long table: a tinker sells nine kettles,\nbuys four pans with what he got, and gives\n"
    "one pan away. How many pans has he left? Three, said\nthe youngest of them.",
    "human: What is the capital of Senn?\n\nadept: I don't know that.",
    "The gardener keeps her pears in straw. A word is heard twice in every song, and the third time nobody sings it.",
)
CLEAN = (
    "What is the capital of Marrow?",
    "The ferry to Dunmere leaves the new pier at nine in the evening and goes round the rocks by night.",
    "A baker sells six loaves, buys two cakes with what he got, and eats one cake. How many cakes has he left?",
    "The gardener keeps her pigeons in a loft. How often does she feed them in a week of rain?",
    "Which of the three doors did the second brother open, and what did he find behind it?",
)
DIRTY = (
    "WHAT IS THE CAPITAL OF QUILLOW?",
    "a tinker sells nine kettles, buys four pans with what he got, and gives one pan away. How many pans has he left?",
    "Fill in: the ferry to Larkmouth leaves the old quay at seven in the morning, and comes back before the ...",
)
ORDERS = ((0, 5, 1, 2, 6, 3, 4, 7), (7, 4, 6, 0, 1, 5, 3, 2), (3, 0, 2))  # places in CLEAN + DIRTY


def spot_contaminated(answer: Callable[[list[str], list[str]], Collection[int]]) -> Verdict:
    """Marks a function (prompts, training texts) to the places of the prompts that stand in the texts: in other
    letters, with other line breaks or punctuation, and as a part of more. Whatever finds all and accuses none will do;
    questions that have only their wording in common with a text are clean."""
    return verdict(_check_spotted, answer, "all three are found, and no question is accused for its wording alone")


def _check_spotted(answer: Callable[[list[str], list[str]], Collection[int]]) -> None:
    every = CLEAN + DIRTY
    for order in ORDERS:
        prompts = [every[place] for place in order]
        found = _places(call(answer, prompts, list(TRAINING)), len(prompts))
        for place, prompt in enumerate(prompts):
            if prompt in DIRTY and place not in found:
                raise Wrong(f"{_told(prompt)} stands in the training texts and was not found; {_why_missed(prompt)}")
            if prompt in CLEAN and place in found:
                raise Wrong(
                    f"{_told(prompt)} is accused and stands nowhere: a few words in common are the wording that such "
                    "questions share; ask how long the common run is, and how much of the prompt it covers"
                )
    if _places(call(answer, list(CLEAN + DIRTY), ["Nothing of all this."]), len(every)):
        raise Wrong("it accuses prompts although the training text has none of their words; does it read the texts?")


def _places(found: object, count: int) -> set[int]:
    """What was returned, as places; a mask of true and false counts as one. Wrong for anything else."""
    if isinstance(found, Tensor):
        found = found.tolist()
    if isinstance(found, Sequence) and len(found) == count and all(isinstance(one, bool) for one in found):
        return {place for place, one in enumerate(found) if one}
    if not isinstance(found, list | tuple | set | frozenset) or not all(type(one) is int for one in found):
        raise Wrong(f"it returned {found!r:.60}; return the places of the prompts that were seen, counted from 0")
    if outside := [one for one in found if not 0 <= one < count]:
        raise Wrong(f"it returned the place {outside[0]}, and there are {count} prompts, counted from 0")
    return set(found)


def _told(prompt: str) -> str:
    return f"“{prompt if len(prompt) <= 50 else prompt[:49] + '…'}”"


def _why_missed(prompt: str) -> str:
    if prompt == DIRTY[0]:
        return "it differs in capitals alone"
    if prompt == DIRTY[1]:
        return "there the lines break elsewhere"
    return "only a part of it does: look for long runs of words, not for the whole prompt"
