"""Beam search beside transformers' on the same weights, by definition where the search is exhaustive, and its ends."""

import itertools
import threading

import pytest
import torch

from persimmon_lab import DynamicCache
from persimmon_lab.generation import decode_steps

WANTED = {"return_dict_in_generate": True, "output_scores": True}
SETTINGS = {
    "defaults": {"num_beams": 3},
    "several answers": {"num_beams": 4, "num_return_sequences": 3},
    "short texts": {"num_beams": 3, "length_penalty": -1.0, "num_return_sequences": 2},
    "sums": {"num_beams": 3, "length_penalty": 0.0, "early_stopping": "never", "num_return_sequences": 3},
    "long texts": {"num_beams": 3, "length_penalty": 2.0, "early_stopping": "never", "num_return_sequences": 2},
    "first complete": {"num_beams": 4, "early_stopping": True, "num_return_sequences": 4},
    "first complete, long texts": {
        "num_beams": 3,
        "early_stopping": True,
        "length_penalty": 3.0,
        "num_return_sequences": 3,
    },
    "penalty": {"num_beams": 3, "repetition_penalty": 1.4},
    "no repeated pairs": {"num_beams": 3, "no_repeat_ngram_size": 2},
}


def ends_of(model, ids, mask) -> list[int]:
    """Ids that greedy decoding meets early, so that beams end at different steps."""
    free = model.generate(ids, attention_mask=mask, max_new_tokens=12, eos_token_id=None)[:, ids.shape[1] :]
    return [int(free[0, 3]), int(free[1, 5])]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_transformers(twins, padded_prompts, settings, seed):
    """Ids and scores, on a batch padded on the left; two ids end a text."""
    ids, mask = padded_prompts
    ours, theirs = twins(seed, pad_token_id=3)
    ids = torch.where(mask == 1, ids, 3)
    settings = {"attention_mask": mask, "max_new_tokens": 12, "eos_token_id": ends_of(ours, ids, mask)} | settings
    expected, result = theirs.generate(ids, **settings, **WANTED), ours.generate(ids, **settings, **WANTED)
    assert torch.equal(result.sequences, expected.sequences)
    torch.testing.assert_close(result.sequences_scores, expected.sequences_scores, atol=2e-5, rtol=1e-6)
    assert torch.equal(ours.generate(ids, **settings), expected.sequences)


@pytest.mark.parametrize("overrides", [{}, {"tie_word_embeddings": True}, {"partial_rotary_factor": 1.0}], ids=str)
def test_equals_transformers_on_other_models(twins, padded_prompts, overrides):
    ids, mask = padded_prompts
    ours, theirs = twins(5, eos_token_id=None, pad_token_id=0, **overrides)
    settings = {"attention_mask": mask, "max_new_tokens": 20, "num_beams": 4, "num_return_sequences": 2}
    assert torch.equal(ours.generate(ids, **settings), theirs.generate(ids, **settings))


def test_drawn_beams_equal_transformers(twins, padded_prompts):
    """The same draws from the same seed: what ends, runs on or is filtered is as there. Filters leave three tokens."""
    ids, mask = padded_prompts
    ours, theirs = twins(pad_token_id=3)
    ids = torch.where(mask == 1, ids, 3)
    settings = {"attention_mask": mask, "max_new_tokens": 10, "num_beams": 2, "do_sample": True, "temperature": 2.0,
                "top_k": 40, "top_p": 0.97, "min_p": 0.001, "eos_token_id": ends_of(ours, ids, mask)}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = theirs.generate(ids, **settings)
    assert torch.equal(ours.generate(ids, seed=3, **settings), expected)


@pytest.mark.parametrize("ends", [None, 9, [9, 11]], ids=str)
def test_filters_leave_a_token_that_ends_nothing(tiny_model, ends):
    """Top-k of 1 leaves one token more than there are ids that end a text, and two where there is none."""
    settings = {"num_beams": 2, "do_sample": True, "top_k": 1, "eos_token_id": ends, "max_new_tokens": 1, "seed": 0}
    step = next(decode_steps(tiny_model(), torch.tensor([[5, 6, 7]]), **settings))
    assert step.scores.isfinite().sum(dim=1).tolist() == [3 if isinstance(ends, list) else 2] * 2


def test_zero_is_a_pad_id(twins, padded_prompts):
    """transformers takes pad id 0 for no pad id and fills with the first eos; we fill with what was asked for."""
    ids, mask = padded_prompts
    ours, theirs = twins()
    ends = ends_of(ours, ids, mask)
    settings = {"attention_mask": mask, "max_new_tokens": 12, "eos_token_id": ends, "num_beams": 3,
                "num_return_sequences": 3, "length_penalty": 0.0}  # fmt: skip
    expected, result = theirs.generate(ids, **settings), ours.generate(ids, **settings)
    filled = result[:, ids.shape[1] :] == 0
    assert filled.any()
    new = expected[:, ids.shape[1] :]
    assert torch.equal(result[:, ids.shape[1] :], new.masked_fill(filled, 0))
    assert (new[filled] == ends[0]).all()


