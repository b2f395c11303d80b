"""The marks of notebook 15 accept right answers, written here another way, and name what is wrong with wrong ones."""

import copy

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab import load_mini
from persimmon_lab.checks import nb15_teaching as checks
from persimmon_lab.finetuning import conversation, encode
from persimmon_lab.losses import causal_lm_loss
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {"chat_labels": checks.chat_labels, "parts_of_the_loss": checks.parts_of_the_loss}


def one_by_one(ids, speaker, end):
    labels = []
    for place, (token, who) in enumerate(zip(ids.tolist(), speaker.tolist())):
        answered = place > 0 and speaker[place - 1] == 1
        labels.append(token if who == 1 else end if answered else -100)
    return torch.tensor(labels)


def added_up(losses, labels):
    count = sum(int((row != -100).sum()) for row in labels)
    return torch.stack([row[learned != -100].sum() / count for row, learned in zip(losses, labels)])


def test_right_answers_found_another_way():
    assert_right(checks.chat_labels, one_by_one)
    assert_right(checks.parts_of_the_loss, added_up)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("name", EXERCISES)
def test_an_answer_that_is_no_answer(name):
    assert_no_answers(EXERCISES[name])


def test_the_labels_are_those_that_fine_tuning_takes():
    """Of a real conversation, whose speakers are read off the labels themselves where they are the ids."""
    tokenizer = load_mini()[1]
    encoded = encode(conversation("Hello!", "Hi there.", "How are you?", "Fine, thank you."), tokenizer, 100)
    ids, labels = torch.tensor(encoded.input_ids), torch.tensor(encoded.labels)
    speaker = (ids == labels).long()
    speaker[-1] = 0  # the last end is nobody's word
    assert torch.equal(checks.labels_of(ids, speaker, tokenizer.eos_token_id), labels)


def test_the_parts_are_what_a_batch_of_all_gives():
    generator = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(3, 9, 11, generator=generator), torch.randint(11, (3, 9), generator=generator)
    for row, count in enumerate((7, 1, 0)):
        labels[row, count + 1 :] = -100
    labels[2] = -100
    following = F.pad(labels[:, 1:], (0, 1), value=-100)
    losses = F.cross_entropy(logits.mT, following.clamp(min=0), reduction="none")
    torch.testing.assert_close(checks.by_tokens(losses, following).sum(), causal_lm_loss(logits, labels))


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda ids, speaker, end: ids.where(speaker == 1, -1), "the shape is right, the numbers are not"),
        (lambda ids, speaker, end: one_by_one(ids, speaker, end)[1:], "returned the shape (8,); expected (9,)"),
        (lambda ids, speaker, end: one_by_one(ids, 1 - speaker, end), "the shape is right, the numbers are not"),
        (lambda ids, speaker, end: None, "not answered yet"),
    ],
)
def test_wrong_labels_are_told_what_is_wrong(answer, told):
    assert_told(checks.chat_labels, answer, told)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda losses, labels: added_up(losses, labels).sum(), "returned the shape (); expected (3,)"),
        (
            lambda losses, labels: (
                torch.stack([row[own != -100].mean() for row, own in zip(losses, labels)]) / len(losses)
            ),
            "not finite",  # of a batch without labels
        ),
        (lambda losses, labels: added_up(losses, labels.clamp(min=0)), "the mean over all positions"),
    ],
)
def test_wrong_parts_are_told_what_is_wrong(answer, told):
    assert_told(checks.parts_of_the_loss, answer, told)


# The head


def on_what_was_read(model, ids, labels):
    """Newton-like, on the last tokens that the frozen body made."""
    model.requires_grad_(False)
    weight = model.score.weight.requires_grad_()
    read = model.model(ids).last_hidden_state[:, -1]
    optimiser = torch.optim.LBFGS([weight], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        total = F.cross_entropy(model.score(read), labels)
        total.backward()
        return total

    optimiser.step(loss)
    return model


def descend(model, ids, labels, weights, steps=150, forward=None):
    optimiser = torch.optim.AdamW(weights, lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        logits = model(ids).logits if forward is None else forward()
        F.cross_entropy(logits, labels).backward()
        optimiser.step()
    return model


def in_steps(model, ids, labels):
    with torch.no_grad():
        read = model.model(ids).last_hidden_state[:, -1]
    return descend(model, ids, labels, [model.score.weight], forward=lambda: model.score(read))


def in_a_copy(model, ids, labels):
    return on_what_was_read(copy.deepcopy(model), ids, labels)


def solved(model, ids, labels):
    """No training at all: more channels than texts can be solved for."""
    with torch.no_grad():
        read = model.model(ids).last_hidden_state[:, -1]
        model.score.weight.copy_((torch.linalg.pinv(read) @ (20 * F.one_hot(labels, checks.LABELS).float())).T)
    return model


@pytest.mark.parametrize("answer", [on_what_was_read, in_steps, in_a_copy, solved])
def test_any_way_to_a_head_is_right(answer):
    assert_right(checks.fit_head, answer)


def reads_each_time(model, ids, labels):
    model.requires_grad_(False)
    model.score.weight.requires_grad_()
    return descend(model, ids, labels, [model.score.weight])


def thawed(model, ids, labels):
    return descend(model, ids, labels, model.parameters(), steps=20)


def unfrozen(model, ids, labels):
    """The optimiser has the head alone, but the body collects gradients."""
    return descend(model, ids, labels, [model.score.weight], steps=20)


def decayed(model, ids, labels):
    """Frozen after the fact: the body was in the optimiser, and weight decay moved it."""
    on_what_was_read(model, ids, labels)
    with torch.no_grad():
        model.model.layers[0].mlp.dense_h_to_4h.weight.mul_(1 - 1e-6)
    return model


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (reads_each_time, "the body read the texts 150 times"),
        (thawed, "the body moved, "),
        (unfrozen, "the body has gradients"),
        (decayed, "the body moved, 1 of its "),
        (lambda model, ids, labels: model, "the body never read the texts"),
        (lambda model, ids, labels: on_what_was_read(model, ids, labels.flip(0)), "the head tells "),
        (lambda model, ids, labels: on_what_was_read(model, ids.flip(0), labels), "the head tells "),
        (
            lambda model, ids, labels: (
                model.requires_grad_(False),
                model.score.weight.requires_grad_(),
                descend(model, ids, labels, [model.score.weight], steps=3),
            )[-1],
            "go on for longer",
        ),
        (lambda model, ids, labels: model.model(ids).last_hidden_state, "return the model"),
        (lambda model, ids, labels: on_what_was_read(model, ids, labels) and None, "not answered yet"),
        (lambda model, ids, labels: model.head, "stopped with AttributeError"),
    ],
)
def test_a_wrong_head_is_told_what_is_wrong(answer, told):
    assert_told(checks.fit_head, answer, told)


def test_an_answer_that_is_no_head():
    assert_no_answers(checks.fit_head, tensor=False)
