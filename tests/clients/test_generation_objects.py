"""What people hand to transformers' generate and forward: its caches, streamers, criteria, processors, settings."""

import pytest
import torch

from tests.clients.clients import TEXTS, mini, prompt, rows, tokenizer

transformers = pytest.importorskip("transformers")

NEW = 8


@pytest.fixture(scope="module")
def model():
    return mini()


@pytest.fixture(scope="module")
def written(model):
    """What greedy decoding writes, to compare with."""
    return model.generate(prompt(), max_new_tokens=NEW)


def of_transformers(kind: str, model):
    sizes = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size", "max_position_embeddings")
    config = transformers.PersimmonConfig(**{name: getattr(model.config, name) for name in sizes})
    if kind == "static":
        return transformers.StaticCache(config=config, max_cache_len=32)
    return transformers.DynamicCache()


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@torch.no_grad()
def test_cache_of_transformers_is_filled(model, kind):
    cache = of_transformers(kind, model)
    whole = model(rows()).logits
    first = model(rows()[:, :5], past_key_values=cache, use_cache=True)
    assert int(cache.get_seq_length()) == 5
    assert first.past_key_values is cache
    second = model(rows()[:, 5:], past_key_values=cache, use_cache=True)
    assert int(cache.get_seq_length()) == rows().shape[1]
    torch.testing.assert_close(torch.cat((first.logits, second.logits), dim=1), whole, atol=1e-4, rtol=1e-4)


def test_generate_with_a_cache_of_transformers(model, written):
    cache = transformers.DynamicCache()
    assert torch.equal(model.generate(prompt(), past_key_values=cache, max_new_tokens=NEW), written)
    assert int(cache.get_seq_length()) == written.shape[1] - 1


@pytest.mark.parametrize("odd", [object(), {"key": 1}, "cache", 7], ids=lambda value: type(value).__name__)
def test_what_is_no_cache_is_refused(model, odd):
    with pytest.raises(TypeError, match="past_key_values"):
        model(rows(), past_key_values=odd)


def test_settings_of_transformers(model, written):
    settings = transformers.GenerationConfig(max_new_tokens=NEW, pad_token_id=tokenizer().pad_token_id)
    assert torch.equal(model.generate(prompt(), generation_config=settings), written)
    settings = transformers.GenerationConfig(max_new_tokens=NEW, num_beams=3, length_penalty=0.5)
    ours = model.generate(prompt(), max_new_tokens=NEW, num_beams=3, length_penalty=0.5)
    assert torch.equal(model.generate(prompt(), generation_config=settings), ours)


def test_a_setting_of_transformers_that_we_do_not_have_is_named(model):
    settings = transformers.GenerationConfig(max_new_tokens=NEW, suppress_tokens=[300])
    with pytest.raises((TypeError, ValueError), match="suppress_tokens"):
        model.generate(prompt(), generation_config=settings)


def test_the_prompt_by_the_name_of_transformers(model, written):
    assert torch.equal(model.generate(inputs=prompt(), max_new_tokens=NEW), written)


@pytest.mark.parametrize("nothing", ["logits_processor", "stopping_criteria", "streamer", "generation_config"])
def test_none_is_nothing(model, written, nothing):
    assert torch.equal(model.generate(prompt(), max_new_tokens=NEW, **{nothing: None}), written)


def test_processors(model, written):
    banned = int(written[0, prompt().shape[1]])
    processors = transformers.LogitsProcessorList([transformers.SuppressTokensLogitsProcessor([banned], device="cpu")])
    changed = model.generate(prompt(), max_new_tokens=NEW, logits_processor=processors)
    assert banned not in changed[0, prompt().shape[1] :].tolist()


def test_stopping_criteria(model, written):
    """Called with the ids so far and the scores; a bool for all rows, or one for each."""
    width = prompt().shape[1]
    criteria = transformers.StoppingCriteriaList([transformers.MaxLengthCriteria(max_length=width + 3)])
    assert torch.equal(
        model.generate(prompt(), max_new_tokens=NEW, stopping_criteria=criteria), written[:, : width + 3]
    )

    def after_two(ids, scores, **_):
        assert scores is not None
        return ids.shape[1] >= width + 2

    assert torch.equal(
        model.generate(prompt(), max_new_tokens=NEW, stopping_criteria=[after_two]), written[:, : width + 2]
    )


def test_stopping_criteria_by_row(model):
    """A row that has ended is filled while the other goes on."""
    tokens = tokenizer()
    batch = tokens(list(TEXTS[:2]), padding=True, return_tensors="pt")
    width = batch.input_ids.shape[1]
    free = model.generate(**batch, max_new_tokens=NEW)
    criteria = [lambda ids, scores: torch.tensor([ids.shape[1] >= width + 2, False])]
    stopped = model.generate(**batch, max_new_tokens=NEW, stopping_criteria=criteria)
    assert torch.equal(stopped[1], free[1, : stopped.shape[1]])
    assert torch.equal(stopped[0, : width + 2], free[0, : width + 2])
    assert (stopped[0, width + 2 :] == tokens.pad_token_id).all()


def test_text_streamer(model, written, capsys):
    tokens = tokenizer()
    model.generate(prompt(), max_new_tokens=NEW, streamer=transformers.TextStreamer(tokens, skip_prompt=True))
    shown = capsys.readouterr().out  # with a line break at the end
    assert shown == tokens.decode(written[0, prompt().shape[1] :]) + "\n"


def test_iterator_streamer(model, written):
    streamer = transformers.TextIteratorStreamer(tokenizer(), skip_prompt=True, timeout=5)
    model.generate(prompt(), max_new_tokens=NEW, streamer=streamer)
    assert "".join(streamer) == tokenizer().decode(written[0, prompt().shape[1] :])


def test_a_streamer_gets_the_prompt_then_each_token_and_the_end(model, written):
    """As transformers calls it: `put` with (batch, position), then (batch,), on the CPU, and `end` once."""

    class Recorder:
        def __init__(self):
            self.calls = []

        def put(self, value):
            self.calls.append(value)

        def end(self):
            self.calls.append("end")

    recorder = Recorder()
    model.generate(prompt(), max_new_tokens=NEW, streamer=recorder)
    given, *rest, end = recorder.calls
    assert end == "end"
    assert torch.equal(given.flatten(), prompt().flatten())
    assert [int(value.flatten()) for value in rest] == written[0, prompt().shape[1] :].tolist()
