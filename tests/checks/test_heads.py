"""The marks of notebook 12 accept right answers, written here another way, and name what is wrong with wrong ones."""

import pytest
import torch

import persimmon_lab
from persimmon_lab.checks import heads as checks
from persimmon_lab.trace.heads import detect, patterns_of, stripe_scores
from persimmon_lab.training.evaluate import repeated_rows

EXERCISES = {
    "sink_score": checks.sink_score,
    "induction_margin": checks.induction_margin,
    "following_score": checks.following_score,
}
MISTAKES = [(name, message) for name, exercise in EXERCISES.items() for message in exercise.mistakes]


def sink_by_loop(patterns):
    layers, heads, length, _ = patterns.shape
    result = torch.zeros(layers, heads)
    for query in range(1, length):
        result += patterns[:, :, query, 0] / (length - 1)
    return result


def margin_by_loop(repeated, shuffled, period, back=1, top=lambda null: null.max()):
    queries = range(period, 2 * period)
    scores = torch.stack([repeated[..., q, q - period + back] for q in queries]).mean(dim=0)
    null = torch.stack([shuffled[..., q, q - period + back] for q in queries]).mean(dim=0)
    return scores - top(null)


def following_by_loop(patterns, ids, every=False, after=1):
    layers, heads, length, _ = patterns.shape
    total, count = torch.zeros(layers, heads), 0
    for query in range(length):
        earlier = [key for key in range(query) if ids[key] == ids[query]]
        count += bool(earlier) or every
        for key in earlier:
            if key + after >= 0:
                total += patterns[:, :, query, key + after]
    return total / count


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.sink_score, sink_by_loop),
        (checks.induction_margin, margin_by_loop),
        (checks.following_score, following_by_loop),
    ],
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    found = check(answer)
    assert found, found
    assert repr(found).startswith("✓ right: ")


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.sink_score, lambda patterns: patterns[..., 0].mean(dim=-1), "first query counts as well"),
        (checks.sink_score, lambda patterns: patterns[:, :, 0, 1:].mean(dim=-1), "query and key are swapped"),
        (checks.sink_score, lambda patterns: patterns[:, :, 1:, 0].sum(dim=-1), "adds the queries up"),
        (checks.sink_score, lambda patterns: patterns.diagonal(dim1=-2, dim2=-1)[..., 1:].mean(dim=-1), "the diagonal"),
        (
            checks.sink_score,
            lambda patterns: patterns.diagonal(-1, dim1=-2, dim2=-1).mean(dim=-1),
            "token before the query",
        ),
        (checks.sink_score, lambda patterns: sink_by_loop(patterns) / 2, "the numbers are not"),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, back=0), "earlier copy itself"),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, back=2), "two after the earlier copy"),
        (
            checks.induction_margin,
            lambda **case: margin_by_loop(**case, top=lambda null: null.max(dim=0).values),
            "own null alone",
        ),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, top=lambda null: null.mean()), "null's mean"),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, top=lambda null: 0), "null is missing"),
        (checks.induction_margin, lambda **case: margin_by_loop(**case, top=lambda n: n.min()), "numbers are not"),
        (checks.following_score, lambda **case: following_by_loop(**case, after=0), "earlier copies themselves"),
        (checks.following_score, lambda **case: following_by_loop(**case, after=-1), "wrong side"),
        (checks.following_score, lambda **case: following_by_loop(**case, every=True), "whose token is new"),
        (checks.following_score, lambda **case: following_by_loop(**case, after=2), "numbers are not"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, told):
    found = check(answer)
    assert not found
    assert told in repr(found)


@pytest.mark.parametrize(("name", "message"), MISTAKES)
def test_every_named_mistake_is_recognised_as_itself(name, message):
    found = EXERCISES[name](EXERCISES[name].mistakes[message])
    assert not found
    assert repr(found) == f"✗ not yet: {message}"


@pytest.mark.parametrize("check", [*EXERCISES.values(), checks.name_a_head])
def test_an_answer_that_is_no_answer(check):
    def stops(*_, **__):
        raise KeyError("period")

    def gives(value):
        return lambda *_, **__: value

    assert repr(check(gives(None))).startswith("○ not answered yet")
    assert repr(check(gives(...))).startswith("○ not answered yet")
    assert "stopped with KeyError: 'period' (given " in repr(check(stops))
    assert "returned " in repr(check(gives("1.0")))
    assert "shape (3, 1, 4, 1, 5); expected " in repr(check(gives(torch.zeros(3, 1, 4, 1, 5))))
    assert not any(map(check, (gives(None), stops, gives(1.0), gives(torch.zeros(())))))


def test_the_answers_find_the_heads_of_the_shipped_model():
    model, tokenizer = persimmon_lab.load_mini()
    rows = repeated_rows(4096, 261, period=30, rows=1, seed=1)
    patterns = patterns_of(model, rows)[:, 0]
    torch.testing.assert_close(following_by_loop(patterns, rows[0]), stripe_scores(patterns[:, None], 30)["induction"])
    assert following_by_loop(patterns, rows[0])[6, 4] > 0.8


# The open exercise

_, TOKENIZER = persimmon_lab.load_mini()


def pieces(ids):
    return TOKENIZER.convert_ids_to_tokens(ids.tolist())


def marking(wanted):
    """A rule that marks every key whose piece is wanted."""
    return lambda ids: torch.tensor([wanted(piece) for piece in pieces(ids)]).repeat(len(ids), 1)


def punctuation(piece):
    """Ends with a mark, as the start of a document does: |ENDOFTEXT|."""
    return piece[-1] in '.,?!:;)"|'


def back(*offsets):
    return lambda ids: sum(torch.ones(len(ids), len(ids)).tril(-each).triu(-each) for each in offsets) > 0


def test_a_rule_for_a_head_without_a_name():
    found = checks.name_a_head(marking(punctuation))
    assert found, found
    assert "head 2.4 looks where your rule says, with 76% in the chat" in repr(found)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (back(1), "3.7 (87% in the chat, 86% in the verse, 89% in the code), is one of the previous-token heads"),
        (back(1, 2, 3), "is one of the previous-token heads"),
        (marking(lambda piece: True), "it marks 100% of the keys"),
        (marking(lambda piece: piece == "▁the"), "of the queries look; say it of a third at least"),
        (marking(lambda piece: piece == "\n"), "not with half of its attention everywhere"),
        (back(0), "not with half of its attention everywhere"),
        (lambda ids: torch.zeros(len(ids), len(ids)).bool(), "it says where 0% of the queries look"),
    ],
)
def test_rules_that_are_not_enough_are_told_why(rule, told):
    found = checks.name_a_head(rule)
    assert not found
    assert told in repr(found)


def test_marks_in_the_future_do_not_count():
    def with_the_future(ids):
        return marking(punctuation)(ids) | torch.ones(len(ids), len(ids)).triu(1).bool()

    assert repr(checks.name_a_head(with_the_future)) == repr(checks.name_a_head(marking(punctuation)))


def test_the_names_are_those_that_the_detectors_give():
    model, _ = persimmon_lab.load_mini()
    found = detect(model, repeated_rows(4096, 261, period=40, rows=8, seed=0), draws=20)
    assert tuple(found["previous token"].standing_out()) == checks.PREVIOUS
    assert set(found["induction"].standing_out()) == set(checks.INDUCTION)
