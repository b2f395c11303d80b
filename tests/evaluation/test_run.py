"""An evaluation from items to a report: an oracle, one who is always wrong, runs that stop, seeds, two reports."""

import dataclasses
import json

import pytest

from persimmon_lab import PersimmonForCausalLM, load_mini
from persimmon_lab.evaluation import TASKS, Report, compare, comparison_table, evaluate, score_table, tasks_named
from persimmon_lab.evaluation.demonstrations import with_demonstrations
from persimmon_lab.evaluation.items import Item
from persimmon_lab.evaluation.run import best_constant
from persimmon_lab.evaluation.skill_task import SkillTask
from persimmon_lab.numerics import paired_test, smallest_difference, wilson
from tests.evaluation.lookup import Lookup

SOME = tasks_named(["sums", "agreement", "not-knowing"])
SMALL = {"limit": 6, "batch_size": 2, "alone": 2}  # a stretch is 8 items: 4 batches of 2


def asked(tasks, limit, seed=0):
    return [item for task in tasks.values() for item in task.items(limit, seed)]


def lookup(right, tasks=SOME, limit=6, **options):
    model = Lookup(asked(tasks, limit), right=right, **options)
    return model, model.tokenizer


@pytest.fixture(scope="module")
def oracle():
    return evaluate(*lookup(True), SOME, name="oracle", **SMALL)


@pytest.fixture(scope="module")
def wrong():
    return evaluate(*lookup(False), SOME, name="wrong", **SMALL)


def test_an_oracle_gets_everything_right_in_every_task():
    report = evaluate(*lookup(True, TASKS, 2), TASKS, limit=2, alone=0)
    assert [*report.tasks] == [*TASKS]
    assert {(score.task, score.share, score.ceiling) for score in report.scores} == {(name, 1.0, 1.0) for name in TASKS}
    ways = [score.way for score in report.scores if score.task == "sums"]
    assert ways == ["generated", "plain", "per byte", "per token"]


def test_who_is_always_wrong_gets_nothing(wrong):
    assert [score.share for score in wrong.scores] == [0.0] * len(wrong.scores)
    assert len(wrong.scores) == 4 + 4 + 1, "not-knowing has no choices"
    assert {score.ceiling for score in wrong.scores} == {1.0}


def test_a_score_stands_between_its_floors_in_its_interval(oracle, wrong):
    for report, right in ((oracle, 6), (wrong, 0)):
        score = report.tasks["sums"].score()
        assert (score.right, score.count) == (right, 6)
        assert (score.low, score.high) == wilson(right, 6)
    choices = [len(item.choices) for item in SOME["sums"].items(6, 0)]
    assert oracle.tasks["sums"].score("plain").chance == pytest.approx(sum(1 / count for count in choices) / 6)
    assert oracle.tasks["not-knowing"].score().chance == 1.0, "one answer serves every such question"


def test_the_best_constant_is_the_best_of_all_answers():
    task = TASKS["agreement"]
    items = task.items(30, 0)
    share, answer = best_constant(task, items)
    every = {item.said: sum(task.check(other, item.said) for other in items) for item in items}
    assert share == max(every.values()) / 30 == every[answer] / 30


@pytest.mark.parametrize("calls", [0, 3, 7])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(tmp_path, calls):
    limit = 12
    model, tokenizer = lookup(True, limit=limit, stop_after=calls)
    settings = {"limit": limit, "batch_size": 2, "alone": 2, "command": "told"}
    whole = evaluate(*lookup(True, limit=limit), SOME, folder=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, tokenizer, SOME, folder=tmp_path / "stopped", **settings)
    assert not (tmp_path / "stopped" / "report.json").exists()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "stopped" / "unfinished").glob("0*.json")}
    assert len(kept) == {0: 0, 3: 0, 7: 1}[calls], "four batches and two items alone make a stretch"

    model.stop_after = None
    before = []
    model.generate = lambda *given, generate=model.generate, **named: before.append(1) or generate(*given, **named)
    report = evaluate(model, tokenizer, SOME, folder=tmp_path / "stopped", resume=True, **settings)
    files = [(tmp_path / name / "report.json").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1]
    assert report.to_json() == whole.to_json() == Report.load(tmp_path / "stopped").to_json()
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["report.json"]
    assert len(before) == 3 * (6 + 2) - (4 + 2) * len(kept), "what was answered is not asked again"


def test_a_finished_run_is_resumed_without_asking_anything(tmp_path, oracle):
    evaluate(*lookup(True), SOME, name="oracle", folder=tmp_path, **SMALL)
    again = evaluate(*lookup(True, stop_after=0), SOME, name="oracle", folder=tmp_path, resume=True, **SMALL)
    assert again.to_json() == oracle.to_json()


def test_a_folder_keeps_its_evaluation(tmp_path):
    evaluate(*lookup(True), SOME, folder=tmp_path, **SMALL)
    before = (tmp_path / "report.json").read_bytes()
    with pytest.raises(ValueError, match="has an evaluation already; give a new folder, or resume it"):
        evaluate(*lookup(True), SOME, folder=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="is another evaluation: seed was 0 there and is 1 now"):
        evaluate(*lookup(True), SOME, folder=tmp_path, resume=True, seed=1, **SMALL)
    assert (tmp_path / "report.json").read_bytes() == before


