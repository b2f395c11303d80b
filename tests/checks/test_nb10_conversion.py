"""The marks of notebook 10 accept right answers, written here another way, and name what is wrong with wrong ones."""

import pytest
import torch

from persimmon_lab.checks import nb10_conversion as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told

COPIED = ("layernorm", "self_attn.dense.bias", "dense_4h_to_h.bias")
BY_COLUMNS = ("self_attn.dense.weight", "dense_4h_to_h.weight")


def rows_of_a_query(fused, num_heads, head):
    channels = len(fused) // num_heads // 3
    return fused[3 * channels * head : 3 * channels * head + channels]


def joined(name, parts):
    if any(part in name for part in COPIED):
        return parts[-1]
    return torch.cat(list(parts), dim=1 if name.endswith(BY_COLUMNS) else 0)


@pytest.mark.parametrize(("check", "answer"), [(checks.query_of, rows_of_a_query), (checks.join, joined)])
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


def of(start, step=1):
    """Rows of one head, from `start` channels into it, every `step`-th."""

    def rows(fused, num_heads, head):
        channels = len(fused) // num_heads // 3
        return fused[3 * channels * head + start * channels :][: step * channels : step]

    return rows


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda fused, num_heads, head: fused[: len(fused) // 3].chunk(num_heads)[head], "all queries first"),
        (of(1), "the head's key"),
        (of(2), "the head's value"),
        (lambda fused, num_heads, head: rows_of_a_query(fused, num_heads, 0), "whatever head is asked for"),
        (of(0, step=3), "not dealt out row by row"),
        (lambda fused, num_heads, head: rows_of_a_query(fused, num_heads, head).flip(0), "numbers are not"),
        (lambda fused, num_heads, head: fused, "returned the shape (24, 8); expected (2, 8)"),
        (lambda fused, num_heads, head: ..., "not answered yet"),
        (lambda fused: fused, "it takes (fused), and is given (fused, num_heads, head)"),
    ],
)
def test_wrong_queries_are_told_why(answer, says):
    assert_told(checks.query_of, answer, says)


def but(wrong, *names):
    """Right, but for tensors with such names."""
    return lambda name, parts: wrong(parts) if name.endswith(names) else joined(name, parts)


def thirds(parts):
    return torch.cat([part.chunk(3)[third] for third in range(3) for part in parts])


def dealt(parts):
    return parts.transpose(0, 1).flatten(0, 1)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (but(thirds, "query_key_value.weight"), "query_key_value.weight: a rank's rows are whole heads"),
        (but(thirds, "query_key_value.bias"), "query_key_value.bias: a rank's rows are whole heads"),
        (but(lambda parts: parts.sum(0), "layernorm.bias"), "input_layernorm.bias: every rank holds a copy"),
        (but(lambda parts: parts.sum(0), "dense_4h_to_h.bias"), "dense_4h_to_h.bias: every rank holds a copy"),
        (
            but(lambda parts: parts.flatten(0, 1), "dense.bias"),
            "dense.bias: it returned the shape (24,); expected (12,)",
        ),
        (
            but(lambda parts: parts.flatten(0, 1), "4h_to_h.weight"),
            "dense_4h_to_h.weight: it returned the shape (24, 6)",
        ),
        (but(lambda parts: parts.movedim(0, 2).flatten(1), "dense.weight"), "dense.weight: this deals the columns out"),
        (but(lambda parts: torch.cat([*parts.flip(0)], 1), "4h_to_h.weight"), "rank 0 holds the first columns"),
        (but(dealt, "dense_h_to_4h.weight"), "dense_h_to_4h.weight: this deals the rows out in turn"),
        (
            but(lambda parts: parts.flip(0).flatten(0, 1), "lm_head.weight"),
            "lm_head.weight: the ranks are in the wrong",
        ),
        (
            but(lambda parts: -parts.flatten(0, 1), "embed_tokens.weight"),
            "embed_tokens.weight: the shape is right, the",
        ),
        (lambda name, parts: None, "not answered yet"),
        (lambda name, parts: parts.flatten(0, 1), "input_layernorm.bias: it returned the shape (24,)"),
        (lambda name, parts: name, "embed_tokens.weight: it returned a str"),
    ],
)
def test_wrong_converters_are_told_why(answer, says):
    assert_told(checks.join, answer, says)


@pytest.mark.parametrize("message", checks.query_of.mistakes)
def test_every_named_mistake_is_recognised_as_itself(message):
    assert_recognised(checks.query_of, message)


def test_every_named_mistake_of_a_converter_is_recognised_as_itself():
    """By the name of the tensor as well."""
    for dimension, mistakes in checks.JOIN_MISTAKES.items():
        for message, wrong in mistakes.items():
            for name in checks.NAMES:
                # Rows in thirds are heads torn apart only where the rows are heads, but wrong wherever they are rows.
                if checks.shared_dimension(name) == dimension:
                    assert str(checks.join(but(wrong, name))) == f"✗ not yet: {name}: {message}"


@pytest.mark.parametrize("check", [checks.query_of, checks.join])
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)
