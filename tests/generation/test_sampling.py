"""Each filter beside its namesake in transformers on random logits; the statistics beside a second way to count."""

import math

import pytest
import torch
from transformers.generation import logits_process as theirs

from persimmon_lab.generation import GenerationConfig, sampling

PROMPT = torch.tensor([[0, 5, 9, 9, 3], [7, 7, 1, 2, 4]])


def random_logits(seed: int = 0, rows: int = 2, vocab: int = 50) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=range(5))
def logits(request):
    return random_logits(request.param)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 1.0, 2.5])
def test_temperature(logits, temperature):
    expected = theirs.TemperatureLogitsWarper(temperature)(PROMPT, logits)
    assert torch.equal(sampling.apply_temperature(logits, temperature), expected)


@pytest.mark.parametrize("top_k", [1, 2, 10, 50, 400])
def test_top_k(logits, top_k):
    kept = sampling.keep_top_k(logits, top_k)
    assert torch.equal(kept, theirs.TopKLogitsWarper(top_k)(PROMPT, logits))
    assert kept.isfinite().sum(dim=-1).tolist() == [min(top_k, 50)] * 2


def test_top_k_keeps_ties():
    kept = sampling.keep_top_k(torch.tensor([[1.0, 3.0, 2.0, 2.0]]), 2)
    assert kept.isfinite().tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("top_p", [0.0, 0.01, 0.3, 0.5, 0.9, 0.99, 1.0])
def test_top_p(logits, top_p):
    assert torch.equal(sampling.keep_top_p(logits, top_p), theirs.TopPLogitsWarper(top_p)(PROMPT, logits))


@pytest.mark.parametrize(("top_p", "kept"), [(0.45, 1), (0.55, 2), (0.75, 2), (0.85, 3), (0.95, 4), (0.0, 1)])
def test_top_p_keeps_the_token_that_crosses(top_p, kept):
    """Probabilities 0.5, 0.3, 0.12, 0.08, in mixed order: by hand."""
    probabilities = torch.tensor([[0.12, 0.5, 0.08, 0.3]])
    by_rank = torch.tensor([[2, 0, 3, 1]])
    assert torch.equal(sampling.keep_top_p(probabilities.log(), top_p).isfinite(), by_rank < kept)


@pytest.mark.parametrize("min_p", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_min_p(logits, min_p):
    assert torch.equal(sampling.keep_min_p(logits, min_p), theirs.MinPLogitsWarper(min_p)(PROMPT, logits))


def test_min_p_is_relative_to_the_most_probable_token():
    probabilities = torch.tensor([[0.2, 0.11, 0.09, 0.6]])
    assert sampling.keep_min_p(probabilities.log(), 0.3).isfinite().tolist() == [[True, False, False, True]]


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 5.0])
def test_repetition_penalty(logits, penalty):
    expected = theirs.RepetitionPenaltyLogitsProcessor(penalty)(PROMPT, logits)
    assert torch.equal(sampling.apply_repetition_penalty(logits, penalty, PROMPT), expected)


def test_repetition_penalty_does_not_see_padding(logits):
    visible = torch.tensor([[False, True, True, True, True], [False, False, False, True, True]])
    expected = theirs.RepetitionPenaltyLogitsProcessor(1.3, prompt_ignore_length=torch.tensor([1, 3]))(PROMPT, logits)
    assert torch.equal(sampling.apply_repetition_penalty(logits, 1.3, PROMPT, visible), expected)


def test_repetition_penalty_makes_both_signs_less_likely():
    penalised = sampling.apply_repetition_penalty(torch.tensor([[2.0, -2.0, 1.0]]), 2.0, torch.tensor([[0, 1]]))
    assert penalised.tolist() == [[1.0, -4.0, 1.0]]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("seed", range(5))
def test_repeated_ngrams(seed, size):
    """Forty ids of three kinds are full of repeats, and so is a row of one id."""
    ids = torch.randint(0, 3, (4, 40), generator=torch.Generator().manual_seed(seed))
    ids[3] = 7
    logits = random_logits(seed, rows=4)
    expected = theirs.NoRepeatNGramLogitsProcessor(size)(ids, logits)
    result = sampling.forbid_repeated_ngrams(logits, size, ids)
    assert torch.equal(result, expected)
    assert not torch.equal(result, logits)


def test_repeated_ngrams_by_hand():
    """Of pairs, 7 was followed by 8 and by 9; the last token is 7. A text shorter than the run has no repeat."""
    logits = torch.zeros(1, 12)
    removed = sampling.forbid_repeated_ngrams(logits, 2, torch.tensor([[7, 8, 7, 9, 7]])).isinf()
    assert removed.nonzero()[:, 1].tolist() == [8, 9]
    assert sampling.forbid_repeated_ngrams(logits, 3, torch.tensor([[7, 7]])).isfinite().all()
    assert sampling.forbid_repeated_ngrams(logits, 3, torch.tensor([[7, 7, 7]])).isinf().nonzero()[:, 1].tolist() == [7]


@pytest.mark.parametrize("at_least", [2, 5])
def test_filters_leave_as_many_as_beams_need(logits, at_least):
    least = {"min_tokens_to_keep": at_least}
    expected = theirs.TopPLogitsWarper(0.01, **least)(PROMPT, logits)
    assert torch.equal(sampling.keep_top_p(logits, 0.01, at_least), expected)
    assert torch.equal(
        sampling.keep_min_p(logits, 0.99, at_least), theirs.MinPLogitsWarper(0.99, **least)(PROMPT, logits)
    )
    assert torch.equal(
        sampling.shape_distribution(logits, top_k=1, at_least=at_least),
        theirs.TopKLogitsWarper(1, **least)(PROMPT, logits),
    )


