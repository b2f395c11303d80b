"""Texts with labels read and parted; a classifier fitted, frozen and whole, and its marks counted by hand."""

import copy
import json

import pytest
import torch

from persimmon_lab import PersimmonForCausalLM, PersimmonForSequenceClassification, load_mini
from persimmon_lab.finetuning import classifier
from persimmon_lab.finetuning.classifier import ClassifierSettings, classify, fit, mark, new_classifier
from persimmon_lab.finetuning.labelled import (
    Labelled,
    commonest_share,
    label_names,
    read_labelled,
    split_labelled,
    without_held_out,
)
from persimmon_lab.generation.engines.choosing import runner_for
from persimmon_lab.generation.engines.fast import FastRunner
from persimmon_lab.generation.scoring import score_tokens
from persimmon_lab.numerics.intervals import wilson

ANIMALS = ("dog", "cat", "horse", "bird", "fish", "mouse", "cow", "bear")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
TEXTS = [Labelled(f"I saw the {word} today.", label) for words, label in ((ANIMALS, "animal"), (NUMBERS, "number"))
         for word in words]  # fmt: skip


@pytest.fixture
def shipped():
    return load_mini()


def written(path, *lines):
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


# Reading


def test_lines_are_read_in_order_and_whole_numbers_are_labels(tmp_path):
    path = written(tmp_path / "a.jsonl", {"text": "Hi", "label": "x", "more": 1}, "", {"text": "Ho", "label": 3})
    read = read_labelled(path)
    assert [(text.text, text.label) for text in read] == [("Hi", "x"), ("Ho", "3")]
    assert read[1].name == f"{path}, line 3"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", r"line 2: '\[1\]' is no object; give"),
        ('{"text": "x"}', "line 2: an object with the keys .'text'"),
        ('{"text": 3, "label": "a"}', "line 2: text is 3 and label 'a'; give two strings"),
        ('{"text": "x", "label": true}', "line 2: text is 'x' and label True"),
        ('{"text": " ", "label": "a"}', "line 2: the text is empty"),
        ('{"text": "x", "label": ""}', "line 2: the label of 'x' is empty"),
        ('{"text": "GOOD  day", "label": "b"}', "line 2: the text is 'b' here.* 'a' in .*line 1"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, told):
    with pytest.raises(ValueError, match=told):
        read_labelled(written(tmp_path / "a.jsonl", {"text": "Good day", "label": "a"}, line))


def test_a_file_without_lines_or_of_other_bytes(tmp_path):
    with pytest.raises(ValueError, match="is empty; give lines such as"):
        read_labelled(written(tmp_path / "a.jsonl", "", ""))
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_labelled(tmp_path / "b.jsonl")


def test_each_label_is_parted_and_copies_stay_together():
    copies = [Labelled(text.text.upper(), text.label) for text in TEXTS]
    training, held_out = split_labelled([*TEXTS, *copies], 0.25, seed=3)
    assert {label: sum(text.label == label for text in held_out) for label in ("animal", "number")} == {
        "animal": 4, "number": 4
    }  # fmt: skip
    assert len(training) + len(held_out) == 32
    assert not {text.content for text in training} & {text.content for text in held_out}
    assert split_labelled([*TEXTS, *copies], 0.25, seed=3) == (training, held_out)
    assert split_labelled([*TEXTS, *copies], 0.25, seed=4) != (training, held_out)


def test_what_cannot_be_parted_is_refused():
    with pytest.raises(ValueError, match="a share of 1 cannot be held out"):
        split_labelled(TEXTS, 1.0)
    with pytest.raises(ValueError, match="the label 'rare' has one text"):
        split_labelled([*TEXTS, Labelled("Hm.", "rare")], 0.2)
    with pytest.raises(ValueError, match="every text is 'animal'"):
        label_names(TEXTS[:4])


def test_taught_texts_and_the_floor():
    assert without_held_out(TEXTS, [Labelled("i saw  the DOG today.", "animal")]) == TEXTS[1:]
    assert commonest_share(TEXTS[:10], TEXTS[6:]) == 0.2  # 8 animals were taught, and 2 of 10 are


# Fitting


def test_a_classifier_is_the_body_and_a_projection_of_the_last_token(shipped):
    model, tokenizer = shipped
    head = new_classifier(model, ("animal", "number"), seed=1)
    assert head.model is model.model
    assert head.config.id2label == {0: "animal", 1: "number"} and model.config.num_labels == 2
    with torch.no_grad():
        ids = torch.tensor([tokenizer(TEXTS[0].text).input_ids])
        by_hand = model.model(ids, use_cache=False).last_hidden_state[0, -1] @ head.score.weight.T
        rows = classifier.read_rows(
            tokenizer, [TEXTS[0].text, TEXTS[0].text + " And much more of it."], 512, model.device
        )
        torch.testing.assert_close(head(**rows).logits[0], by_hand, atol=1e-4, rtol=1e-4)
    read = classifier.features(head, tokenizer, TEXTS[:3])
    torch.testing.assert_close(read[0] @ head.score.weight.T, by_hand, atol=1e-4, rtol=1e-4)


