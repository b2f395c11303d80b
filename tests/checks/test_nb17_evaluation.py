"""The marks of notebook 17 accept right answers, written here another way, and name what is wrong with wrong ones."""

import itertools
import math
import re

import pytest
import torch

from persimmon_lab.checks import nb17_evaluation as checks
from persimmon_lab.evaluation import overlaps
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {
    "perfect_run": checks.perfect_run,
    "paired_p": checks.paired_p,
    "best_of_seeds": checks.best_of_seeds,
}


# Right answers, found another way


def run_in_closed_form(share):
    """n / (n + z²) > share."""
    return math.floor(1.959963984540054**2 * share / (1 - share)) + 1


def p_by_listing(first, second):
    """Every way in which the coins of the discordant items fall: few enough to list."""
    coins = [int(a) - int(b) for a, b in zip(first.tolist(), second.tolist()) if a != b]
    seen, sides = abs(sum(coins)), list(itertools.product((-1, 1), repeat=len(coins)))
    return sum(abs(sum(fallen)) >= seen for fallen in sides) / len(sides)


def best_by_its_distribution(share, items, seeds):
    """Sum of right times P(max = right), where P(max = right) = F(right)^k - F(right - 1)^k."""
    chances = [math.comb(items, n) * share**n * (1 - share) ** (items - n) for n in range(items + 1)]
    up_to = list(itertools.accumulate(chances))
    mass = [up_to[0] ** seeds, *(up_to[n] ** seeds - up_to[n - 1] ** seeds for n in range(1, items + 1))]
    return sum(n * one for n, one in enumerate(mass)) / items


def plain_words(text):
    return re.findall(r"\w+", text.lower())


def runs_in_common(prompts, training):
    """Six words in a row, or all where there are fewer, with whatever stands between them."""
    found = []
    for place, prompt in enumerate(prompts):
        words = plain_words(prompt)
        runs = [" ".join(words[i : i + 6]) for i in range(max(1, len(words) - 5))]
        found += [place] if any(f" {run} " in f" {' '.join(plain_words(t))} " for run in runs for t in training) else []
    return found


def by_the_module(prompts, training):
    return {place for place, overlap in enumerate(overlaps(prompts, training)) if overlap.is_seen}


def as_a_mask(prompts, training):
    return torch.tensor([place in by_the_module(prompts, training) for place in range(len(prompts))])


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.perfect_run, run_in_closed_form),
        (checks.paired_p, p_by_listing),
        (checks.best_of_seeds, best_by_its_distribution),
        (checks.spot_contaminated, runs_in_common),
        (checks.spot_contaminated, by_the_module),
        (checks.spot_contaminated, as_a_mask),
        (checks.spot_contaminated, lambda prompts, training: tuple(runs_in_common(prompts, training))),
    ],
)
def test_a_right_answer_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_a_named_mistake_is_told(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", EXERCISES.values())
def test_what_is_no_answer(check):
    assert_no_answers(check)


def test_what_is_no_list_of_places():
    assert_no_answers(checks.spot_contaminated, tensor=False)


# Wrong answers to the open one


def whole_prompt(prompts, training):
    return [place for place, prompt in enumerate(prompts) if any(prompt in text for text in training)]


def whole_prompt_in_any_case(prompts, training):
    return [place for place, prompt in enumerate(prompts) if any(prompt.lower() in text.lower() for text in training)]


def words_in_any_order(prompts, training):
    known = set(plain_words(" ".join(training)))
    shares = [sum(word in known for word in plain_words(prompt)) / len(plain_words(prompt)) for prompt in prompts]
    return [place for place, share in enumerate(shares) if share > 0.8]


def three_words(prompts, training):
    texts = " ".join(" ".join(plain_words(text)) for text in training)
    runs = [[" ".join(plain_words(p)[i : i + 3]) for i in range(len(plain_words(p)) - 2)] for p in prompts]
    return [place for place, found in enumerate(runs) if any(run in texts for run in found)]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (whole_prompt, "it differs in capitals alone"),
        (whole_prompt_in_any_case, "was not found; "),
        (words_in_any_order, "is accused and stands nowhere"),
        (three_words, "is accused and stands nowhere"),
        (lambda prompts, training: [], "was not found"),
        (lambda prompts, training: range(len(prompts)), "return the places"),
        (lambda prompts, training: [*range(len(prompts))], "is accused and stands nowhere"),
        (lambda prompts, training: [99], "the place 99, and there are 8 prompts"),
        (lambda prompts, training: [-1], "the place -1"),
        (lambda prompts, training: [float(n) for n in runs_in_common(prompts, training)], "return the places"),
        (lambda prompts, training: [n + 1 for n in runs_in_common(prompts, training)], "✗ not yet"),
        (lambda prompts, training: runs_in_common(prompts, checks.TRAINING), "none of their words"),
        (lambda prompts, training: [1, 4, 6], "✗ not yet"),
    ],
)
def test_an_answer_that_misses_or_accuses_is_told_which(answer, told):
    assert_told(checks.spot_contaminated, answer, told)


def test_the_cases_part_the_paired_test_from_its_relatives():
    """One case at least where the sides are even, one with no discordant item, one where the models agree widely."""
    counts = [
        (int((case["first"] & ~case["second"]).sum()), int((case["second"] & ~case["first"]).sum()), len(case["first"]))
        for case in checks.pairs()
    ]
    assert any(a == b > 0 for a, b, _ in counts) and any(a == b == 0 for a, b, _ in counts)
    assert any(a + b < total / 4 for a, b, total in counts)
    assert {a < b for a, b, _ in counts if a != b} == {True, False}


def test_every_place_stands_in_some_order():
    assert set(itertools.chain(*checks.ORDERS)) == set(range(len(checks.CLEAN + checks.DIRTY)))
