"""The marks of notebook 16 accept right answers, written here another way, and name what is wrong with wrong ones."""

import pytest
import torch

from persimmon_lab.attention import split_heads
from persimmon_lab.checks import nb16_machines as checks
from persimmon_lab.distributed.loading import part_of
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, mistakes_of

EXERCISES = {
    "vocabulary_part": checks.vocabulary_part, "cut_by_thirds": checks.cut_by_thirds, "best_ranks": checks.best_ranks,
}  # fmt: skip


def by_chunks(rows, ranks, rank):
    parts = [*torch.arange(rows).chunk(ranks), *[torch.tensor([], dtype=torch.int64)] * ranks]
    stop = sum(len(part) for part in parts[: rank + 1])
    return torch.tensor([stop - len(parts[rank]), stop])


def third_by_third(weight, heads, ranks, rank):
    return torch.cat([third.chunk(ranks)[rank] for third in weight.chunk(3)])


def tried(work, sums, latency, most):
    best, least = 1, work
    for ranks in range(2, most + 1):
        seconds = work / ranks + 2 * sums * latency * (ranks - 1)
        if seconds < least:
            best, least = ranks, seconds
    return best


def test_right_answers_found_another_way():
    assert_right(checks.vocabulary_part, by_chunks)
    assert_right(checks.cut_by_thirds, third_by_third)
    assert_right(checks.best_ranks, tried)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("name", EXERCISES)
def test_an_answer_that_is_no_answer(name):
    assert_no_answers(EXERCISES[name])


def test_the_parts_are_those_that_a_rank_reads():
    for rows, ranks in ((131, 2), (9, 8)):
        for rank in range(ranks):
            own = part_of(rows, ranks, rank)
            assert checks.part(rows, ranks, rank).tolist() == [own.start, own.stop]


def test_ours_cut_in_equal_parts_are_whole_heads():
    fused = torch.randn(1, 2, 4 * 3 * 5)
    whole = split_heads(fused, 5)
    for rank, own in enumerate(fused.chunk(2, dim=-1)):
        for one, all_heads in zip(split_heads(own, 5), whole, strict=True):
            assert torch.equal(one, all_heads[:, 2 * rank : 2 * rank + 2])
