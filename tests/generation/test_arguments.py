"""What generate is handed beside its settings: read as transformers reads it, or refused by its name."""

import math

import numpy as np
import pytest
import torch
import transformers

from tests.models import ids, tiny

pytestmark = pytest.mark.usefixtures("unchecked_annotations")


# Numbers of the prompt


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
def test_ids_that_would_be_cut_to_whole_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=f"input_ids are {dtype}; give the ids as whole numbers"):
        tiny().generate(ids().to(dtype), max_new_tokens=1)
    with pytest.raises(TypeError, match=f"input_ids are {dtype}; give the ids as whole numbers"):
        tiny()(ids().to(dtype))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_ids_of_small_whole_numbers_are_read(dtype):
    model = tiny(vocab_size=512)
    wanted = model.generate(ids() % 100, max_new_tokens=3)
    assert torch.equal(model.generate((ids() % 100).to(dtype), max_new_tokens=3), wanted)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_the_model_names_the_type_of_ids_that_it_cannot_look_up(dtype):
    with pytest.raises(TypeError, match=rf"input_ids are {dtype}.*input_ids.long\(\)"):
        tiny(vocab_size=512)((ids() % 100).to(dtype))


@torch.no_grad()
def test_positions_of_small_whole_numbers_are_in_range():
    model = tiny(max_position_embeddings=512)
    positions = torch.arange(9)[None]
    wanted = model(ids(), position_ids=positions).logits
    assert torch.allclose(model(ids(), position_ids=positions.to(torch.int8)).logits, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("embeds", "error", "message"),
    [
        (torch.zeros(9, 64), ValueError, r"of shape \(9, 64\).*\(batch, position, 64\)"),
        (torch.zeros(1, 9, 63), ValueError, r"of shape \(1, 9, 63\)"),
        (torch.zeros(1, 0, 64), ValueError, "at least one row and position"),
        ([[1.0]], ValueError, "is a list"),
        (torch.zeros(1, 9, 64, dtype=torch.int64), TypeError, r"torch\.int64; ids are input_ids"),
    ],
)
def test_embeddings_that_cannot_be_read_are_refused(embeds, error, message):
    with pytest.raises(error, match=f"inputs_embeds (is|are) {message}|inputs_embeds .*{message}"):
        tiny().generate(inputs_embeds=embeds, max_new_tokens=1)


# Masks


SHOWN = [[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9]


@pytest.mark.parametrize(
    "mask",
    [
        SHOWN,
        np.array(SHOWN),
        torch.tensor(SHOWN, dtype=torch.bool),
        torch.tensor(SHOWN) * 0.5,
        torch.tensor(SHOWN) * 7,
        np.array(SHOWN, dtype=np.uint8) * 255,
    ],
    ids=["list", "array", "bool", "half", "seven", "uint8"],
)
def test_what_is_not_zero_in_a_mask_is_read(mask):
    model = tiny(eos_token_id=None)
    wanted = model.generate(ids(), attention_mask=torch.tensor(SHOWN), max_new_tokens=4)
    assert not torch.equal(wanted, model.generate(ids(), max_new_tokens=4))
    assert torch.equal(model.generate(ids(), attention_mask=mask, max_new_tokens=4), wanted)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ((1 - torch.tensor(SHOWN)) * -1e9, ValueError, "holds -1000000000.0; give 1 for text and 0 for padding"),
        (torch.full((2, 9), math.nan), ValueError, "holds nan"),
        ("111", TypeError, "attention_mask is '111'; give a tensor"),
        ([[1, 1], [1]], TypeError, "give a tensor"),
        (torch.tensor(1), ValueError, r"attention_mask is \(\) but the prompt is \(2, 9\)"),
        (torch.ones(0, 9), ValueError, r"attention_mask is \(0, 9\) but"),
    ],
)
def test_a_mask_that_says_something_else_is_refused(mask, error, message):
    with pytest.raises(error, match=message):
        tiny().generate(ids(), attention_mask=mask, max_new_tokens=1)


# Special ids


@pytest.mark.parametrize("setting", [{"eos_token_id": 128}, {"eos_token_id": [3, 999]}, {"pad_token_id": 128}])
def test_special_ids_beyond_the_vocabulary_are_refused(setting):
    (name,) = setting
    with pytest.raises(ValueError, match=rf"{name}=.*, but the model's ids are 0 … 127"):
        tiny().generate(ids(), max_new_tokens=2, **setting)
    assert tiny().generate(ids(), max_new_tokens=2, **{name: 127}).shape == (2, 11)


