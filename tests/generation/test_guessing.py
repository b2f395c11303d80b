"""Guesses change how much is read at once, and nothing that is chosen."""

import pytest
import torch

from persimmon_lab import DynamicCache, load_mini
from persimmon_lab.generation import GenerationConfig, decode_steps
from persimmon_lab.generation.context import Context
from persimmon_lab.generation.guessing import Assistant, PromptLookup, ReadingAhead

CLOSE = 1e-4  # of two logits that rounding may exchange


def ids_of(*tokens: int) -> torch.Tensor:
    return torch.tensor([tokens])


@pytest.fixture(scope="module")
def mini():
    return load_mini()


# Who guesses


@pytest.mark.parametrize(
    ("ids", "longest", "most", "expected"),
    [
        ((1, 2, 3, 4, 1, 2), 2, 3, [3, 4, 1]),
        ((1, 2, 3, 9, 2, 7, 8, 1, 2), 2, 2, [3, 9]),  # after "1 2", not after the later 2 alone
        ((5, 2, 3, 9, 2, 7, 8, 6, 2), 2, 2, [7, 8]),  # "6 2" is new: the last place of 2 that is followed by enough
        ((2, 3, 4, 5, 2, 6, 2), 1, 3, [3, 4, 5]),  # the last 2 is followed by one token only
        ((2, 6, 2), 1, 5, [6, 2]),  # as many as there are
        ((7, 7, 7, 7), 2, 2, [7, 7]),
        ((1, 2, 3), 2, 4, []),
        ((4,), 2, 4, []),
    ],
)
def test_a_lookup_says_what_followed_before(ids, longest, most, expected):
    assert PromptLookup(longest)(ids_of(*ids), most) == expected


def test_an_assistant_says_what_its_model_would(tiny_model):
    model = tiny_model().eval()
    prompt = ids_of(5, 6, 7, 8)
    expected = model.generate(prompt, max_new_tokens=6, eos_token_id=None)[0, 4:].tolist()
    for engine in ("plain", None):
        assistant = Assistant(model, engine, 32)
        assert assistant(prompt, 6) == expected
        assert assistant(prompt, 3) == expected[:3]  # again, after it has read more
        other = ids_of(5, 6, 9, 8, 3)  # it parts from what was read in the middle
        assert assistant(other, 4) == model.generate(other, max_new_tokens=4, eos_token_id=None)[0, 5:].tolist()


# What is chosen


class Oracle:
    """Guesses the text that is known to follow, and something else at some places."""

    def __init__(self, text: list[int], wrong: set[int]):
        self.text, self.wrong, self.asked = text, wrong, []

    def __call__(self, ids, most):
        start = ids.shape[1]
        self.asked.append(start)
        guesses = [token ^ 1 if place in self.wrong else token for place, token in enumerate(self.text)]
        return guesses[start : start + most]


@pytest.mark.parametrize("engine", ["plain", "fast"])
@pytest.mark.parametrize("wrong", [set(), {9}, {8, 9, 10}, set(range(40))])
def test_right_guesses_are_read_together_and_wrong_ones_forgotten(tiny_model, monkeypatch, engine, wrong):
    model = tiny_model().eval()
    prompt = ids_of(5, 6, 7, 8, 9)
    plain = model.generate(prompt, max_new_tokens=15, eos_token_id=None, engine=engine)
    oracle = Oracle(plain[0].tolist(), wrong)
    monkeypatch.setattr("persimmon_lab.generation.guessing.PromptLookup", lambda longest: oracle)
    cache = DynamicCache()
    guessed = model.generate(
        prompt, max_new_tokens=15, eos_token_id=None, engine=engine, prompt_lookup_num_tokens=4, past_key_values=cache
    )
    assert torch.equal(guessed, plain)
    assert cache.get_seq_length() == plain.shape[1] - 1
    expected = {0: [6, 11, 16], 1: [6, 10, 15], 3: None, 40: list(range(6, 19))}[len(wrong)]
    assert expected is None or oracle.asked == expected


def test_logits_are_those_of_single_steps(tiny_model):
    model = tiny_model().eval()
    settings = {"max_new_tokens": 12, "eos_token_id": None, "engine": "plain"}
    plain = list(decode_steps(model, ids_of(5, 6, 7, 5, 6), **settings))
    ahead = list(decode_steps(model, ids_of(5, 6, 7, 5, 6), prompt_lookup_num_tokens=3, **settings))
    for one, other in zip(plain, ahead, strict=True):
        assert torch.equal(one.sequences, other.sequences) and one.is_last == other.is_last
        torch.testing.assert_close(one.logits, other.logits, atol=1e-5, rtol=1e-5)


def test_the_mini_says_the_same_greedily_and_by_the_same_draws(mini):
    model, tokenizer = mini
    prompts = ["In the beginning God created the heaven and the earth. In the beginning",
               "human: Hello, how are you?\n\nadept:", "def add(a, b):\n    return a + b\n\ndef add("]  # fmt: skip
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        for settings in ({}, {"do_sample": True, "temperature": 0.8, "seed": 4}, {"repetition_penalty": 1.2}):
            plain = model.generate(ids, max_new_tokens=30, return_dict_in_generate=True, output_scores=True, **settings)
            for guesses in ({"prompt_lookup_num_tokens": 6}, {"assistant_model": model}):
                ahead = model.generate(ids, max_new_tokens=30, **settings, **guesses)
                parts = next((i for i, (a, b) in enumerate(zip(plain.sequences[0], ahead[0])) if a != b), None)
                if parts is not None:  # only where two were as good as equal
                    best = plain.scores[parts - ids.shape[1]][0].topk(2).values
                    assert best[0] - best[1] < CLOSE or settings.get("do_sample")
                else:
                    assert torch.equal(plain.sequences, ahead)