def test_enough_beams_find_the_most_probable_text(tiny_model):
    """27 texts of three tokens from a vocabulary cut to three: 9 beams keep every text of two, so nothing is missed."""
    model, ids, three = tiny_model(eos_token_id=None), torch.tensor([[5, 6, 7]]), [10, 20, 30]

    def only_three(sequences, scores):
        return torch.full_like(scores, -torch.inf).index_copy(1, torch.tensor(three), scores[:, three])

    result = model.generate(
        ids, max_new_tokens=3, num_beams=9, num_return_sequences=9, length_penalty=0.0, logits_processor=[only_three],
        **WANTED,
    )  # fmt: skip
    texts = torch.tensor([[5, 6, 7, *text] for text in itertools.product(three, repeat=3)])
    log_probs = model(texts).logits.log_softmax(dim=-1)[:, 2:-1].gather(2, texts[:, 3:, None]).sum(dim=(1, 2))
    best = log_probs.topk(9)
    assert torch.equal(result.sequences, texts[best.indices])
    torch.testing.assert_close(result.sequences_scores, best.values, atol=2e-5, rtol=0)


def test_rows_do_not_see_each_other_and_the_cache_is_only_a_shortcut(tiny_model, padded_prompts):
    ids, mask = padded_prompts
    model = tiny_model(eos_token_id=None)
    settings = {"max_new_tokens": 10, "num_beams": 3, "num_return_sequences": 2}
    together = model.generate(ids, attention_mask=mask, **settings)
    for row in range(3):
        alone = model.generate(ids[row : row + 1, mask[row].bool()], **settings)
        assert torch.equal(together[2 * row : 2 * row + 2, 7:], alone[:, -10:])
    assert torch.equal(model.generate(ids, attention_mask=mask, use_cache=False, **settings), together)
    embeds = model.get_input_embeddings()(ids).detach()
    for use_cache in (True, False):
        from_embeds = model.generate(inputs_embeds=embeds, attention_mask=mask, use_cache=use_cache, **settings)
        assert torch.equal(from_embeds, together[:, 7:])


def test_the_prompt_is_read_once_for_all_beams(tiny_model):
    model, shapes = tiny_model(eos_token_id=None), []
    model.register_forward_pre_hook(
        lambda module, arguments, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, num_beams=4)
    assert shapes == [(1, 3), (4, 1), (4, 1)]


def test_a_cache_of_the_beginning(tiny_model):
    model, ids, cache = tiny_model(eos_token_id=None), torch.tensor([[5, 6, 7, 8]]), DynamicCache()
    model(ids[:, :3], past_key_values=cache, use_cache=True)
    expected = model.generate(ids, max_new_tokens=6, num_beams=3)
    assert torch.equal(model.generate(ids, max_new_tokens=6, num_beams=3, past_key_values=cache), expected)


def test_stop_strings_end_beams(twins):
    """Ids of one letter each, so that any text can be met."""
    model, ids = twins(eos_token_id=None)[0], torch.tensor([[5, 6, 7]])

    class Letters:
        def decode(self, token_ids, skip_special_tokens=False):
            return "".join(chr(1000 + token_id) for token_id in token_ids)

    free = model.generate(ids, max_new_tokens=8, num_beams=2)[0].tolist()
    stop = Letters().decode(free[4:6])
    result = model.generate(
        ids, max_new_tokens=8, num_beams=2, num_return_sequences=2, stop_strings=stop, tokenizer=Letters(),
        length_penalty=-9.0,
    )  # fmt: skip
    texts = [Letters().decode(row).rstrip(chr(1000)) for row in result.tolist()]
    assert any(text.endswith(stop) for text in texts)
    assert all(stop not in text[:-1] for text in texts)


# Step by step


def test_steps_show_the_running_beams(tiny_model, padded_prompts):
    ids, mask = padded_prompts
    model = tiny_model(eos_token_id=None)
    steps = list(decode_steps(model, ids, attention_mask=mask, max_new_tokens=5, num_beams=3))
    assert [step.is_last for step in steps] == [False] * 4 + [True]
    for count, step in enumerate(steps, 1):
        assert step.sequences.shape == (9, 7 + count)
        assert torch.equal(step.sequences[:, -1], step.token_ids)
        assert step.best.shape == (3, 7 + count)
        log_probs = model(step.sequences, attention_mask=torch.ones(9, 7 + count, dtype=torch.int64)).logits
        if count > 1 and mask[0].all():  # the first prompt has no padding: its rows by a pass over everything
            torch.testing.assert_close(step.logits[:3], log_probs[:3, -2], atol=5e-5, rtol=0)
    assert torch.equal(steps[-1].result, model.generate(ids, attention_mask=mask, max_new_tokens=5, num_beams=3))


def test_stopped_early_the_best_beams_are_the_answer(tiny_model):
    model, ids = tiny_model(eos_token_id=None), torch.tensor([[5, 6, 7]])
    seen, cancel = [], threading.Event()
    cancel.set()

    def two(step):
        seen.append(step)
        return len(seen) == 2

    stopped = model.generate(ids, max_new_tokens=10, num_beams=3, on_token=two)
    assert torch.equal(stopped, model.generate(ids, max_new_tokens=2, num_beams=3))
    assert model.generate(ids, max_new_tokens=10, num_beams=3, cancel=cancel).shape == (1, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping='soon'"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences=3.*num_beams=2"),
    ],
)
def test_what_cannot_be_is_named(tiny_model, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_model().generate(torch.tensor([[5]]), **settings)


def test_more_answers_than_a_processor_allows_are_told(tiny_model):
    def only_two(ids, scores):
        return torch.full_like(scores, -torch.inf).index_copy(1, torch.tensor([5, 6]), scores[:, 5:7])

    with pytest.warns(UserWarning, match="2 of 4 answers have a score of -inf"):
        settings = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 1, "logits_processor": [only_two]}
        texts = tiny_model(eos_token_id=None).generate(torch.tensor([[5, 6, 7]]), **settings)
    assert sorted(texts[:2, -1].tolist()) == [5, 6]
