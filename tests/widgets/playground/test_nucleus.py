"""What is shown of a distribution is what generation draws from."""

import itertools

import pytest
import torch

from persimmon_lab.generation.sampling import shape_distribution
from persimmon_lab.widgets.playground.nucleus import KeptLogits, cuts, nucleus
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.tree import Tree

VOCAB = 300


@pytest.fixture
def logits():
    return 2.5 * torch.randn(VOCAB, generator=torch.Generator().manual_seed(0))


def seen(logits, chosen=None, rows=VOCAB, **settings):
    return nucleus(logits, Settings("", **{"top_p": 1.0} | settings), chosen, str, rows)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    itertools.product((0.5, 1.0, 1.7), (0, 1, 40), (0.3, 0.9, 1.0), (0.0, 0.1)),
)
def test_kept_set_and_probabilities_are_those_of_shape_distribution(logits, temperature, top_k, top_p, min_p):
    shown = seen(logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    scores = shape_distribution(logits, temperature, top_k, top_p, min_p)
    kept = scores > float("-inf")
    tempered = (logits / temperature).softmax(dim=-1)
    assert {each.token_id for each in shown.candidates if each.kept} == set(kept.nonzero()[:, 0].tolist())
    assert shown.kept == int(kept.sum())
    assert shown.mass == pytest.approx(float(tempered[kept].sum()), rel=1e-5)
    drawn, model = scores.softmax(dim=-1), logits.softmax(dim=-1)
    for each in shown.candidates:
        assert each.drawn == float(drawn[each.token_id])
        assert each.probability == float(model[each.token_id])
        assert each.so_far == pytest.approx(float(tempered[tempered >= tempered[each.token_id]].sum()), rel=1e-4)
    assert [each.rank for each in shown.candidates] == list(range(1, VOCAB + 1))


def test_temperature_zero_keeps_the_most_probable(logits):
    shown = seen(logits, temperature=0.0, rows=3)
    assert [(each.token_id == int(logits.argmax()), each.kept, each.drawn) for each in shown.candidates] == [
        (True, True, 1.0),
        (False, False, 0.0),
        (False, False, 0.0),
    ]
    assert (shown.cuts, shown.kept) == ((), 1)


def test_a_chosen_token_below_the_rows_has_one_of_its_own(logits):
    worst = int(logits.argmin())
    shown = seen(logits, worst, rows=5)
    assert [each.rank for each in shown.candidates] == [1, 2, 3, 4, 5, VOCAB]
    assert shown.candidates[-1].so_far == pytest.approx(1.0)
    assert len(seen(logits, int(logits.argmax()), rows=5).candidates) == 5


def test_each_filter_is_named_with_what_it_leaves(logits):
    every = cuts(logits, Settings("", temperature=1.0, top_k=40, top_p=0.8, min_p=0.3))
    assert [name for name, _ in every] == ["top-k 40", "top-p 0.8", "min-p 0.3"]
    assert every[0][1] == 40
    assert 40 > every[1][1] > every[2][1]
    assert cuts(logits, Settings("", top_k=VOCAB, top_p=1.0)) == []


def test_the_oldest_logits_are_forgotten(logits):
    tree = Tree()
    root = tree.add(Settings(""))
    kept = KeptLogits(most_bytes=2 * logits.nbytes)
    reused = logits.clone()
    for index in range(3):
        reused.copy_(logits + index)
        kept.keep(root, index, reused)
    assert kept.get(root, 0) is None
    assert torch.equal(kept.get(root, 1), logits + 1)
    assert torch.equal(kept.get(root, 2), logits + 2)
    kept.keep(root, 2, logits)  # again: takes no more room
    assert torch.equal(kept.get(root, 1), logits + 1)
    child = tree.add(Settings(""), root, 2)
    assert kept.get(child, 1) is kept.get(root, 1)
    assert kept.get(child, 2) is None
