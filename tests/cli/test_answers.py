"""Beams, several answers and the other ways to decode, as commands, beside `model.generate` on the shipped model."""

import re

import pytest
from typer.testing import CliRunner

from persimmon_lab import load_mini
from persimmon_lab.cli import answers, app, chat, generate
from persimmon_lab.cli.answers import text_after
from persimmon_lab.cli.options import Engine, search_settings
from persimmon_lab.generation import GenerationConfig
from persimmon_lab.generation.engines.choosing import ENGINES

PROMPT = "Shall I compare thee"
PROMPTS = (
    PROMPT, "And God said unto", "the cat and the dog and the cat and the dog and", "KING.\nMy",
    "human: Thanks!\n\nadept:", "human: Who was Norman Oakhollow?\n\nadept:",
)  # fmt: skip
SAMPLED = {"do_sample": True, "temperature": 0.8, "seed": 1}
DRAWING = ["--temperature", 0.8, "--seed", 1]


@pytest.fixture(scope="module")
def loaded():
    return load_mini("auto")


@pytest.fixture
def run(monkeypatch, loaded):
    """run("text", "--num-beams", 3): the command on persimmon-mini, which is loaded once."""
    monkeypatch.setattr(generate, "load", lambda *given: loaded)
    return lambda *given, **options: CliRunner().invoke(app, ["generate", *map(str, given)], **options)


def generated(loaded, prompt=PROMPT, **settings) -> tuple[list[str], list[float] | None]:
    """What `model.generate` writes after the prompt, decoded all at once, and the scores of beams."""
    model, tokenizer = loaded
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    output = model.generate(ids, tokenizer=tokenizer, return_dict_in_generate=True, **settings)
    before = tokenizer.decode(ids[0], skip_special_tokens=True)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in output.sequences]
    assert all(text.startswith(before) for text in texts)
    scores = output.sequences_scores
    return [text[len(before) :] for text in texts], None if scores is None else scores.tolist()


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--num-beams", 4], {"num_beams": 4}),
        (["--num-beams", 4, "--length-penalty", -3], {"num_beams": 4, "length_penalty": -3.0}),
        (["--num-beams", 4, *DRAWING], {"num_beams": 4, **SAMPLED}),
        (["--num-beams", 4, "--no-repeat-ngram-size", 2], {"num_beams": 4, "no_repeat_ngram_size": 2}),
        (["--num-beams", 4, "--engine", "plain"], {"num_beams": 4, "engine": "plain"}),
        (["--no-repeat-ngram-size", 1], {"no_repeat_ngram_size": 1}),
        (["--num-beams", 1, "--num-return-sequences", 1], {}),
        (["--prefill-chunk-size", 3, "--engine", "fast"], {}),
    ],
    ids=str,
)
def test_one_answer_is_what_the_model_generates(run, loaded, options, settings):
    for prompt in PROMPTS:
        result = run(prompt, "--max-new-tokens", 12, *options)
        [text], _ = generated(loaded, prompt, max_new_tokens=12, **settings)
        assert (result.exit_code, result.stdout, result.stderr) == (0, text + "\n", "")


def test_the_cases_differ(loaded):
    """Or the comparison above would pass with an option that is ignored."""
    cases = [{}, {"num_beams": 4}, {"num_beams": 4, "length_penalty": -3.0}, {"num_beams": 4, **SAMPLED}]
    cases += [{"num_beams": 4, "no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 1}]
    texts = [tuple(generated(loaded, prompt, max_new_tokens=12, **case)[0][0] for prompt in PROMPTS) for case in cases]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--num-beams", 4, "--num-return-sequences", 3], {"num_beams": 4, "num_return_sequences": 3}),
        (["--num-return-sequences", 3, *DRAWING], {"num_return_sequences": 3, **SAMPLED}),
    ],
    ids=["beams", "drawn"],
)
def test_several_answers_stand_one_after_the_other(run, loaded, options, settings):
    result = run(PROMPT, "--max-new-tokens", 12, *options)
    texts, scores = generated(loaded, max_new_tokens=12, **settings)
    notes = [""] * 3 if scores is None else [f", score {score:.3f}" for score in scores]
    numbered = [f"--- {i} of 3{note} ---\n{text}\n" for i, (text, note) in enumerate(zip(texts, notes, strict=True), 1)]
    assert (result.exit_code, result.stdout, result.stderr) == (0, "\n".join(numbered), "")
    assert len(set(texts)) == 3


def test_answers_end_before_a_stop_string_and_answer_questions(run, loaded):
    [whole], _ = generated(loaded, max_new_tokens=12, num_beams=4)
    stop = whole[4:9]
    result = run(PROMPT, "--max-new-tokens", 12, "--num-beams", 4, "--stop", "never", "--stop", stop)
    [text], _ = generated(loaded, max_new_tokens=12, num_beams=4, stop_strings=["never", stop])
    assert result.stdout == text.split(stop)[0] + "\n"
    asked = run("Hey?", "--chat", "--max-new-tokens", 6, "--num-beams", 2).stdout
    assert asked == asked.lstrip() and asked.strip()


