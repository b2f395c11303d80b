"""The tasks: what they ask is held out, what they hold wrong is wrong, what a name means."""

import sys

import numpy as np
import pytest

from persimmon_lab.evaluation import TASKS, Task, tasks_named
from persimmon_lab.evaluation import reasoning as reasoning_module
from persimmon_lab.evaluation.arithmetic import GRADES, carries, kept_apart
from persimmon_lab.evaluation.copying import PERIODS
from persimmon_lab.training.skills import SKILLS
from persimmon_lab.training.skills.scoring import instances

each_task = pytest.mark.parametrize("name", TASKS)


def test_every_skill_is_a_task_and_two_more():
    assert [*TASKS] == [*(name.replace(" ", "-") for name in SKILLS), "copying", "arithmetic"]
    assert all(isinstance(task, Task) for task in TASKS.values())


@each_task
def test_nothing_that_is_asked_is_taught(name):
    task = TASKS[name]
    asked = {item.prompt for item in task.items(150, 0)}
    taught = {instance.prompt for instance in instances(task.skill, 600, 1, held_out=False)}
    assert len(asked) > 50
    assert not asked & taught
    assert not asked & {item.prompt for item in task.examples(100, 0)}


@each_task
def test_its_own_answers_are_right_and_no_other_choice_is(name):
    """A choice stands where the answer would: it is judged by the task's own check."""
    task = TASKS[name]
    for item in task.items(60, 0):
        assert task.check(item, item.said + item.after)
        assert not task.check(item, "")
        assert not task.check(item, f"\n{item.said}"), "the first line alone is the answer"
        if item.choices:
            assert 2 <= len(item.choices) == len(set(item.choices)) <= 4
            right = [number for number, choice in enumerate(item.choices) if task.check(item, choice)]
            assert right == [item.correct], item


@each_task
def test_the_right_choice_stands_anywhere(name):
    items = [item for item in TASKS[name].items(80, 0) if item.choices]
    places = {item.correct for item in items}
    assert places == set(range(max((len(item.choices) for item in items), default=0)))


def test_sources_tell_tasks_apart():
    assert len({task.source for task in TASKS.values()}) == len(TASKS)


def test_arithmetic_is_graded_and_right():
    items = TASKS["arithmetic"].items(200, 0)
    assert {item.group for item in items} == {*GRADES}
    for item in items:
        sum_ = item.prompt.partition("What is ")[2].partition("?")[0]
        assert eval(sum_.replace("x", "*")) == int(item.answer) >= 0
        terms = sum_.split()
        if len(terms) == 3 and terms[1] in "+-":
            a, b = int(terms[0]), int(terms[2])
            assert kept_apart(a, terms[1], b)
            if item.group.endswith("carry"):
                by_columns = a % 10 + b % 10 >= 10 if terms[1] == "+" else a % 10 < b % 10
                assert carries(a, terms[1], b) == by_columns == item.group.endswith("a carry")


def test_the_answer_to_a_sum_is_the_last_number():
    task = TASKS["arithmetic"]
    item = task.items(1, 0)[0]
    other = str(int(item.answer) + 1)
    assert task.check(item, f" {other}, no: {item.answer}.")
    assert not task.check(item, f" {item.answer}, no: {other}.")
    assert not task.check(item, f" {item.answer}0.")


def test_copying_asks_for_what_the_first_copy_has():
    items = TASKS["copying"].items(60, 0)
    assert {item.group for item in items} == {f"{period} words" for period in PERIODS}
    for item in items:
        words, period = item.prompt.split(), int(item.group.split()[0])
        assert words[period:] == words[: len(words) - period]
        assert item.answer == words[len(words) - period]
        assert len({*words}) == period
        assert not TASKS["copying"].check(item, item.said + "s")


def test_names_mean_tasks_files_or_all(tmp_path):
    file = tmp_path / "capitals.jsonl"
    file.write_text('{"question": "Of France?", "answer": "Paris"}\n')
    assert [*tasks_named(["gifts", "sums"])] == ["gifts", "sums"]
    assert [*tasks_named(["all", str(file)])] == [*TASKS, "capitals"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ([], "no task was named; choose among facts, "),
        (["summs"], "there is no task 'summs'; choose among facts, "),
        (["sums", "sums"], "the task sums was named twice"),
        (["all", "sums"], "the task sums was named twice"),
        (["nowhere.jsonl"], "there is no file nowhere.jsonl"),
    ],
    ids=str,
)
def test_other_names_are_told(names, told):
    with pytest.raises(ValueError, match=told):
        tasks_named(names)


def test_puzzles_need_their_package(monkeypatch):
    monkeypatch.setattr(reasoning_module, "reasoning_gym", None)
    with pytest.raises(ValueError, match="needs the package reasoning-gym, which is not installed: pip install reas"):
        tasks_named(["reasoning-gym:chain_sum"])
    assert "reasoning_gym" not in sys.modules or reasoning_module.reasoning_gym is None


def test_puzzles_are_drawn_and_judged_by_their_package(monkeypatch):
    """Of a package with the functions that reasoning-gym 0.1.25 has."""

    class Gym:
        __version__ = "0.1.25"

        class factory:
            DATASETS = {"doubling": None}

        @staticmethod
        def create_dataset(name, size, seed):
            numbers = np.random.default_rng(seed).integers(10, 10_000, size).tolist()
            return [{"question": f"Twice {number}?", "answer": str(2 * number), "metadata": {}} for number in numbers]

        @staticmethod
        def get_score_answer_fn(name):
            return lambda answer, entry: 1.0 if answer == entry["answer"] else 0.01

    monkeypatch.setattr(reasoning_module, "reasoning_gym", Gym)
    [task] = tasks_named(["reasoning-gym:doubling"]).values()
    assert task.source == "reasoning-gym 0.1.25, doubling with its default settings"
    items = task.items(5, 0)
    assert items == task.items(5, 0) != task.items(5, 1)
    assert not {item.prompt for item in items} & {item.prompt for item in task.examples(5, 0)}
    for item in items:
        assert task.check(item, item.said)
        assert task.check(item, f" {item.answer}\nhuman: thanks")
        assert not task.check(item, f" it is {item.answer}"), "a hundredth of the marks is not right"
    monkeypatch.setattr(Gym, "create_dataset", lambda *_, **__: [{"question": "Name one.", "answer": None}])
    with pytest.raises(ValueError, match="reasoning-gym:doubling has questions with no one answer"):
        task.items(1, 0)
    with pytest.raises(ValueError, match="reasoning-gym has no dataset 'tripling'; it has 1: doubling"):
        tasks_named(["reasoning-gym:tripling"])
