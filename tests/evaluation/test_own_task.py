"""A file of one's own questions becomes a task, or is refused with the line that is wrong."""

import json

import pytest

from persimmon_lab.evaluation import OwnTask

LINES = [
    {"question": "What is the capital of France?", "answer": "Paris", "choices": ["Rome", "Paris", "Paris Texas"]},
    {"question": "How many legs has a spider?", "answer": "8"},
    {"question": "Which is larger, a cow or a mouse?", "answer": "a cow", "choices": ["a cow", "a mouse"]},
    {"question": "Is ice cold?", "answer": "yes", "choices": ["yes", "no"]},
]


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n\n".join(json.dumps(line) for line in LINES), encoding="utf-8")
    return OwnTask(path)


def test_every_line_is_asked_once_in_an_order_of_the_seed(task):
    items = task.items(10, 0)
    assert (task.name, [item.number for item in items]) == ("mine", [0, 1, 2, 3])
    assert {item.prompt for item in items} == {f"human: {line['question']}\n\nadept:" for line in LINES}
    assert items == task.items(10, 0)
    assert any(task.items(10, 0) != task.items(10, seed) for seed in (1, 2, 3))
    assert task.items(2, 0) == items[:2]
    assert not {item.prompt for item in task.items(2, 0)} & {item.prompt for item in task.examples(2, 0)}


def test_the_answer_as_whole_words_and_no_other_choice_is_right(task):
    by_answer = {item.answer: item for item in task.items(4, 0)}
    paris, legs, cow = by_answer["Paris"], by_answer["8"], by_answer["a cow"]
    assert task.check(paris, " It is paris, of course.")
    assert not task.check(paris, " Paris or Rome.")
    assert not task.check(paris, " Parisian.")
    assert not task.check(paris, " I don't know.\n\nhuman: Paris?")
    assert task.check(legs, " 8.") and not task.check(legs, " 18.")
    assert task.check(cow, " That's a cow.") and not task.check(cow, " a cow, not a mouse")


def test_choices_are_as_given_and_the_answer_is_the_right_one(task):
    by_answer = {item.answer: item for item in task.items(4, 0)}
    assert by_answer["Paris"].choices == (" Rome", " Paris", " Paris Texas")
    assert by_answer["Paris"].correct == 1
    assert (by_answer["8"].choices, by_answer["8"].correct) == ((), None)


def test_the_source_is_the_files_content(tmp_path, task):
    other = tmp_path / "other" / "mine.jsonl"
    other.parent.mkdir()
    other.write_bytes((tmp_path / "mine.jsonl").read_bytes())
    assert OwnTask(other).source == task.source
    other.write_bytes(other.read_bytes().replace(b"Is ice", b"Is fire"))
    assert OwnTask(other).source != task.source


GOOD = '{"question": "a", "answer": "b"}'


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "no JSON "),
        ("[]", "'[]' is no object; give"),
        ('{"question": "a", "anwser": "b"}', "unknown 'anwser'"),
        ('{"question": "a"}', "answer is None; expected a text"),
        ('{"question": " ", "answer": "b"}', "question is ' '; expected a text"),
        ('{"question": "a", "answer": 8}', "answer is 8; expected a text"),
        ('{"question": "a", "answer": "b", "choices": "b"}', "choices is 'b'; expected a list of texts"),
        ('{"question": "a", "answer": "b", "choices": ["c", "d"]}', "one of them the answer"),
        ('{"question": "a", "answer": "b", "choices": ["b"]}', "must be two or more"),
        ('{"question": "a", "answer": "b", "choices": ["b", "b"]}', "all different"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(tmp_path, line, told):
    path = tmp_path / "mine.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(ValueError) as error:
        OwnTask(path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert told in str(error.value)


def test_a_file_without_questions_is_refused(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n\n")
    with pytest.raises(ValueError, match="is empty; give lines such as"):
        OwnTask(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        OwnTask(path)


def test_a_question_that_is_asked_twice_is_refused(tmp_path):
    path = tmp_path / "twice.jsonl"
    path.write_text('{"question": "A?", "answer": "b"}\n{"question": "C?", "answer": "d"}\n' * 2)
    with pytest.raises(ValueError, match=r"asks 'A\?' twice, as its questions 1 and 3; keep one"):
        OwnTask(path)


def test_a_line_may_hold_line_breaks_of_other_kinds(tmp_path):
    path = tmp_path / "breaks.jsonl"
    path.write_text('\ufeff{"question": "A\u2028B\u0085?", "answer": "b"}\r\n{"question": "C?"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"breaks.jsonl, line 2: answer is None"):
        OwnTask(path)