def test_beams_of_the_model_s_own_settings(run, loaded, monkeypatch):
    monkeypatch.setattr(loaded[0], "generation_config", GenerationConfig(num_beams=4))
    [text], _ = generated(loaded, max_new_tokens=12)
    assert run(PROMPT, "--max-new-tokens", 12).stdout == text + "\n"
    assert run(PROMPT, "--max-new-tokens", 12, "--num-beams", 1).stdout != text + "\n"
    result = CliRunner().invoke(app, ["chat", "--max-new-tokens", "4", "--seed", "0"], input="Hey?\n")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-return-sequences", 3], "gives one answer, not 3; add --num-beams 3 .* or --temperature 0.8"),
        (["--num-return-sequences", 2, "--temperature", 0], "gives one answer, not 2"),
        (["--num-beams", 2, "--num-return-sequences", 3], "3 answers cannot come from 2 beams.* add --num-beams 3"),
        (["--num-beams", 2, "--num-return-sequences", 3, *DRAWING], "3 answers cannot come from 2 beams"),
        (["--length-penalty", 2], "only one text; add --num-beams 4"),
        (["--length-penalty", 2, "--num-beams", 1], "only one text; add --num-beams 4"),
        (["--num-beams", 0], "--num-beams.*equal to 1"),
        (["--num-return-sequences", 0], "--num-return-sequences.*equal to 1"),
        (["--no-repeat-ngram-size", 0], "--no-repeat-ngram-size.*equal to 1"),
        (["--prefill-chunk-size", 0], "--prefill-chunk-size.*equal to 1"),
        (["--engine", "warp"], f"warp.*{'.*'.join(ENGINES)}"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(monkeypatch, options, message):
    monkeypatch.setattr(generate, "load", None)
    result = CliRunner().invoke(app, ["generate", PROMPT, *map(str, options)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(message, re.sub(r"[\s│]+", " ", result.stderr)), result.stderr


def test_engines_are_those_of_generate():
    assert tuple(engine.value for engine in Engine) == ENGINES


def test_the_engine_and_the_chunks_reach_the_model(run, monkeypatch, loaded):
    asked = []
    monkeypatch.setattr(generate, "stream", lambda *given, **settings: asked.append(settings) or iter(()))
    monkeypatch.setattr(answers, "decode_steps", lambda model, ids, **given: asked.append(given) or 1 / 0)
    run(PROMPT, "--engine", "int8-weight-only", "--prefill-chunk-size", 5)
    assert (asked[0]["engine"], asked[0]["prefill_chunk_size"]) == ("int8-weight-only", 5)
    run(PROMPT, "--engine", "plain", "--prefill-chunk-size", 5, "--num-beams", 2)
    assert (asked[1]["engine"], asked[1]["generation_config"].prefill_chunk_size) == ("plain", 5)
    run(PROMPT)
    assert asked[2]["engine"] is None and "prefill_chunk_size" not in asked[2]


def test_a_text_ends_at_the_eos_of_the_generation_config(run, loaded, monkeypatch):
    """One answer, several, and one in a chat end where `generate` ends, whatever config.json names as the end."""
    model, tokenizer = loaded
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    several = {"max_new_tokens": 12, "num_return_sequences": 5, **SAMPLED}

    def ends_at(end: int) -> None:
        assert end != model.config.eos_token_id
        monkeypatch.setattr(model, "generation_config", GenerationConfig(eos_token_id=end, pad_token_id=0))

    ends_at(int(model.generate(ids, max_new_tokens=4)[0, -1]))
    [text], _ = generated(loaded, max_new_tokens=12)
    assert run(PROMPT, "--max-new-tokens", 12).stdout == text + "\n"

    end = int(model.generate(ids, **several)[0, ids.shape[1] + 4])
    ends_at(end)
    rows = model.generate(ids, **several)[:, ids.shape[1] :].tolist()
    assert end in rows[0][:-1]
    shown = []
    monkeypatch.setattr(answers, "text_after", lambda _tokenizer, _prompt, answer, _stops: shown.append(answer) or "")
    run(PROMPT, "--max-new-tokens", 12, "--num-return-sequences", 5, *DRAWING)
    assert shown == [row[: row.index(end) + 1] if end in row else row for row in rows]

    monkeypatch.setattr(chat, "load", lambda *given: loaded)
    question = tokenizer("human: Hey?\n\nadept:", return_tensors="pt").input_ids
    ends_at(int(model.generate(question, max_new_tokens=3)[0, -1]))
    answer = model.generate(question, max_new_tokens=12)[0, question.shape[1] :]
    assert 0 < len(answer) <= 3
    asked = CliRunner().invoke(app, ["chat", "--max-new-tokens", "12", "--temperature", "0"], input="Hey?\n")
    assert asked.stdout == tokenizer.decode(answer, skip_special_tokens=True).lstrip() + "\n"


def test_options_to_settings():
    assert search_settings(False, None, None, None) == {}
    given = search_settings(False, 3, 0.0, 3, no_repeat_ngram_size=None, prefill_chunk_size=4)
    assert given == {"num_beams": 3, "length_penalty": 0.0, "num_return_sequences": 3, "prefill_chunk_size": 4}
    assert search_settings(True, None, None, 5) == {"num_return_sequences": 5}


def test_what_an_answer_is(loaded):
    tokenizer = loaded[1]
    prompt, new = tokenizer("a golden").input_ids, tokenizer("rings to Hannah").input_ids
    new = [token_id for token_id in new if token_id != tokenizer.bos_token_id]
    assert text_after(tokenizer, prompt, new, []).strip() == "rings to Hannah"
    assert text_after(tokenizer, prompt, new, ["gs to", "ings"]).strip() == "r"  # the earlier one, though they overlap
    assert text_after(tokenizer, prompt, new, ["Hannah and"]).strip() == "rings to Hannah"  # never came whole