def test_another_models_answers_are_not_gone_on_with(tmp_path):
    model, tokenizer = lookup(True, stop_after=7)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, tokenizer, SOME, folder=tmp_path, **SMALL)
    model.weight.data[2] += 1
    with pytest.raises(ValueError, match="evaluation.json is another evaluation: weights_sha256 was"):
        evaluate(model, tokenizer, SOME, folder=tmp_path, resume=True, **SMALL)


def test_two_tasks_of_one_name_and_a_task_without_items_are_refused():
    sums = TASKS["sums"]
    with pytest.raises(ValueError, match="two tasks of one name among sums, sums"):
        evaluate(*lookup(True), {"a": sums, "b": sums}, **SMALL)
    empty = SkillTask(sums.skill)
    empty.items = lambda count, seed: []
    with pytest.raises(ValueError, match="sums has no items to ask"):
        evaluate(*lookup(True), {"sums": empty}, **SMALL)


def test_the_same_seed_asks_the_same_and_another_seed_something_else():
    for task in TASKS.values():
        assert task.items(20, 3) == task.items(20, 3)
        assert task.items(10, 3) == task.items(20, 3)[:10], "fewer items are the first of more"
        assert {item.prompt for item in task.items(20, 3)} != {item.prompt for item in task.items(20, 4)}


def test_an_evaluation_asks_what_its_seed_draws():
    sums = tasks_named(["sums"])
    model = Lookup(asked(sums, 4, seed=1), right=True)
    report = evaluate(model, model.tokenizer, sums, limit=4, alone=0, seed=1)
    assert [one.item.prompt for one in report.tasks["sums"].answered] == [i.prompt for i in sums["sums"].items(4, 1)]


def test_items_that_the_two_ways_judge_otherwise_are_counted_and_listed():
    sums = tasks_named(["sums"])
    items = asked(sums, 6)
    model, tokenizer = lookup(True, sums)
    wrong = Lookup(items, right=False)
    unsaid = tuple(tokenizer.encode(items[1].text))
    model.said[unsaid] = wrong.said[unsaid]
    for choice in items[4].choices:
        ids = tuple(tokenizer.encode(items[4].text + choice))
        model.preferred.discard(ids)
        model.preferred |= {ids} & wrong.preferred
    report = evaluate(model, tokenizer, sums, limit=6, alone=0)
    assert [one.item.number for one in report.tasks["sums"].contradictions] == [1, 4]
    assert (
        "sums: the two ways of asking disagree in 2 of 6 items; 1 are written right and picked wrong: 4; 1 are picked "
        "right and written wrong: 1." in score_table(report).notes
    )
    assert json.loads(report.to_json())["tasks"]["sums"]["contradictions"] == [1, 4]


def test_verdicts_that_change_alone_are_counted_and_listed():
    model, tokenizer = lookup(True)
    told = model.generate
    model.generate = lambda ids, **named: told(ids, **named)[:, : ids.shape[1] + (0 if len(ids) == 1 else 99)]
    report = evaluate(model, tokenizer, SOME, **SMALL)
    for task in report.tasks.values():
        assert task.asked_alone == 2
        assert [one.item.number for one in task.changed] == [0, 1], "asked alone it says nothing"
        assert {one.changed() for one in task.changed} == {("generated",)}
    assert (
        "sums: asked alone, 2 of 2 items are judged otherwise than in their batch: 0, 1." in score_table(report).notes
    )


