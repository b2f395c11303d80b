"""Log-likelihoods of choices equal transformers' on the same weights in any batch, and what is picked by them."""

import math

import pytest
import torch
import transformers

from persimmon_lab import load_mini
from persimmon_lab.evaluation import TASKS, Likelihood, likelihoods, pick
from persimmon_lab.evaluation.five_gram import FiveGram, lessons
from persimmon_lab.evaluation.likelihood import choice_likelihoods, row_of
from persimmon_lab.mini import MINI
from persimmon_lab.tokenizer import PersimmonTokenizer


@pytest.fixture(scope="module")
def mini():
    return load_mini()


@pytest.fixture(scope="module")
def theirs():
    return transformers.PersimmonForCausalLM.from_pretrained(MINI, dtype=torch.float32).eval()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_they_are_those_of_transformers(mini, theirs, batch_size):
    model, tokenizer = mini
    items = TASKS["words"].items(3, 0) + TASKS["brackets"].items(2, 0)
    ours = choice_likelihoods(model, tokenizer, items, batch_size)
    for item, choices in zip(items, ours, strict=True):
        for text, choice in zip(item.choices, choices, strict=True):
            before, ids = tokenizer.encode(item.prompt), tokenizer.encode(item.prompt + text)
            shared = next((i for i, (a, b) in enumerate(zip(before, ids)) if a != b), len(before))
            with torch.no_grad():
                logits = theirs(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
            expected = sum(float(logits[i - 1, ids[i]]) for i in range(shared, len(ids)))
            assert choice.log_probability == pytest.approx(expected, rel=1e-5)
            assert (choice.tokens, choice.bytes) == (len(ids) - shared, len(text.encode()))


def test_a_piece_across_the_border_belongs_to_the_continuation(mini):
    _, tokenizer = mini
    whole, before = tokenizer.encode("Hello there"), tokenizer.encode("Hel")
    ids, shared = row_of(tokenizer, "Hel", "lo there")
    assert ids == whole
    assert shared == sum(1 for a, b in zip(before, whole) if a == b) < len(before), "they are cut otherwise"


def test_a_first_token_is_predicted_from_the_beginning_of_a_text(mini):
    model, _ = mini
    plain = PersimmonTokenizer.from_pretrained(MINI, add_bos_token=False)
    whole = plain.encode("Hello")
    assert len(whole) == 1 and plain.encode("H")[0] != whole[0], "one piece, which the prompt alone is not part of"
    ids, shared = row_of(plain, "H", "ello")
    assert (ids, shared) == ([plain.bos_token_id, *whole], 1)
    [alone], [empty] = (likelihoods(model, plain, [pair]) for pair in (("H", "ello"), ("", "Hello")))
    assert alone.log_probability == empty.log_probability < -1


def test_what_cannot_be_scored_is_refused(mini):
    model, tokenizer = mini
    with pytest.raises(ValueError, match="an empty continuation of 'What'"):
        likelihoods(model, tokenizer, [("What", "")])
    limit = model.config.context_limit
    with pytest.raises(ValueError, match=f"tokens, and the model has {limit} positions"):
        likelihoods(model, tokenizer, [("word " * limit, "more")])


def test_normalisations_prefer_short_or_long():
    short, long = Likelihood(-4.0, 1, 2), Likelihood(-6.0, 3, 12)
    assert [pick([short, long], by) for by in ("plain", "per byte", "per token")] == [0, 1, 1]
    assert pick([Likelihood(-4.0, 1, 8), Likelihood(-6.0, 3, 6)], "per byte") == 0
    assert pick([Likelihood(-4.0, 1, 8), Likelihood(-6.0, 3, 6)], "per token") == 1


def test_nothing_is_picked_by_who_knows_nothing():
    assert pick([Likelihood(-4.0, 1, 2), Likelihood(-4.0, 1, 2)], "plain") is None
    assert pick([Likelihood(math.nan, 1, 2), Likelihood(-4.0, 1, 2)], "plain") is None
    assert pick([], "plain") is None


def test_a_five_gram_says_what_it_has_read_and_sums_to_one(mini):
    _, tokenizer = mini
    gram = FiveGram([*lessons(60), "The moon is made of cheese."] * 2, tokenizer)
    assert gram.continuation("The moon is made of", 4).startswith(" cheese.")
    vocabulary = torch.arange(tokenizer.vocab_size)
    ids = tokenizer.encode("The moon is made of", add_special_tokens=False)
    rows = [[*gram.end, *ids, int(index)] for index in vocabulary]
    total = sum(2.0 ** float(gram.counts.log2_probabilities(torch.tensor(row).numpy())[-1]) for row in rows)
    assert total == pytest.approx(1, abs=1e-3)
    cheese, stone = gram.likelihood("The moon is made of", " cheese"), gram.likelihood("The moon is made of", " stone")
    assert cheese.log_probability > stone.log_probability
    assert cheese.bytes == 7


def test_the_side_of_the_padding_is_not_the_tokenizers(monkeypatch):
    model, tokenizer = load_mini()
    pairs = [("The king", " said"), ("The king said to the queen that he", " was a very good man indeed")]
    right = likelihoods(model, tokenizer, pairs)
    monkeypatch.setattr(tokenizer, "padding_side", "right")
    assert likelihoods(model, tokenizer, pairs) == right
