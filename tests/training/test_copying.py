"""Rows say what can be known, and a model taught on them comes to know it, and no more."""

import math

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.training.copying import (
    START,
    CopyTask,
    copying_accuracy,
    gradient_norms,
    loss_by_symbol,
    part_of,
    teach,
)
from persimmon_lab.training.initialisation import start_copying


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_model(task: CopyTask, seed: int = 0) -> PersimmonForCausalLM:
    return PersimmonForCausalLM(PersimmonConfig.tiny(vocab_size=task.vocab_size), seeded(seed))


@pytest.mark.parametrize(
    "task", [CopyTask(), CopyTask(6, 2, 5, 17), CopyTask(9, 3, 9, 30, distinct=True), CopyTask(4, 1, 1, 2)]
)
def test_a_row_is_a_block_that_comes_again(task):
    rows = task.rows(200, seeded(1))
    assert rows.ids.shape == rows.new.shape == rows.copied.shape == (200, task.length + 1)
    periods = set()
    for ids, new, copied in zip(*(part.tolist() for part in rows)):
        period = sum(new)
        periods.add(period)
        assert ids[0] == START and min(ids[1:]) >= 1 and max(ids) <= task.symbols
        assert new == [1 <= place <= period for place in range(task.length + 1)]
        assert copied == [place > period + 1 for place in range(task.length + 1)]
        assert all(ids[place] == ids[place - period] for place in range(period + 1, task.length + 1))
        if task.distinct:
            assert len(set(ids[1 : period + 1])) == period
    assert periods == set(range(task.shortest, task.longest + 1))


@pytest.mark.parametrize("distinct", [False, True])
def test_every_symbol_is_drawn_as_often_as_any_other(distinct):
    rows = CopyTask(5, 4, 4, 8, distinct=distinct).rows(5000, seeded(2))
    counts = torch.bincount(rows.ids[rows.new], minlength=6)
    assert counts[0] == 0
    # 4 of 5 distinct ones spread less than 4 draws, whose standard deviation is 57.
    torch.testing.assert_close(counts[1:].double(), torch.full((5,), 4000.0).double(), atol=230, rtol=0)


def test_labels_ask_for_what_can_be_known():
    rows = CopyTask(6, 2, 5, 9).rows(3, seeded(3))
    assert (rows.labels[rows.copied] == rows.ids[rows.copied]).all()
    assert (rows.labels[~rows.copied] == -100).all()


def test_chance():
    assert CopyTask(32).chance == pytest.approx(3.4657, abs=1e-4)
    assert CopyTask(32).vocab_size == 33


@pytest.mark.parametrize("sizes", [(8, 0, 3, 9), (8, 4, 3, 9), (8, 3, 9, 9)])
def test_a_row_with_nothing_to_copy_is_refused(sizes):
    with pytest.raises(ValueError, match="so that something comes again"):
        CopyTask(*sizes)
    with pytest.raises(ValueError, match="7 distinct symbols are asked for, and there are 5"):
        CopyTask(5, 3, 7, 14, distinct=True)


def test_the_loss_stands_at_the_symbol_that_it_is_of():
    task = CopyTask(6, 2, 5, 9)
    model, ids = small_model(task), task.rows(3, seeded(4)).ids
    losses = loss_by_symbol(model, ids)
    logits = model(ids).logits.double()
    assert losses.shape == ids.shape and (losses[:, 0] == 0).all()
    for row, place in ((0, 1), (1, 4), (2, 9)):
        expected = -logits[row, place - 1].log_softmax(-1)[ids[row, place]]
        assert losses[row, place].item() == pytest.approx(expected.item(), abs=1e-5)


def test_every_parameter_has_its_part():
    model = small_model(CopyTask())
    parts = [part_of(name) for name, _ in model.named_parameters()]
    assert list(dict.fromkeys(parts)) == [
        "embedding", "layer 0 attention", "layer 0 MLP", "layer 1 attention", "layer 1 MLP", "final norm", "head",
    ]  # fmt: skip
    # Of a layer: a norm, two projections with biases and two norms of heads; a norm and two projections.
    assert [parts.count(part) for part in dict.fromkeys(parts)] == [1, 10, 6, 10, 6, 2, 1]


