"""Streamed text beside decoding everything at once."""

import threading
from pathlib import Path

import pytest
import torch

from persimmon_lab.generation import GenerationConfig, stream
from persimmon_lab.generation.streaming import decoder_after
from persimmon_lab.tokenizer import PersimmonTokenizer

PROMPT = "human: Hey, what should I eat for dinner?"


@pytest.fixture(scope="module")
def tokenizer():
    return PersimmonTokenizer(Path(__file__).parents[1] / "fixtures" / "tokenizer" / "tokenizer.model")


@pytest.fixture
def model(tiny_model, tokenizer):
    return tiny_model(vocab_size=len(tokenizer), max_position_embeddings=256, eos_token_id=None)


def continuation(tokenizer, ids, prompt_ids) -> str:
    """What follows the prompt in the text of all ids, by decoding both."""
    return tokenizer.decode(ids, skip_special_tokens=True)[
        len(tokenizer.decode(prompt_ids, skip_special_tokens=True)) :
    ]


@pytest.mark.parametrize("seed", range(5))
def test_streamed_text_equals_decoding_at_once(model, tokenizer, seed):
    """Random weights write bytes of many half characters; what never completes at the end is left out."""
    prompt_ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    options = {"max_new_tokens": 100, "do_sample": True, "seed": seed}
    events = list(stream(model, tokenizer, PROMPT, **options))
    ids = model.generate(prompt_ids, **options)[0].tolist()
    assert [event.token_id for event in events] == ids[-100:]
    expected = continuation(tokenizer, ids, prompt_ids[0])
    text = "".join(event.text for event in events)
    assert expected.rstrip("\ufffd") == text.rstrip("\ufffd")


def script(model, tokenizer, text: str) -> None:
    """Let the model write `text` after the prompt, whatever it reads: greedy, then eos for ever."""
    ids = tokenizer.encode(PROMPT + text)
    written = iter([*ids[len(tokenizer.encode(PROMPT)) :], *[tokenizer.eos_token_id] * 50])

    def forced(module, arguments, logits):
        row = torch.zeros_like(logits)
        row[..., next(written)] = 9.0
        return row

    model.lm_head.register_forward_hook(forced)


@pytest.mark.parametrize("text", [" The theory.", "The theory.", " 柿 and 😀, é!", "\n\nhuman: two"])
def test_a_written_text_arrives_whole(model, tokenizer, text):
    """With the space that begins a word after the prompt, and only whole characters on the way."""
    script(model, tokenizer, text)
    events = list(stream(model, tokenizer, PROMPT, max_new_tokens=60, eos_token_id=tokenizer.eos_token_id))
    assert "".join(event.text for event in events) == text
    assert not any("\ufffd" in event.text for event in events)
    assert (events[-1].token_id, events[-1].text) == (tokenizer.eos_token_id, "")


def test_a_stop_string_ends_the_text_and_is_not_shown(model, tokenizer):
    script(model, tokenizer, " Fish.\n\nhum. Yes.\n\nhuman: more")
    options = {"max_new_tokens": 60, "stop_strings": ["\n\nhuman:", "nowhere"]}
    events = list(stream(model, tokenizer, PROMPT, **options))
    assert "".join(event.text for event in events) == " Fish.\n\nhum. Yes."
    assert events[-1].step.sequences[0, -1] == events[-1].token_id
    assert "\n\nhuman:" in tokenizer.decode(events[-1].step.sequences[0])
    assert "\n\nhuman:" not in tokenizer.decode(events[-2].step.sequences[0])


def test_generate_stops_at_the_same_token(model, tokenizer):
    """`generate` keeps the token that completes the stop string; a batch goes on until its last row is done."""
    script(model, tokenizer, " Fish.\n\nhuman: more")
    prompt_ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    ids = model.generate(prompt_ids, max_new_tokens=60, stop_strings="\n\nhuman:", tokenizer=tokenizer)
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == PROMPT + " Fish.\n\nhuman:"


