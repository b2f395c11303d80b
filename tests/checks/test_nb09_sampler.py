"""The open exercise of notebook 09 takes any sampler with its four properties."""

import torch

from persimmon_lab.checks import nb09_sampler
from tests.checks.verdicts import assert_right, assert_told


def above(ratio):
    def process(ids, scores):
        p = scores.softmax(dim=-1)
        return scores.masked_fill(p < ratio * p.amax(dim=-1, keepdim=True), -torch.inf)

    return process


def test_a_ratio_to_the_best_is_right():
    assert_right(nb09_sampler.my_sampler, above(0.05))


def test_samplers_without_a_property_are_told_which():
    assert_told(nb09_sampler.my_sampler, lambda ids, scores: None, "○ not answered yet")
    assert_told(nb09_sampler.my_sampler, lambda ids, scores: scores, "too unlikely")
    assert_told(nb09_sampler.my_sampler, above(1.0), "round in circles")
    assert_told(nb09_sampler.my_sampler, lambda ids, scores: scores - scores.mean(), "otherwise than alone")
    assert_told(nb09_sampler.my_sampler, lambda ids, scores: scores * -torch.inf, "it returned numbers")
    assert_told(
        nb09_sampler.my_sampler, lambda ids, scores: torch.full_like(scores, -torch.inf), "every token of a row"
    )

    def unsaid(ids, scores):
        return scores.scatter(1, ids, -torch.inf)

    assert_told(nb09_sampler.my_sampler, unsaid, "forbids what has to be said twice")