def test_the_norms_of_the_parts_make_the_norm_of_the_whole():
    task = CopyTask(6, 2, 5, 9)
    model = small_model(task)
    assert gradient_norms(model) == {}
    loss_by_symbol(model, task.rows(4, seeded(5)).ids).mean().backward()
    norms = gradient_norms(model)
    attention = model.model.layers[1].self_attn
    own = [*attention.parameters(), *model.model.layers[1].input_layernorm.parameters()]
    expected = torch.cat([parameter.grad.flatten() for parameter in own]).norm().item()
    assert norms["layer 1 attention"] == pytest.approx(expected, rel=1e-5)
    whole = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9).item()
    assert math.hypot(*norms.values()) == pytest.approx(whole, rel=1e-5)


def test_teaching_is_adamw_on_the_mean_loss_with_clipping_and_a_rate_that_rises_and_falls():
    task = CopyTask(6, 2, 5, 9)
    model, other = small_model(task), small_model(task)
    settings = {"steps": 6, "rate": 0.02, "count": 4, "warmup": 2, "decay": 0.5, "most": 0.1}
    lessons = list(teach(model, task, seeded(6), **settings))
    assert [lesson.step for lesson in lessons] == list(range(6))

    generator = seeded(6)
    optimiser = torch.optim.AdamW(other.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    for lesson, scale in zip(lessons, (0.5, 1, 1, 1, 2 / 3, 1 / 3), strict=True):
        rows = task.rows(4, generator)
        logits = other(rows.ids[:, :-1]).logits
        losses = F.cross_entropy(logits.flatten(0, 1), rows.ids[:, 1:].flatten(), reduction="none").reshape(4, -1)
        assert lesson.new == pytest.approx(losses[rows.new[:, 1:]].mean().item(), abs=1e-5)
        assert lesson.copied == pytest.approx(losses[rows.copied[:, 1:]].mean().item(), abs=1e-5)
        optimiser.zero_grad()
        losses.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(other.parameters(), 0.1)
        assert norm > 0.1
        assert math.hypot(*lesson.gradients.values()) == pytest.approx(norm.item(), rel=1e-4)
        optimiser.param_groups[0]["lr"] = 0.02 * scale
        optimiser.step()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-3)


def test_one_distance_is_learned_from_any_start_and_chance_stays_chance():
    task = CopyTask(16, 6, 6, 12)
    model = small_model(task)
    before = copying_accuracy(model, task.rows(64, seeded(8)))
    *_, last = teach(model, task, seeded(7), steps=140)
    assert last.copied < 0.3 < 2.5 < last.new < 3.2  # log 16 is 2.77
    assert before < 0.3 < 0.95 < copying_accuracy(model, task.rows(64, seeded(8)))
    # What it learned is the distance.
    assert copying_accuracy(model, CopyTask(16, 4, 4, 12, distinct=True).rows(64, seeded(8))) < 0.5


def test_any_distance_is_learned_from_a_start_that_copies():
    task = CopyTask(32, 4, 12, 24, distinct=True)
    model = small_model(task)
    start_copying(model, seeded(1), embedding_std=0.5, head_std=0.08, copying=0.25)
    *_, last = teach(model, task, seeded(7), steps=160)
    assert last.copied < 0.2
    assert copying_accuracy(model, CopyTask(32, 16, 16, 24, distinct=True).rows(64, seeded(8))) > 0.9


def test_accuracy_counts_the_copied_symbols_alone():
    class Repeats(torch.nn.Module):
        """Says at every place that the next symbol is the one two places before it."""

        def forward(self, ids, use_cache):
            guesses = torch.cat((torch.full((len(ids), 1), 1), ids[:, :-1]), dim=1)
            return type("Output", (), {"logits": F.one_hot(guesses, 7).float()})

    assert copying_accuracy(Repeats(), CopyTask(6, 2, 2, 9).rows(50, seeded(9))) == 1
    assert copying_accuracy(Repeats(), CopyTask(6, 3, 3, 9, distinct=True).rows(50, seeded(9))) == 0

    class FailsAtTheEnd(Repeats):
        def forward(self, ids, use_cache):
            output = super().forward(ids, use_cache)
            output.logits[:, -2] = F.one_hot(torch.tensor(START), 7).float()  # what speaks of the last symbol
            return output

    # Of 9 symbols 2 are new and 1 begins the copy, so 6 are asked for.
    assert copying_accuracy(FailsAtTheEnd(), CopyTask(6, 2, 2, 9).rows(50, seeded(9))) == pytest.approx(5 / 6)