def test_the_shipped_model_is_asked_and_judged_the_same_in_any_batch(tmp_path):
    model, tokenizer = load_mini()
    report = evaluate(model, tokenizer, tasks_named(["copying"]), name="mini", limit=4, alone=4, folder=tmp_path)
    task = report.tasks["copying"]
    assert task.score().right >= 1, "it copies"
    assert task.asked_alone == 4
    for one in task.answered:
        for together, alone in zip(one.model.likelihoods, one.alone.likelihoods, strict=True):
            assert together.log_probability == pytest.approx(alone.log_probability, abs=1e-3)
    entry = json.loads((tmp_path / "report.json").read_text())
    assert entry["settings"]["seed"] == 0
    assert entry["made_with"]["dtype"] == "float32"
    assert entry["made_with"]["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert Report.load(tmp_path).scores == report.scores


def test_two_reports_are_compared_item_by_item(oracle, wrong):
    comparison = compare(oracle, wrong)
    rows = {(row.task, row.way): row for row in comparison.rows}
    assert len(rows) == 4 + 4 + 1 + 1
    sums = rows["sums", "generated"]
    assert (sums.first, sums.second) == (1.0, 0.0)
    assert sums.test == paired_test([True] * 6, [False] * 6)
    assert rows["all tasks", "generated"].test == paired_test([True] * 18, [False] * 18)
    assert rows["all tasks", "generated"].smallest == smallest_difference(18, 1.0)
    assert all(row.test.p == 1 and row.smallest is None for row in compare(oracle, oracle).rows)
    assert comparison.by_luck == pytest.approx(0.05 * len(rows))


def test_a_comparison_pairs_by_number_and_not_by_place(oracle, wrong):
    """The first right at items 0 to 2, the second at 0 and 5, in the other order."""

    def report(numbers, order):
        task = oracle.tasks["sums"]
        answered = [
            dataclasses.replace(one, model=dataclasses.replace(one.model, is_right=one.item.number in numbers))
            for one in task.answered
        ]
        return dataclasses.replace(oracle, tasks={"sums": dataclasses.replace(task, answered=tuple(answered[::order]))})

    row = compare(report({0, 1, 2}, 1), report({0, 5}, 1)).rows[0]
    assert (row.test.only_first, row.test.only_second) == (2, 1)
    with pytest.raises(ValueError, match="the two reports asked different items of sums"):
        compare(report({0}, 1), report({0}, -1))


def test_reports_without_the_same_items_are_not_compared(oracle):
    other = evaluate(*lookup(True, limit=5), SOME, **{**SMALL, "limit": 5})
    with pytest.raises(ValueError, match=r"different items of sums \(6 and 5"):
        compare(oracle, other)
    with pytest.raises(ValueError, match="no task in common"):
        compare(oracle, dataclasses.replace(oracle, tasks={"facts": oracle.tasks["sums"]}))


def test_tables_say_what_the_reports_say(oracle, wrong):
    table = score_table(wrong)
    assert table.rows[0][:4] == ("sums", "generated", "0/6", "0.0%")
    assert table.rows[0][-1] == "no"
    assert score_table(oracle).rows[0][-1] == "yes"
    markdown = comparison_table(compare(oracle, wrong)).to_markdown()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 10
    assert {line.count("|") for line in lines} == {10}
    assert "| sums | generated | 100.0% | 0.0% | +100.0% | 6 | 0 | 0.031 |" in markdown


@pytest.mark.parametrize("shots", [1, 3])
def test_demonstrations_are_answered_and_never_what_is_asked(shots):
    tokenizer = load_mini()[1]
    for name in ("sums", "gifts", "facts"):
        task = TASKS[name]
        items = task.items(12, 0)
        shown = with_demonstrations(items, task, tokenizer, shots=shots, seed=0, room=512)
        for before, item in zip(items, shown, strict=True):
            assert dataclasses.replace(item, context="", shots=0) == before
            assert item.shots == shots
            assert item.context.endswith("\n\n")
            assert not any(other.prompt in item.context for other in items)
        chats = {item.context for item in shown if item.prompt.startswith("human:")}
        assert len(chats) <= 1, "all chats see the same"
        assert all(context.count("human:") == shots for context in chats)


def test_where_there_is_no_room_there_are_fewer_demonstrations():
    _, tokenizer = load_mini()
    task = TASKS["sums"]
    [item] = with_demonstrations(task.items(1, 0), task, tokenizer, shots=20, seed=0, room=128)
    assert 0 < item.shots < 20
    assert len(tokenizer.encode(item.text)) + task.new_tokens <= 128


@pytest.mark.parametrize("setting", [{"limit": 0}, {"shots": -1}, {"batch_size": 0}, {"alone": -1}], ids=str)
def test_settings_that_make_no_sense_are_refused(setting):
    [(name, value)] = setting.items()
    with pytest.raises(ValueError, match=f"{name} is {value}; give {value + 1} or more"):
        evaluate(*lookup(True), SOME, **{**SMALL, **setting})


def test_a_task_that_judges_its_own_answer_wrong_measures_nobody(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "Which?", "answer": "...", "choices": ["...", "no"]}\n')
    tasks = tasks_named([str(path)])
    assert not tasks["mine"].check(tasks["mine"].items(1, 0)[0], "...what")
    task = tasks["mine"]
    task.check = lambda item, text: False
    with pytest.raises(ValueError, match="item 0 of mine judges its own answer ' ...' wrong"):
        evaluate(*lookup(True, tasks), tasks, **SMALL)


def test_an_item_says_which_choice_is_right():
    with pytest.raises(ValueError, match="correct=2 with 2 choices"):
        Item("t", 0, "p", "a", choices=("a", "b"), correct=2)
    with pytest.raises(ValueError, match="correct=None with 2 choices"):
        Item("t", 0, "p", "a", choices=("a", "b"))


def test_a_model_in_training_mode_is_asked_without_dropout(tmp_path):
    model, tokenizer = load_mini()
    model.save_pretrained(tmp_path)
    dropping = PersimmonForCausalLM.from_pretrained(tmp_path, torch_dtype="auto", hidden_dropout=0.5).train()
    tasks = {"sums": TASKS["sums"]}
    right, found = (evaluate(one, tokenizer, tasks, limit=4).tasks["sums"].answered for one in (model, dropping))
    assert found == right and dropping.training
