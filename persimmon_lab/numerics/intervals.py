"""How much a score of so many right answers is worth: intervals, the paired test, and what a test could have shown.

A score is a share of items that were answered right, each item a coin that falls one way. Nothing here is a normal
approximation of it: with a hundred items, at a score of 2% or 98%, that is wrong by more than what one looks for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

LEVEL = 0.95
POWER = 0.8
HALVINGS = 16  # of the share of discordant items, to four digits
UNLIKELY = 1e-12  # counts of discordant items less likely than this, on either side together, are left out


def wilson(successes: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval of shares that `successes` of `count` do not rule out at this level (Wilson 1927).

    Those p whose own normal spread reaches the observed share: |share - p| <= z sqrt(p (1 - p) / count). It stays
    within 0 and 1 and is not empty at either end, where share +- z sqrt(share (1 - share) / count) is.

    ValueError for no items, more successes than items, or a level that is not between 0 and 1. Trap: two models whose
    intervals overlap may differ beyond doubt, and do where they were asked the same items: use `paired_test`.
    """
    if not 0 <= successes <= count or count < 1:
        raise ValueError(
            f"{successes} of {count} items right: give at least one item, and from none to all of them right"
        )
    share, z2 = successes / count, NormalDist().inv_cdf(0.5 + _between(level, "level") / 2) ** 2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / (4 * count)) / count) / (1 + z2 / count)
    # Rounding would leave the ends a hair beside 0 and 1, where they are exact.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == count else middle + half)


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same items: `p` of the exact test, and how many items only one of them answered right."""

    p: float
    only_first: int
    only_second: int
    count: int

    @property
    def difference(self) -> float:
        """The first model's score less the second's."""
        return (self.only_first - self.only_second) / self.count

    def __repr__(self) -> str:
        told = f"{self.only_first} only by the first, {self.only_second} only by the second"
        return f"<PairedTest: {self.difference:+.1%} on {self.count} items ({told}), p = {self.p:.2g}>"


def paired_test(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    """Whether two models' verdicts on the same items differ by more than luck: McNemar's test (1947), exact.

    Items that both got right or both got wrong say nothing about which is better. Among the others, were the two
    equally good, each would be a fair coin; p is how often such coins fall at least as unevenly, on either side.

    ValueError for lists of two lengths or none at all. Trap: it asks whether, not how much: a large p of few items is
    no sign of equality (`smallest_difference` says what they could have shown).
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(
            f"{len(first)} and {len(second)} verdicts: a paired test needs both models' on the same items, at least one"
        )
    only_first = sum(bool(one) and not other for one, other in zip(first, second))
    only_second = sum(bool(other) and not one for one, other in zip(first, second))
    return PairedTest(coin_p(only_first, only_second), only_first, only_second, len(first))


def coin_p(heads: int, tails: int) -> float:
    """How often a fair coin falls at least as unevenly as so many heads and tails, on either side."""
    tosses, fewer = heads + tails, min(heads, tails)
    ways, total = 1, 1
    for index in range(fewer):
        ways = ways * (tosses - index) // (index + 1)
        total += ways
    return min(1.0, 2 * total / (1 << tosses))  # as many of either: both sides count the middle


def smallest_difference(
    count: int, discordant: float = 0.5, level: float = LEVEL, power: float = POWER
) -> float | None:
    """The smallest true difference of two models' scores that a `paired_test` on `count` items would find.

    Would find: with a p below 1 - `level`, in a share `power` of all draws of items. `discordant` is the share of items
    that only one of the two answers right; the difference can be at most that. None where not even that is found.

    The fewer items are discordant, the smaller a difference shows: a model beside a slightly changed copy of itself is
    a finer test than beside a stranger. ValueError for no items, or shares that are not between 0 and 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}: how many items are to be asked? At least one")
    share = 1.0 if discordant == 1 else _between(discordant, "discordant")
    uneven = _uneven_counts(count, share, 1 - _between(level, "level"))
    wanted = _between(power, "power")
    if _power(uneven, 1.0) < wanted:
        return None
    low, high = 0.0, 1.0  # as a share of what is discordant
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(uneven, middle) >= wanted else (middle, high)
    return high * share


@dataclass(frozen=True)
class _Uneven:
    """Each outcome that the test finds: so many discordant items, of which so few went the other way. `log_chance` has
    the chance of that many discordant items, and the ways in which so few of them can."""

    tosses: Float[Tensor, "outcome"]
    fewer: Float[Tensor, "outcome"]
    log_chance: Float[Tensor, "outcome"]


def _uneven_counts(count: int, discordant: float, alpha: float) -> _Uneven:
    items = torch.arange(count + 1, dtype=torch.float64)
    drawn = _log_ways(torch.tensor(float(count), dtype=torch.float64), items) + _log_share(
        items, count - items, discordant
    )
    outcomes: list[tuple[Tensor, Tensor, Tensor]] = []
    for tosses in items[drawn > math.log(UNLIKELY / (count + 1))]:
        fewer = items[: int(tosses + 1) // 2]  # less than half
        ways = _log_ways(tosses, fewer)
        found = 2 * (ways - tosses * math.log(2)).exp().cumsum(0) < alpha
        outcomes.append((tosses.expand(int(found.sum())), fewer[found], ways[found] + drawn[int(tosses)]))
    return _Uneven(*(torch.cat(column) for column in zip(*outcomes)))


def _power(uneven: _Uneven, lean: float) -> float:
    """How often the test finds a difference that is `lean` of what is discordant: leaning either way counts."""
    fewer, more = uneven.fewer, uneven.tosses - uneven.fewer
    ways = (_log_share(fewer, more, (1 - lean) / 2), _log_share(more, fewer, (1 - lean) / 2))
    return sum(float((uneven.log_chance + way).exp().sum()) for way in ways)


def _log_ways(count: Float[Tensor, ""], chosen: Float[Tensor, "outcome"]) -> Float[Tensor, "outcome"]:
    """The logarithm of count over chosen."""
    return torch.lgamma(count + 1) - torch.lgamma(chosen + 1) - torch.lgamma(count - chosen + 1)


def _log_share(
    heads: Float[Tensor, "outcome"], tails: Float[Tensor, "outcome"], share: float
) -> Float[Tensor, "outcome"]:
    """The logarithm of share ** heads (1 - share) ** tails; xlogy makes 0 log 0 a 0."""
    chance = torch.tensor(share, dtype=torch.float64)
    return torch.xlogy(heads, chance) + torch.xlogy(tails, 1 - chance)


def _between(share: float, name: str) -> float:
    if not 0 < share < 1:
        raise ValueError(f"{name} is {share}: give a share between 0 and 1, such as 0.95")
    return share
