"""Intervals and paired tests equal what counting all outcomes gives, and scipy where it is at hand."""

import itertools
import math

import pytest

from persimmon_lab.numerics import paired_test, smallest_difference, wilson
from persimmon_lab.numerics.intervals import coin_p

SHARES = [(successes, count) for count in (1, 2, 7, 30) for successes in range(count + 1)]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_wilson_is_where_the_share_is_z_spreads_away(level):
    z = {0.5: 0.6744897502, 0.9: 1.6448536270, 0.95: 1.9599639845, 0.99: 2.5758293035}[level]
    for successes, count in SHARES:
        low, high = wilson(successes, count, level)
        share = successes / count
        assert 0 <= low <= share <= high <= 1
        for end in (low, high):
            if 0 < end < 1:
                assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / count), rel=1e-8)
        assert (low == 0) == (successes == 0)
        assert (high == 1) == (successes == count)


def test_wilson_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    for successes, count in SHARES:
        for level in (0.8, 0.95):
            theirs = stats.binomtest(successes, count).proportion_ci(level, method="wilson")
            assert wilson(successes, count, level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
def test_wilson_holds_the_truth_as_often_as_it_says(share):
    """By all outcomes of 60 items; the simple interval holds a share of 2% in 70% of them."""
    count = 60
    chances = [math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]
    assert sum(chances) == pytest.approx(1)
    covered = sum(chance for k, chance in enumerate(chances) if wilson(k, count)[0] <= share <= wilson(k, count)[1])
    assert 0.93 < covered < 0.98
    if share == 0.02:
        spread = [1.96 * math.sqrt(k / count * (1 - k / count) / count) for k in range(count + 1)]
        simple = sum(chance for k, chance in enumerate(chances) if abs(k / count - share) <= spread[k])
        assert simple < 0.75


@pytest.mark.parametrize(("successes", "count"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_what_is_no_share(successes, count):
    with pytest.raises(ValueError, match=f"{successes} of {count} items right: give at least one item"):
        wilson(successes, count)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_levels_are_shares(level):
    with pytest.raises(ValueError, match=f"level is {level}: give a share between 0 and 1"):
        wilson(1, 2, level)


def enumerated(heads, tails):
    """Of all ways in which the coins can fall, the share that is at least as uneven."""
    falls = list(itertools.product((0, 1), repeat=heads + tails))
    uneven = [fall for fall in falls if abs(2 * sum(fall) - len(fall)) >= abs(heads - tails)]
    return len(uneven) / len(falls)


def test_the_p_of_coins_is_that_of_all_their_falls():
    for heads in range(7):
        for tails in range(7):
            assert coin_p(heads, tails) == pytest.approx(enumerated(heads, tails), rel=1e-12)


def test_the_p_of_coins_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    for heads, tails in ((0, 6), (3, 12), (50, 71), (700, 600), (1900, 2100)):
        assert coin_p(heads, tails) == pytest.approx(stats.binomtest(heads, heads + tails).pvalue, rel=1e-9)


def test_a_paired_test_looks_at_what_only_one_got_right():
    first = [True] * 40 + [True] * 9 + [False] * 1 + [False] * 50
    second = [True] * 40 + [False] * 9 + [True] * 1 + [False] * 50
    test = paired_test(first, second)
    assert (test.only_first, test.only_second, test.count) == (9, 1, 100)
    assert test.p == pytest.approx(2 * 11 / 2**10)
    assert test.difference == pytest.approx(0.08)
    other = paired_test(second, first)
    assert (other.p, other.only_first, other.difference) == (test.p, 1, -0.08)
    assert repr(test) == "<PairedTest: +8.0% on 100 items (9 only by the first, 1 only by the second), p = 0.021>"
    # The same scores with other pairs: 49 and 41 of 100, and no telling them apart.
    assert paired_test([True] * 49 + [False] * 51, [False] * 51 + [True] * 41 + [False] * 8).p > 0.4


def test_a_model_beside_itself_is_no_better():
    test = paired_test([True, False, True], [True, False, True])
    assert (test.p, test.only_first, test.only_second, test.difference) == (1, 0, 0, 0)


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False])])
def test_a_paired_test_needs_the_same_items(first, second):
    with pytest.raises(ValueError, match=f"{len(first)} and {len(second)} verdicts"):
        paired_test(first, second)


def power_by_counting(count, discordant, difference, level):
    """How often the test finds it, over all numbers of items that only the first, and only the second, got right."""
    first, second = (discordant + difference) / 2, (discordant - difference) / 2
    found = 0.0
    for heads in range(count + 1):
        for tails in range(count + 1 - heads):
            ways = math.comb(count, heads) * math.comb(count - heads, tails)
            chance = ways * first**heads * second**tails * (1 - discordant) ** (count - heads - tails)
            found += chance * (coin_p(heads, tails) < 1 - level)
    return found


@pytest.mark.parametrize(
    ("count", "discordant", "level", "power"),
    [(20, 0.5, 0.95, 0.8), (60, 0.3, 0.95, 0.8), (60, 0.3, 0.9, 0.8), (60, 0.3, 0.95, 0.5), (12, 1.0, 0.95, 0.9)],
)
def test_the_smallest_difference_is_found_as_often_as_asked(count, discordant, level, power):
    smallest = smallest_difference(count, discordant, level, power)
    assert 0 < smallest <= discordant
    assert power_by_counting(count, discordant, smallest, level) == pytest.approx(power, abs=1e-3)


def test_more_items_and_less_discord_show_smaller_differences():
    assert smallest_difference(100, 0.3) > smallest_difference(400, 0.3) > smallest_difference(1600, 0.3)
    assert smallest_difference(400, 0.5) > smallest_difference(400, 0.1)


def test_too_few_items_show_nothing():
    assert smallest_difference(5, 1.0) is None  # five heads of five coins: p = 0.06
    assert smallest_difference(6, 1.0) == pytest.approx(2 * 0.8 ** (1 / 6) - 1, abs=1e-4)  # six of six: p = 0.03
    assert smallest_difference(20, 0.05) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"count": 0}, "count is 0"),
        ({"count": 9, "discordant": 0.0}, "discordant is 0.0"),
        ({"count": 9, "discordant": 1.5}, "discordant is 1.5"),
        ({"count": 9, "level": 95.0}, "level is 95.0"),
        ({"count": 9, "power": 1.0}, "power is 1.0"),
    ],
)
def test_what_is_no_share_is_refused(given, told):
    with pytest.raises(ValueError, match=told):
        smallest_difference(**given)