# The caller's functions


def changes_in_place(token_ids, scores):
    scores[:, :100] = -math.inf
    return scores


def test_a_processor_that_writes_in_place_leaves_the_raw_logits():
    model, seen = tiny(eos_token_id=None), []
    plain = model.generate(ids(), max_new_tokens=1, output_logits=True, return_dict_in_generate=True)
    given = model.generate(
        ids(), max_new_tokens=1, logits_processor=[changes_in_place], output_logits=True, output_scores=True,
        return_dict_in_generate=True, on_token=lambda step: seen.append(step.logits),
    )  # fmt: skip
    assert torch.equal(given.logits[0], plain.logits[0])
    assert torch.equal(seen[0], plain.logits[0])
    assert given.scores[0][:, :100].isneginf().all()


@pytest.mark.parametrize("name", ["logits_processor", "stopping_criteria"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (changes_in_place, r"is a function; give a list of functions: {name}=\[changes_in_place\]"),
        (3, "is a int; give a list"),
        ("abc", "is a str; give a list"),
        ([changes_in_place, None], r"\[1\] is a NoneType"),
        ([dict], r"\[0\] is the class dict"),
    ],
)
def test_what_is_no_list_of_functions_is_refused(name, given, message):
    with pytest.raises(TypeError, match=f"{name}.*{message.format(name=name)}|{name}{message.format(name=name)}"):
        tiny().generate(ids(), max_new_tokens=1, **{name: given})


def says_nothing(token_ids, scores):
    return None


def says_words(token_ids, scores):
    return "no"


def says_too_much(token_ids, scores):
    return torch.zeros(len(token_ids), 3)


@pytest.mark.parametrize(
    ("criterion", "error", "message"),
    [
        (says_nothing, TypeError, "says_nothing returned a NoneType; it has to return True or False"),
        (says_words, TypeError, "says_words returned a str"),
        (says_too_much, ValueError, r"says_too_much returned shape \(2, 3\).*each of 2 rows"),
    ],
)
def test_a_criterion_that_does_not_answer_is_named(criterion, error, message):
    with pytest.raises(error, match=message):
        tiny().generate(ids(), max_new_tokens=2, stopping_criteria=[criterion])


@pytest.mark.parametrize("answer", [np.bool_(True), np.array([True, True]), torch.tensor([True]), 1])
def test_a_criterion_may_answer_in_other_types(answer):
    written = tiny(eos_token_id=None).generate(ids(), max_new_tokens=4, stopping_criteria=[lambda *_: answer])
    assert written.shape == (2, 10)


# Chance


@pytest.mark.parametrize("seed", [1.5, "3", True, 10**26, -(10**20)])
def test_a_seed_that_is_no_whole_number_of_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match="seed=.*has to be a whole number from"):
        tiny().generate(ids(), max_new_tokens=1, seed=seed)


def test_a_seed_of_numpy_is_a_seed():
    wanted = tiny().generate(ids(), max_new_tokens=5, do_sample=True, seed=3)
    assert torch.equal(tiny().generate(ids(), max_new_tokens=5, do_sample=True, seed=np.int64(3)), wanted)


def test_a_number_is_no_generator():
    with pytest.raises(TypeError, match="generator is a int.*as seed"):
        tiny().generate(ids(), max_new_tokens=1, do_sample=True, generator=3)


def test_a_model_without_numbers_cannot_choose():
    with pytest.raises(ValueError, match="on the meta device.*load it with from_pretrained"):
        tiny().to("meta").generate(ids(), max_new_tokens=1)


# Things that are called on the way


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("streamer", "x", "streamer is a str"),
        ("streamer", transformers.TextStreamer, "streamer is the class TextStreamer"),
        ("cancel", True, "cancel is a bool; give threading.Event"),
        ("on_token", 5, "on_token is a int"),
        ("tokenizer", "adept/persimmon-8b-chat", "tokenizer is a str"),
        ("assistant_model", "adept/persimmon-8b-chat", "assistant_model is a str"),
    ],
)
def test_what_is_called_is_asked_for_its_methods_first(name, value, told):
    with pytest.raises(TypeError, match=told):
        tiny().generate(ids()[:1], max_new_tokens=1, **{name: value})