def test_frozen_training_moves_the_head_alone_to_the_minimum_that_sklearn_finds(shipped):
    model, tokenizer = shipped
    head = new_classifier(model, label_names(TEXTS))
    body = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    fit(head, tokenizer, TEXTS, ClassifierSettings(frozen=True, penalty=0.5))
    assert all(torch.equal(weight, body[name]) for name, weight in head.model.state_dict().items())
    linear = pytest.importorskip("sklearn.linear_model")
    read = classifier.features(head, tokenizer, TEXTS)
    labels = [head.config.label2id[text.label] for text in TEXTS]
    # Of two labels sklearn learns the difference d of the rows, which by symmetry are d/2 and -d/2. Its penalty is
    # |d|^2 / (2 C) beside a sum; ours 0.5 |w|^2 / (2 hidden) beside a mean, with |w|^2 = |d|^2 / 2.
    strength = 1 / (len(TEXTS) * 0.5 / (2 * read.shape[1]))
    peer = linear.LogisticRegression(C=strength, fit_intercept=False, tol=1e-10, max_iter=10000).fit(read, labels)
    difference = head.score.weight[1] - head.score.weight[0]
    torch.testing.assert_close(difference.detach(), torch.tensor(peer.coef_[0]).float(), atol=2e-3, rtol=2e-2)


def test_the_whole_model_learns_and_the_same_seed_gives_the_same_bits():
    fitted = []
    for seed in (1, 1, 2):
        model, tokenizer = load_mini()
        body = model.model.layers[0].mlp.dense_h_to_4h.weight.clone()
        head = fit(
            new_classifier(model, label_names(TEXTS)),
            tokenizer,
            TEXTS,
            ClassifierSettings(epochs=3, batch=8, seed=seed),
        )
        assert not torch.equal(head.model.layers[0].mlp.dense_h_to_4h.weight, body)
        fitted.append(head.score.weight.detach())
    assert torch.equal(fitted[0], fitted[1]) and not torch.equal(fitted[0], fitted[2])
    assert mark(head, tokenizer, TEXTS).accuracy > 0.9


def test_sixteen_bits_learn_in_the_head_alone(shipped):
    model, tokenizer = shipped
    head = new_classifier(model.bfloat16(), label_names(TEXTS))
    with pytest.raises(ValueError, match="the model is torch.bfloat16, in which small updates are lost"):
        fit(head, tokenizer, TEXTS, ClassifierSettings())
    assert mark(fit(head, tokenizer, TEXTS, ClassifierSettings(frozen=True)), tokenizer, TEXTS).accuracy > 0.9


def test_a_label_that_is_not_there(shipped):
    head = new_classifier(shipped[0], ("animal", "plant"))
    for call in (
        lambda texts: fit(head, shipped[1], texts, ClassifierSettings(frozen=True)),
        lambda texts: mark(head, shipped[1], texts),
    ):
        with pytest.raises(ValueError, match="'number'.* the model has|the model has no label 'number'"):
            call(TEXTS)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": True}, {"rate": 0.0}, {"penalty": -1.0}, {"seed": 2**64}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
        ClassifierSettings(**wrong)


# Marks


def test_marks_are_counted_by_hand(shipped, monkeypatch):
    head = new_classifier(shipped[0], ("animal", "number"))
    said = ["animal"] * 7 + ["number"] * 9
    monkeypatch.setattr(classifier, "classify", lambda *_: said)
    marks = mark(head, shipped[1], TEXTS)
    assert marks.confusion.tolist() == [[7, 1], [0, 8]]  # true downwards
    assert (marks.right, marks.count, marks.interval) == (15, 16, wilson(15, 16))
    assert [(text.text, label) for text, label in marks.wrong] == [("I saw the bear today.", "number")]
    assert repr(marks) == "<Marks: 15 of 16 right, 94% (72% to 99%)>"


def test_a_label_does_not_depend_on_what_is_read_beside(shipped):
    model, tokenizer = shipped
    head = fit(new_classifier(model, label_names(TEXTS)), tokenizer, TEXTS, ClassifierSettings(frozen=True))
    texts = ["Two.", *(text.text for text in TEXTS), "It was a long way to the house of the seven brothers. " * 5]
    assert classify(head, tokenizer, texts) == [classify(head, tokenizer, [text])[0] for text in texts]


def test_a_text_beyond_the_context_is_counted_and_read_from_its_beginning(shipped):
    model, tokenizer = shipped
    head = new_classifier(model, ("animal", "number"))
    long = Labelled("the dog " * 600, "animal")
    assert classifier.count_cut(head, tokenizer, [*TEXTS, long]) == 1
    assert mark(head, tokenizer, [long]).count == 1


def test_what_was_saved_classifies_here_and_in_transformers(shipped, tmp_path):
    transformers = pytest.importorskip("transformers")
    model, tokenizer = shipped
    head = fit(new_classifier(model, label_names(TEXTS)), tokenizer, TEXTS, ClassifierSettings(frozen=True))
    head.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = PersimmonForSequenceClassification.from_pretrained(tmp_path)
    assert again.config.id2label == {0: "animal", 1: "number"}
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.id2label == {0: "animal", 1: "number"}
    rows = classifier.read_rows(tokenizer, [text.text for text in TEXTS], 512, model.device)
    with torch.no_grad():
        expected = head(**rows).logits
        assert torch.equal(again(**rows).logits, expected)
        torch.testing.assert_close(theirs(**rows).logits, expected, atol=5e-4, rtol=1e-4)
    assert type(model) is PersimmonForCausalLM


def test_the_language_model_beside_it_stays_one():
    model, tokenizer = load_mini()
    model = copy.deepcopy(model)
    ids = tokenizer("The king said", return_tensors="pt").input_ids
    new_classifier(model, ["a", "b"])
    assert isinstance(runner_for(model), FastRunner), "their configurations say the same"
    model.config.update({"rope_theta": 100.0})
    torch.testing.assert_close(score_tokens(model, ids).tokens, score_tokens(model, ids, engine="plain").tokens)
    model.set_attn_implementation("eager")
    assert model.model.config.attn_implementation == "eager"