def test_the_page_s_stop_in_a_batch_is_padded(model, tokenizer):
    script(model, tokenizer, " Fish.\n\nhuman: more")
    prompt_ids = tokenizer([PROMPT, "human: 3"], padding=True, return_tensors="pt")
    stop = {"stop_strings": ["\n\nhuman:"], "tokenizer": tokenizer}
    with pytest.raises(ValueError, match="no pad_token_id"):
        model.generate(**prompt_ids, pad_token_id=None, **stop)
    texts = tokenizer.batch_decode(model.generate(**prompt_ids, max_new_tokens=60, **stop), skip_special_tokens=True)
    assert texts == [PROMPT + " Fish.\n\nhuman:", "human: 3 Fish.\n\nhuman:"]


def test_what_waits_for_a_stop_string_is_shown_when_none_comes(model, tokenizer):
    script(model, tokenizer, " Fish.\n\nhum")
    events = list(stream(model, tokenizer, PROMPT, stop_strings="\n\nhuman:", eos_token_id=tokenizer.eos_token_id))
    assert "".join(event.text for event in events) == " Fish.\n\nhum"


def test_a_text_ends_at_the_eos_of_the_generation_config(model, tokenizer):
    """Its file may name another end than config.json; `generate` and a stream know one end."""
    colon = tokenizer.encode("a:", add_special_tokens=False)[-1]
    model.config.eos_token_id = tokenizer.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=colon)
    script(model, tokenizer, " Fish: and more")
    assert "".join(event.text for event in stream(model, tokenizer, PROMPT, max_new_tokens=60)) == " Fish:"
    prompt_ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    script(model, tokenizer, " Fish: and more")
    assert tokenizer.decode(model.generate(prompt_ids, max_new_tokens=60)[0], True) == PROMPT + " Fish:"


def test_a_decoder_that_has_read_a_prompt_knows_that_no_text_begins(tokenizer):
    [first, *_] = tokenizer.encode("Fish", add_special_tokens=False)
    alone = decoder_after(tokenizer, []).push(first)
    after = decoder_after(tokenizer, tokenizer.encode(PROMPT)).push(first)
    assert after == " " + alone
    assert decoder_after(tokenizer, [first]).push(tokenizer.eos_token_id) == ""


def test_cancel_and_leaving_the_loop_end_the_generation(model, tokenizer):
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    cancel = threading.Event()
    for count, _ in enumerate(stream(model, tokenizer, PROMPT, max_new_tokens=50, cancel=cancel), start=1):
        if count == 3:
            cancel.set()
    assert (count, len(forwards)) == (3, 3)
    for event in stream(model, tokenizer, PROMPT, max_new_tokens=50):
        assert event.step.choice().probability > 0
        break
    assert len(forwards) == 4, "the model ran ahead"


def test_errors_arrive_where_the_events_are_used(model, tokenizer):
    # the fast engine goes on with the weights that it began with
    events = stream(model, tokenizer, PROMPT, max_new_tokens=9, engine="plain")
    next(events)
    model.lm_head.weight.data[:] = torch.nan
    with pytest.raises(FloatingPointError, match="nan"):
        next(events)
    with pytest.raises(TypeError, match="'colour'"):
        next(stream(model, tokenizer, PROMPT, colour="red"))


def test_several_texts_are_refused_wherever_they_were_asked_for(model, tokenizer):
    beams = GenerationConfig(num_beams=2, max_new_tokens=3)
    two = tokenizer([PROMPT, PROMPT], return_tensors="pt").input_ids
    for prompt, options in (
        (two, {}),
        (PROMPT, {"do_sample": True, "num_return_sequences": 2}),
        (PROMPT, {"generation_config": beams}),
    ):
        with pytest.raises(
            ValueError, match=r"the prompt is \([12], \d+\) and num_return_sequences=[12], num_beams=[12];"
        ):
            next(stream(model, tokenizer, prompt, **options))
