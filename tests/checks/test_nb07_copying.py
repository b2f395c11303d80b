"""The mark of notebook 07 for a training accepts any that copies at any distance, and counts the rows that it read."""

import pytest
import torch

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checks import nb07_copying as checks
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.training.copying import CopyTask, Rows, teach
from persimmon_lab.training.initialisation import start_copying
from tests.checks.verdicts import assert_no_answers, assert_right, assert_told


class Drawn(CopyTask):
    """The task as `teach` wants it, with rows from the check."""

    def __init__(self, draw):
        object.__setattr__(self, "draw", draw)

    def rows(self, count, generator):
        ids = self.draw(count)
        everything = torch.ones_like(ids, dtype=torch.bool)
        return Rows(ids, everything, everything)


def fresh(generator, **changes):
    sizes = {"vocab_size": 33, "intermediate_size": 256, "rope_theta": 25000.0}
    return PersimmonForCausalLM(PersimmonConfig.tiny(**sizes | changes), generator)


def trained(draw, generator, steps=140, copying=0.25):
    model = fresh(generator)
    if copying:
        start_copying(model, generator, embedding_std=0.5, head_std=0.08, copying=copying)
    for _ in teach(model, Drawn(draw), generator, steps=steps):
        pass
    return model


def of_one_distance(draw, generator):
    """Trained on rows of its own, all of a period of 12: it copies nothing else."""
    model = fresh(generator)
    for _ in teach(model, CopyTask(32, 12, 12, 24), generator, steps=140):
        pass
    return model


def test_a_training_that_copies_is_right_and_its_rows_are_counted():
    verdict = assert_right(checks.shortest_training, trained)
    assert "after 4,480 rows" in repr(verdict)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda draw, generator: fresh(generator), "are needed (chance: 3%)"),
        (lambda draw, generator: trained(draw, generator, steps=20), "is it still falling?"),
        (of_one_distance, "are needed"),
        (lambda draw, generator: trained(draw, generator, steps=160), "it asks for 5,120 rows; do it with fewer"),
        (lambda draw, generator: fresh(generator, vocab_size=32), "its vocabulary is 32; the task has 33 ids"),
        (lambda draw, generator: fresh(generator).model, "it returned a PersimmonModel"),
    ],
)
def test_trainings_that_are_none_are_told_why(answer, told):
    assert_told(checks.shortest_training, answer, told)


def test_distances_alone_are_told_from_looking(monkeypatch):
    """A model that copies at every period that was taught, and at no other."""

    def accuracy(model, rows):
        return 0.99 if rows.ids.shape == (256, 25) and int(rows.new.sum(dim=1).max()) <= 12 else 0.3

    monkeypatch.setattr(checks, "copying_accuracy", accuracy)
    said = repr(checks.shortest_training(lambda draw, generator: fresh(generator)))
    assert "it copies 99% at the periods that it was taught and 30% at a period of 16" in said


def test_an_answer_that_is_no_answer():
    assert_no_answers(checks.shortest_training, tensor=False)