def test_draws_have_the_plain_distribution(tiny_model):
    """Chi-square of 600 pairs of tokens against what one text after the other gives."""
    model = tiny_model().eval()
    prompt = ids_of(5, 6, 5, 6, 5)
    settings = {"max_new_tokens": 3, "do_sample": True, "top_k": 3, "eos_token_id": None}
    counts: list[dict[tuple[int, ...], int]] = []
    for extra in ({}, {"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 1}):
        generator, found = torch.Generator().manual_seed(len(extra)), {}
        for _ in range(600):
            said = tuple(model.generate(prompt, generator=generator, **settings, **extra)[0, 5:7].tolist())
            found[said] = found.get(said, 0) + 1
        counts.append(found)
    cells = counts[0].keys() | counts[1].keys()
    pairs = [(counts[0].get(cell, 0), counts[1].get(cell, 0)) for cell in cells]
    statistic = sum((a - b) ** 2 / (a + b) for a, b in pairs)
    assert len(cells) == 9 and statistic < 26.1  # 0.1% of chi-square with 8 degrees of freedom


def test_the_end_is_seen_within_guesses(tiny_model, monkeypatch):
    model = tiny_model().eval()
    prompt = ids_of(5, 6, 7, 8, 9)
    plain = model.generate(prompt, max_new_tokens=12, eos_token_id=None)[0].tolist()
    monkeypatch.setattr("persimmon_lab.generation.guessing.PromptLookup", lambda longest: Oracle(plain, set()))
    end = plain[8]
    first = plain.index(end, 5)
    cache = DynamicCache()
    said = model.generate(
        prompt, max_new_tokens=12, eos_token_id=end, prompt_lookup_num_tokens=10, past_key_values=cache
    )
    assert said[0].tolist() == plain[: first + 1]
    assert cache.get_seq_length() == first
    stopped = model.generate(
        prompt, max_new_tokens=12, eos_token_id=None, prompt_lookup_num_tokens=10, on_token=lambda step: True,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert stopped.sequences[0].tolist() == plain[:6] and stopped.past_key_values.get_seq_length() == 5


def test_padding_chunks_and_a_text_of_its_own_rotation(tiny_model):
    model = tiny_model().eval()
    ids = ids_of(0, 0, 5, 6, 7, 5, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    settings = {"max_new_tokens": 10, "eos_token_id": None, "attention_mask": mask}
    plain = model.generate(ids, **settings)
    for extra in ({}, {"prefill_chunk_size": 3}, {"prefill_chunk_size": 1}):
        assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=4, **settings, **extra), plain)
    model.config.rope_scaling = {"type": "dynamic", "factor": 2.0}
    long = torch.arange(5, 5 + model.config.max_position_embeddings - 4)[None] % 60 + 5
    plain = model.generate(long, max_new_tokens=12, eos_token_id=None)
    assert torch.equal(model.generate(long, max_new_tokens=12, eos_token_id=None, prompt_lookup_num_tokens=4), plain)


# What is refused


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_beams": 2}, "guesses for one text"),
        ({"use_cache": False}, "guesses for one text"),
        ({"do_sample": True, "num_return_sequences": 2}, "here are 2 rows"),
    ],
)
def test_more_than_one_text_is_refused(tiny_model, settings, told):
    model = tiny_model()
    for guesses in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": model}):
        with pytest.raises(ValueError, match=told):
            model.generate(ids_of(5, 6), max_new_tokens=4, **settings, **guesses)


def test_an_assistant_of_another_vocabulary_is_refused(tiny_model, mini):
    with pytest.raises(ValueError, match=r"has 4096 ids and the model \d+: its guesses mean other tokens"):
        tiny_model().generate(ids_of(5, 6), max_new_tokens=4, assistant_model=mini[0])
    with pytest.raises(ValueError, match="both assistant_model and prompt_lookup_num_tokens=3"):
        mini[0].generate(ids_of(5, 6), max_new_tokens=4, assistant_model=mini[0], prompt_lookup_num_tokens=3)


def test_settings_are_checked():
    assert GenerationConfig(prompt_lookup_num_tokens=None, max_matching_ngram_size=None).max_matching_ngram_size == 2
    for name, value in (("prompt_lookup_num_tokens", -1), ("max_matching_ngram_size", 0), ("num_assistant_tokens", 0)):
        with pytest.raises(ValueError, match=name):
            GenerationConfig(**{name: value})


def test_a_reader_that_is_asked_once_reads_no_guess_before_the_prompt(tiny_model):
    model = tiny_model().eval()
    asked = []
    context = Context(model, ids_of(5, 6, 7), None, DynamicCache(), new_tokens=4)
    reader = ReadingAhead(context, lambda ids, most: asked.append(most) or [], 8)
    with torch.no_grad():
        logits = reader.next_logits()
        assert asked == []
        context.append(logits.argmax(dim=-1))
        reader.next_logits()
    assert asked == [2]  # of four places one is filled, and one stays for what follows the guesses
