"""The exercises of notebook 14 accept what is right and say what is wrong."""

import pytest
import torch

from persimmon_lab.checks import nb14_speed as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {"find_the_bytes": checks.find_the_bytes, "round_rows": checks.round_rows}


def parts(config, past, batch):
    """How many numbers each part of a step reads, written out."""
    hidden, mlp, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    return {
        "weights": layers * (4 * hidden * hidden + 2 * hidden * mlp),
        "biases": layers * (3 * hidden + hidden + mlp + hidden),
        "norms": layers * (2 * 2 * hidden + 2 * 2 * config.head_dim) + 2 * hidden,
        "lm_head": config.vocab_size * hidden,
        "rows": batch * hidden,
        "cache": batch * past * layers * 2 * config.num_attention_heads * config.head_dim,
    }


def without(*names, **extra):
    def count(config, bytes_per_number, past, batch):
        read = parts(config, past, batch)
        kept = sum(value for name, value in read.items() if name not in names)
        return bytes_per_number * (kept + sum(more(config, past, batch, read) for more in extra.values()))

    return count


def row_by_row(weight):
    rows = []
    for row in weight:
        step = max(map(abs, row.tolist())) / 127 or 1.0
        rows.append([round(value / step) * step for value in row.tolist()])
    return torch.tensor(rows)


def by_column(weight):
    step = weight.abs().amax(dim=0) / 127
    return torch.round(weight / step.where(step > 0, torch.ones(()))) * step


def one_for_all(weight):
    step = weight.abs().max() / 127
    return torch.round(weight / step) * step


def cut_off(weight):
    step = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-30)
    return (weight / step).trunc() * step


def the_integers(weight):
    return torch.round(weight / (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-30))


@pytest.mark.parametrize(("check", "answer"), [(checks.find_the_bytes, without()), (checks.round_rows, row_by_row)])
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (without("rows", table=lambda c, past, batch, read: read["lm_head"]), "whole embedding table"),
        (without("rows"), "the row of the embedding table"),
        (without("lm_head"), "forgets lm_head"),
        (without("biases"), "forgets the biases of"),
        (without("norms"), "weights and biases of the LayerNorms"),
        (without("biases", "norms"), "the biases and the LayerNorms"),
        (without("cache"), "forgets the cache"),
        (without("cache", half=lambda c, past, batch, read: read["cache"] // 2), "reads both"),
        (without("cache", one=lambda c, past, batch, read: read["cache"] // batch), "a cache of its own"),
        (
            without("cache", room=lambda c, past, batch, read: parts(c, c.max_position_embeddings, batch)["cache"]),
            "whole room",
        ),
        (lambda **case: 8 * without()(**case), "in bits"),
        (lambda **case: without()(**{**case, "bytes_per_number": 1}), "numbers, not bytes"),
        (lambda batch, **case: batch * without()(**case, batch=1), "one reading serves them all"),
        (lambda **case: 2 * without()(**case), "the numbers are not"),
    ],
)
def test_a_wrong_count_is_told_what_it_missed(answer, told):
    assert_told(checks.find_the_bytes, answer, told)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (by_column, "each input column"),
        (one_for_all, "one scale for the whole matrix"),
        (cut_off, "cuts decimals off"),
        (the_integers, "these are the integers"),
        (lambda weight: weight, "as they were"),
        (lambda weight: torch.round(weight / (weight.abs().amax(dim=1, keepdim=True) / 127)), "not finite"),
        (lambda weight: weight.half().float(), "the numbers are not"),
    ],
)
def test_a_wrong_rounding_is_told_what_is_wrong(answer, told):
    assert_told(checks.round_rows, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", [*EXERCISES.values(), checks.skip_silent])
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)


def picked(neurons, weight, bias):
    active = neurons.nonzero()[:, 0]
    return weight[:, active] @ neurons[active] + bias


def added_up(neurons, weight, bias):
    total = bias.clone()
    for index in neurons.nonzero()[:, 0].tolist():
        total += neurons[index] * weight[:, index]
    return total


@pytest.mark.parametrize("answer", [picked, added_up])
def test_skipping_is_right(answer):
    assert_right(checks.skip_silent, answer)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda neurons, weight, bias: weight @ neurons + bias, "reads columns of silent neurons"),
        (lambda neurons, weight, bias: picked(neurons, weight, 0 * bias), "bias is missing"),
        (lambda neurons, weight, bias: picked(neurons.square(), weight, bias), "the numbers differ"),
        (lambda neurons, weight, bias: picked(neurons, weight, bias)[None], "returned the shape (1, 4); expected (4,)"),
        (lambda neurons, weight, bias: 3.0, "returned a float"),
    ],
)
def test_skipping_wrongly_is_told_how(answer, told):
    assert_told(checks.skip_silent, answer, told)
