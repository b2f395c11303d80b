"""`PersimmonLM` in the harness: equal to its HFLM on the same requests, and to this package's own evaluation."""

import json

import pytest
import torch

from persimmon_lab.evaluation import TASKS, likelihoods, pick
from persimmon_lab.evaluation.generated import answers
from persimmon_lab.evaluation.likelihood import choice_likelihoods
from tests.clients.clients import TEXTS, mini, tokenizer

pytest.importorskip("lm_eval")

COUNT = 6
STRETCH = 200  # words of a text that is longer than a small context


@pytest.fixture(scope="module")
def ours():
    from persimmon_lab.evaluation.lm_eval import PersimmonLM

    return PersimmonLM(mini(), tokenizer(), batch_size=3)


@pytest.fixture(scope="module")
def theirs():
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=mini(), backend="causal", batch_size=1)


@pytest.fixture
def short(ours, theirs, monkeypatch):
    """Both with a context of 40 positions."""
    monkeypatch.setattr(ours, "max_length", 40)
    monkeypatch.setattr(theirs, "_max_length", 40)


def requests(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=one, idx=0) for one in arguments]


def long_text():
    return " ".join(f"The {index} keys of the old house." for index in range(STRETCH // 7))


def test_log_likelihoods_are_the_harness_own(ours, theirs):
    pairs = [(text[:14], text[14:]) for text in TEXTS]
    pairs += [("The keys to the cabinet ", "are"), ("", "Once upon a time"), ("human: Hello", "\n\nadept: Hi")]
    asked = requests("loglikelihood", *pairs)
    mine, other = (lm.loglikelihood(asked, disable_tqdm=True) for lm in (ours, theirs))
    assert [value for value, _ in mine] == pytest.approx([value for value, _ in other], abs=1e-4)
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in other]


def test_what_the_model_would_write_is_greedy(ours):
    ids = tokenizer()(TEXTS[3], return_tensors="pt").input_ids
    whole = tokenizer().decode(mini().generate(ids, max_new_tokens=4)[0], skip_special_tokens=True)
    [(value, is_greedy), (less, is_not)] = ours.loglikelihood(
        requests("loglikelihood", (TEXTS[3], whole[len(TEXTS[3]) :]), (TEXTS[3], " zzz"))
    )
    assert is_greedy and not is_not and value > less


def test_log_likelihoods_are_those_of_the_room(ours):
    pairs = [(item.text, choice) for item in TASKS["agreement"].items(COUNT, 0) for choice in item.choices]
    mine = ours.loglikelihood(requests("loglikelihood", *pairs), disable_tqdm=True)
    expected = likelihoods(mini(), tokenizer(), pairs)
    assert [value for value, _ in mine] == pytest.approx([one.log_probability for one in expected], abs=1e-4)


@pytest.mark.usefixtures("short")
def test_a_context_without_room_loses_its_beginning_and_it_is_told(ours, theirs):
    asked = requests("loglikelihood", (long_text(), " The end of it"), (TEXTS[0], " Yes"))
    with pytest.warns(UserWarning, match="1 of 2 contexts are longer than 40 tokens and lost their beginnings"):
        mine = ours.loglikelihood(asked, disable_tqdm=True)
    other = theirs.loglikelihood(asked, disable_tqdm=True)
    assert [value for value, _ in mine] == pytest.approx([value for value, _ in other], abs=1e-4)
    with pytest.raises(ValueError, match="a continuation of .* tokens, and the model has 40 positions"):
        ours.loglikelihood(requests("loglikelihood", ("A", long_text())), disable_tqdm=True)


@pytest.mark.usefixtures("short")
def test_rolling_log_likelihoods_are_the_harness_own(ours, theirs):
    asked = requests("loglikelihood_rolling", (TEXTS[0],), (long_text(),), ("a",))
    mine, other = (lm.loglikelihood_rolling(asked, disable_tqdm=True) for lm in (ours, theirs))
    assert mine == pytest.approx(other, abs=2e-3)  # sums of hundreds of tokens


def test_generated_texts_are_the_harness_own(ours, theirs):
    settings = {"until": ["\n", "."], "max_gen_toks": 12, "do_sample": False}
    other_settings = {"until": "e", "max_gen_toks": 5}
    asked = requests("generate_until", *((text, settings) for text in TEXTS), (TEXTS[0], other_settings))
    mine, other = (lm.generate_until(asked, disable_tqdm=True) for lm in (ours, theirs))
    assert mine == other
    assert any(mine)


@pytest.mark.usefixtures("short")
def test_a_long_context_is_answered_from_its_end(ours, theirs):
    asked = requests("generate_until", (long_text(), {"until": ["\n"], "max_gen_toks": 8}))
    with pytest.warns(UserWarning, match="1 of 1 contexts are longer than 32 tokens and lost their beginnings"):
        mine = ours.generate_until(asked, disable_tqdm=True)
    assert mine == theirs.generate_until(asked, disable_tqdm=True)


def test_sampling_is_asked_for_and_what_is_not_known_is_refused(ours):
    sampled = {"do_sample": True, "temperature": 1.5, "max_gen_toks": 8}
    texts = set()
    for seed in range(3):
        torch.manual_seed(seed)
        texts |= {*ours.generate_until(requests("generate_until", (TEXTS[3], sampled)), disable_tqdm=True)}
    assert len(texts) > 1
    with pytest.raises((TypeError, ValueError), match="fancy"):
        ours.generate_until(requests("generate_until", (TEXTS[3], {"fancy": 1})), disable_tqdm=True)
    with pytest.raises(ValueError, match="max_gen_toks is 600, and the model has 512 positions"):
        ours.generate_until(requests("generate_until", (TEXTS[3], {"max_gen_toks": 600})), disable_tqdm=True)


@pytest.mark.filterwarnings("ignore")  # the harness's own
@pytest.mark.parametrize(("name", "way"), [("agreement", "plain"), ("sequences", "generated")])
def test_scores_of_a_task_are_ours_item_by_item(ours, tmp_path, name, way):
    import lm_eval
    from lm_eval.tasks import TaskManager

    task = TASKS[name]
    items = task.items(COUNT, 0)
    data = tmp_path / "items.jsonl"
    data.write_text(
        "".join(
            json.dumps({"number": i.number, "prompt": i.prompt, "choices": list(i.choices), "correct": i.correct})
            + "\n"
            for i in items
        )
    )
    config = {
        "task": f"own_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "doc_to_text": "{{prompt}}",
        "target_delimiter": "",
    }
    if way == "plain":
        config |= {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "{{correct}}"}
        config["metric_list"] = [{"metric": "acc"}]
    else:
        config |= {
            "output_type": "generate_until",
            "doc_to_target": "{{prompt}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": task.new_tokens, "do_sample": False},
            # The harness's models lose the space that an answer begins with.
            "process_results": lambda doc, said: {"acc": task.check(items[doc["number"]], f" {said[0]}")},
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    ours_alone = TaskManager(include_defaults=False)  # to list the harness's own takes many seconds
    found = lm_eval.simple_evaluate(model=ours, tasks=[config], bootstrap_iters=0, task_manager=ours_alone)
    samples = sorted(found["samples"][f"own_{name}"], key=lambda sample: sample["doc"]["number"])
    if way == "plain":
        choices = choice_likelihoods(mini(), tokenizer(), items)
        expected = [pick(of_item, way) == item.correct for of_item, item in zip(choices, items, strict=True)]
    else:
        said = answers(mini(), tokenizer(), task, items, batch_size=2)
        expected = [task.check(item, text) for item, text in zip(items, said, strict=True)]
    assert [bool(sample["acc"]) for sample in samples] == expected