def test_scores_are_shaped_in_their_order(logits):
    """Penalty, n-grams, the caller's own, temperature, top-k, top-p, min-p: the order of transformers 5.23."""
    config = GenerationConfig(
        do_sample=True, repetition_penalty=1.3, no_repeat_ngram_size=1, temperature=1.7, top_k=20, top_p=0.9, min_p=0.02
    )

    def own(ids, scores):
        return torch.where(scores.isinf(), 2.0, scores * scores)  # brings back what the n-grams removed

    chain = theirs.LogitsProcessorList(
        [theirs.RepetitionPenaltyLogitsProcessor(1.3), theirs.NoRepeatNGramLogitsProcessor(1), own,
         theirs.TemperatureLogitsWarper(1.7), theirs.TopKLogitsWarper(20), theirs.TopPLogitsWarper(0.9),
         theirs.MinPLogitsWarper(0.02)]
    )  # fmt: skip
    assert torch.equal(sampling.shape_scores(logits, PROMPT, config, processors=[own]), chain(PROMPT, logits))
    greedy = sampling.shape_scores(logits, PROMPT, config.replace(do_sample=False), processors=[own])
    assert torch.equal(greedy, theirs.LogitsProcessorList(list(chain)[:3])(PROMPT, logits))


@pytest.mark.parametrize(("top_k", "top_p"), [(10, None), (None, 0.8), (1, None), (None, 0.01)])
def test_adepts_rule(logits, top_k, top_p):
    """Top-k or top-p, never both, after the temperature. Of top-p the mask is shifted by one, so that the token that
    crosses stays."""
    scaled = logits / 0.7
    if top_k is not None:
        expected = scaled.masked_fill(scaled < scaled.topk(top_k).values[:, -1:], -torch.inf)
    else:
        ordered, order = scaled.sort(descending=True)
        above = ordered.softmax(dim=-1).cumsum(dim=-1) > top_p
        above = torch.cat([torch.zeros_like(above[:, :1]), above[:, :-1]], dim=-1)
        expected = scaled.masked_fill(above.gather(1, order.argsort(dim=-1)), -torch.inf)
    assert torch.equal(sampling.shape_distribution(logits, 0.7, top_k=top_k, top_p=top_p), expected)


@pytest.mark.parametrize("top_k", [None, 0, 20])
@pytest.mark.parametrize("top_p", [None, 0.8])
@pytest.mark.parametrize("min_p", [None, 0.05])
def test_composition_in_their_order(logits, top_k, top_p, min_p):
    chain = [theirs.TemperatureLogitsWarper(1.7)]
    chain += [theirs.TopKLogitsWarper(top_k)] if top_k else []
    chain += [theirs.TopPLogitsWarper(top_p)] if top_p is not None else []
    chain += [theirs.MinPLogitsWarper(min_p)] if min_p is not None else []
    expected = theirs.LogitsProcessorList(chain)(PROMPT, logits)
    assert torch.equal(sampling.shape_distribution(logits, 1.7, top_k, top_p, min_p), expected)


def test_nothing_is_cut_by_default(logits):
    assert torch.equal(sampling.shape_distribution(logits), logits)


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        (sampling.apply_temperature, 0.0, "temperature=0.0.*greedy"),
        (sampling.apply_temperature, -1.0, "temperature=-1.0"),
        (sampling.keep_top_k, -3, "top_k=-3"),
        (sampling.keep_top_p, 1.5, "top_p=1.5"),
        (sampling.keep_min_p, -0.1, "min_p=-0.1"),
    ],
)
def test_impossible_settings_are_named(function, value, message):
    with pytest.raises(ValueError, match=message):
        function(random_logits(), value)


def test_samples_follow_the_distribution():
    """20,000 draws: frequencies within four standard deviations, and never a removed token."""
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])
    logits = probabilities.log().expand(20_000, 4)
    drawn = sampling.sample(logits, torch.Generator().manual_seed(0))
    frequencies = torch.bincount(drawn, minlength=4) / 20_000
    deviation = (probabilities * (1 - probabilities) / 20_000).sqrt()
    assert ((frequencies - probabilities).abs() <= 4 * deviation).all()


def test_samples_repeat_with_their_generator():
    first = sampling.sample(random_logits(rows=100), torch.Generator().manual_seed(7))
    torch.rand(3)  # the global state is somewhere else now
    assert torch.equal(first, sampling.sample(random_logits(rows=100), torch.Generator().manual_seed(7)))


def test_choice_by_hand():
    choice = sampling.describe_choice(torch.tensor([0.25, 0.5, 0.125, 0.125]).log(), token_id=0, alternatives=2)
    assert (choice.token_id, choice.rank) == (0, 2)
    assert choice.probability == pytest.approx(0.25)
    assert choice.entropy_bits == pytest.approx(1.75)
    assert [token_id for token_id, _ in choice.alternatives] == [1, 0]
    assert [probability for _, probability in choice.alternatives] == pytest.approx([0.5, 0.25])


def test_choice_beside_torch(logits):
    row = logits[0]
    choice = sampling.describe_choice(row, token_id=11)
    distribution = torch.distributions.Categorical(logits=row)
    assert choice.probability == pytest.approx(float(distribution.log_prob(torch.tensor(11)).exp()), rel=1e-5)
    assert choice.entropy_bits == pytest.approx(float(distribution.entropy()) / math.log(2), rel=1e-5)
    assert choice.rank == row.argsort(descending=True).tolist().index(11) + 1
    assert [token_id for token_id, _ in choice.alternatives] == row.argsort(descending=True)[:10].tolist()


def test_choice_after_filters_has_finite_entropy():
    choice = sampling.describe_choice(sampling.keep_top_k(random_logits()[0], 1), token_id=3)
    assert choice.entropy_bits == 0.0
