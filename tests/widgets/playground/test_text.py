"""The pure half of the playground: settings in, tokens with their statistics out, and code that writes the same."""

import contextlib
import io
import threading
from dataclasses import replace

import pytest
import torch

from persimmon_lab.generation import GenerationConfig
from persimmon_lab.widgets.described import describe_prompt
from persimmon_lab.widgets.playground.settings import Settings
from persimmon_lab.widgets.playground.text import LONGEST_PROMPT_SHOWN, encode_prompt, shortened, stream_tokens

SETTINGS = [
    Settings("Once upon a time", temperature=0.0, max_new_tokens=12),
    Settings("Once upon a time", temperature=1.3, top_k=40, top_p=0.9, max_new_tokens=12, seed=5),
    Settings('say "柿"\n\tor \\ not', chat=True, max_new_tokens=12, seed=1),
    Settings('it\'s "quoted"\n\\n and {braced}', max_new_tokens=12),
]


def run(model, tokenizer, settings):
    return list(stream_tokens(model, tokenizer, settings, threading.Event()))


def text(tokenizer, settings, tokens) -> str:
    prompt = describe_prompt(tokenizer, encode_prompt(tokenizer, settings))
    return "".join(token.text for token in [*prompt, *tokens])


def output_of(code: str, **names) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


@pytest.mark.parametrize("settings", SETTINGS, ids=["greedy", "sampled", "chat", "quotes"])
def test_the_code_writes_the_same_text(model, tokenizer, settings):
    tokens = run(model, tokenizer, settings)
    printed = output_of(settings.code(), model=model, tokenizer=tokenizer)
    assert printed == text(tokenizer, settings, tokens) + "\n"


def test_the_code_makes_its_model(model, tokenizer):
    code = SETTINGS[0].code("model, tokenizer = load()")
    assert output_of(code, load=lambda: (model, tokenizer)) == output_of(
        SETTINGS[0].code(), model=model, tokenizer=tokenizer
    )


def test_statistics_are_those_of_one_pass_over_the_whole_text(model, tokenizer):
    settings = SETTINGS[1]
    tokens = run(model, tokenizer, settings)
    prompt_ids = encode_prompt(tokenizer, settings)
    new_ids = tokenizer.convert_tokens_to_ids([token.piece for token in tokens])
    with torch.no_grad():
        logits = model(input_ids=torch.cat([prompt_ids, torch.tensor([new_ids])], dim=1)).logits
    # In float64, without temperature and filters, position by position.
    distributions = logits[0, prompt_ids.shape[1] - 1 : -1].double().softmax(dim=-1)
    assert len({token.rank for token in tokens}) > 3, "sampling took more than the best"
    for token, index, distribution in zip(tokens, new_ids, distributions, strict=True):
        descending = distribution.sort(descending=True)
        assert token.probability == pytest.approx(distribution[index].item(), rel=1e-4)
        assert token.rank == descending.indices.tolist().index(index) + 1
        entropy = -sum(p * p.log2() for p in distribution).item()
        assert token.entropy_bits == pytest.approx(entropy, rel=1e-4)
        assert [piece for piece, _ in token.alternatives] == tokenizer.convert_ids_to_tokens(descending.indices[:10])
        assert [p for _, p in token.alternatives] == pytest.approx(descending.values[:10].tolist(), rel=1e-4)


def test_a_seed_repeats_and_another_does_not(model, tokenizer):
    first, again = (run(model, tokenizer, SETTINGS[1]) for _ in range(2))
    assert first == again
    assert run(model, tokenizer, replace(SETTINGS[1], seed=6)) != first


def test_temperature_zero_takes_the_most_probable(model, tokenizer):
    assert {token.rank for token in run(model, tokenizer, SETTINGS[0])} == {1}
    assert {token.rank for token in run(model, tokenizer, replace(SETTINGS[1], top_k=1))} == {1}


def test_the_models_own_settings_do_not_overrule_the_controls(model, tokenizer):
    before = run(model, tokenizer, SETTINGS[0])
    model.generation_config = GenerationConfig(do_sample=True, temperature=5.0, top_k=3, max_length=3)
    assert run(model, tokenizer, SETTINGS[0]) == before


def test_a_character_comes_whole_and_with_its_last_byte(scripted, tokenizer):
    ids = tokenizer.encode("a柿<b>", add_special_tokens=False)
    tokens = run(scripted(ids), tokenizer, Settings("x", temperature=0.0))
    assert "".join(token.text for token in tokens) == " a柿<b>"  # ids of ▁a: a word of its own after the prompt
    position = [token.text for token in tokens].index("柿")
    assert [token.piece for token in tokens[position - 2 : position + 1]] == ["<0xE6>", "<0x9F>", "<0xBF>"]
    assert [token.text for token in tokens[position - 2 : position]] == ["", ""]
    assert (tokens[-1].piece, tokens[-1].text) == ("|ENDOFTEXT|", "")


def test_a_character_cut_short_is_marked_as_decoding_marks_it(scripted, tokenizer):
    ids = tokenizer.encode("柿", add_special_tokens=False)
    first_byte = [tokenizer.convert_ids_to_tokens(index) for index in ids].index("<0xE6>")
    settings = Settings("x", temperature=0.0, max_new_tokens=first_byte + 2)
    tokens = run(scripted(ids), tokenizer, settings)
    assert text(tokenizer, settings, tokens) == tokenizer.decode(tokenizer.encode("x") + ids[: first_byte + 2], True)


def test_cancelling_ends_after_the_token_at_hand(scripted, tokenizer):
    cancel, tokens = threading.Event(), []
    for token in stream_tokens(scripted([5] * 50), tokenizer, Settings("x", temperature=0.0), cancel):
        tokens.append(token)
        if len(tokens) == 3:
            cancel.set()
    assert len(tokens) == 4  # the fourth is the one that notices


def test_a_chat_ends_where_the_human_would_speak(scripted, tokenizer):
    ids = tokenizer.encode("yes\n\nhuman: no", add_special_tokens=False)
    settings = Settings("really?", chat=True, temperature=0.0)
    tokens = run(scripted(ids), tokenizer, settings)
    assert text(tokenizer, settings, tokens) == "human: really?\n\nadept: yes\n\nhuman:"


def test_the_prompt_is_shown_as_the_model_reads_it(tokenizer):
    settings = Settings("|ENDOFTEXT| 柿", chat=True)
    tokens = describe_prompt(tokenizer, encode_prompt(tokenizer, settings))
    assert (tokens[0].piece, tokens[0].text) == ("|ENDOFTEXT|", "")
    assert "".join(token.text for token in tokens) == "human: |ENDOFTEXT| 柿\n\nadept:"
    assert all(token.probability is None for token in tokens)


def test_a_long_prompt_is_shown_without_its_middle(tokenizer):
    tokens = describe_prompt(tokenizer, encode_prompt(tokenizer, Settings("word " * 1000)))
    short = shortened(tokens)
    assert len(short) == LONGEST_PROMPT_SHOWN + 1
    assert (short[0], short[-1]) == (tokens[0], tokens[-1])
    half = LONGEST_PROMPT_SHOWN // 2
    assert f"{len(tokens) - LONGEST_PROMPT_SHOWN:,} tokens" in short[half].piece
    assert shortened(tokens[:LONGEST_PROMPT_SHOWN]) == tokens[:LONGEST_PROMPT_SHOWN]
