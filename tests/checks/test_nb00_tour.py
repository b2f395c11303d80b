"""The tour's marks accept the right answer and name each wrong one."""

import pytest

from persimmon_lab.checks import nb00_tour as checks
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {"cache_gigabytes": checks.cache_gigabytes, "table_share": checks.table_share}


def right_cache(layers, hidden, positions, bytes_per_number):
    return 2 * layers * hidden * positions * bytes_per_number / 1e9


def right_share(vocab, hidden, layers, mlp):
    tables = 2 * vocab * hidden
    return tables / (tables + layers * (4 * hidden**2 + 2 * hidden * mlp))


@pytest.mark.parametrize(
    ("check", "answer"), [(checks.cache_gigabytes, right_cache), (checks.table_share, right_share)]
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda **case: right_cache(**case) / 2, "a key and a value"),
        (lambda **case: right_cache(**case) * 1.5, "the query is used once"),
        (lambda **case: right_cache(**case) / case["layers"], "every layer has a cache"),
        (lambda **case: right_cache(**case) * 1e9, "counts in bytes"),
        (lambda **case: right_cache(**case) * 1e9 / 2**30, "GiB"),
        (lambda **case: right_cache(**case) / case["bytes_per_number"], "the numbers are not"),
        (lambda **case: 9.66, "the numbers are not"),
        (lambda **case: "9.7 GB", "returned a str"),
        (lambda **case: ..., "not answered yet"),
        (lambda layers: 0, "it takes (layers), and is given (layers, hidden, positions, bytes_per_number)"),
    ],
)
def test_wrong_cache_sizes_are_told_why(answer, says):
    assert_told(checks.cache_gigabytes, answer, says)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda vocab, hidden, layers, mlp: right_share(vocab / 2, hidden, layers, mlp), "counts one table"),
        (
            lambda vocab, hidden, layers, mlp: 2 * vocab / (layers * (4 * hidden + 2 * mlp)),
            "divides by the layers alone",
        ),
        (
            lambda vocab, hidden, layers, mlp: 2 * vocab / (2 * vocab + layers * (3 * hidden + 2 * mlp)),
            "four hidden × hidden matrices",
        ),
        (lambda vocab, hidden, layers, mlp: 0.23, "the numbers are not"),
        (lambda vocab, hidden, layers, mlp: None, "not answered yet"),
    ],
)
def test_wrong_shares_are_told_why(answer, says):
    assert_told(checks.table_share, answer, says)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", EXERCISES.values())
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)
