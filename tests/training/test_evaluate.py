"""The measurements, each beside a slow or a known way of computing it."""

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.training.evaluate import (
    bits_per_byte,
    copying_loss,
    induction_scores,
    repeated_rows,
    xz_bits_per_byte,
)
from persimmon_lab.training.ngram import NGram, pack


def test_bits_per_byte():
    # 100 tokens of ln 256 nats are 800 bits; over 200 bytes that makes 4.
    assert bits_per_byte(math.log(256), 100, 200) == pytest.approx(4.0)


def test_xz_needs_all_bits_for_noise_and_few_for_repetition():
    noise = np.random.default_rng(0).bytes(20000)
    assert 8.0 < xz_bits_per_byte(noise) < 8.1
    assert xz_bits_per_byte(b"again " * 5000) < 0.1


def test_pack():
    assert pack(np.array([1, 2, 3, 4095]), 3).tolist() == [(1 << 24) + (2 << 12) + 3, (2 << 24) + (3 << 12) + 4095]


def kneser_ney(text: list[int], order: int, history: tuple[int, ...], word: int) -> float:
    """Interpolated Kneser-Ney by its definition, with dictionaries."""
    highest = Counter(tuple(text[i : i + order]) for i in range(len(text) - order + 1))
    counts = {order: highest}
    for length in range(order - 1, 0, -1):
        counts[length] = Counter(gram[1:] for gram in counts[length + 1])
    probability = 2.0**-12
    for length in range(1, order + 1):
        table, context = counts[length], history[len(history) - length + 1 :]
        inside = {gram: count for gram, count in table.items() if gram[:-1] == context}
        total = sum(inside.values())
        if total:
            once, twice = (sum(c == n for c in table.values()) for n in (1, 2))
            discount = once / (once + 2 * twice) if once else 0.5
            count = inside.get((*context, word), 0)
            probability = max(count - discount, 0) / total + discount * len(inside) / total * probability
    return probability


def test_ngram_is_kneser_ney():
    generator = np.random.default_rng(1)
    text = np.cumsum(generator.integers(0, 3, 400)) % 11
    probe = np.cumsum(generator.integers(0, 4, 60)) % 13  # some grams and tokens were never seen
    ours = NGram(text, order=3).log2_probabilities(probe)
    expected = [kneser_ney(text.tolist(), 3, tuple(probe[i - 2 : i].tolist()), int(probe[i])) for i in range(2, 60)]
    assert ours == pytest.approx(np.log2(expected), rel=1e-9)


def test_ngram_probabilities_sum_to_one():
    text = np.random.default_rng(2).integers(0, 9, 300)
    model = NGram(text, order=4)
    context = text[50:53]
    total = sum(2 ** model.log2_probabilities(np.array([*context, word]))[0] for word in range(4096))
    assert total == pytest.approx(1.0)


def test_ngram_refuses_tokens_that_do_not_fit():
    with pytest.raises(ValueError, match="4096 does not fit 12 bits"):
        NGram(np.array([1, 4096, 2, 3, 4, 5]))


def test_a_text_without_a_gram_is_refused():
    for tokens in ([], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match=f"a stream of {len(tokens)} tokens has no run of 5"):
            NGram(np.array(tokens, dtype=np.uint16))


def test_repeated_rows_say_everything_twice():
    rows = repeated_rows(100, 10, period=7, rows=3, seed=4)
    assert rows.shape == (3, 14) and rows.min() >= 10
    assert torch.equal(rows[:, :7], rows[:, 7:])
    assert not torch.equal(rows[0], rows[1])


class Copier(nn.Module):
    """Predicts what followed the last earlier copy of the token, and knows nothing of tokens that are new."""

    def forward(self, ids, use_cache) -> SimpleNamespace:
        logits = torch.zeros(*ids.shape, 50)
        for row, tokens in enumerate(ids.tolist()):
            for position, token in enumerate(tokens):
                if token in tokens[:position]:
                    earlier = max(p for p in range(position) if tokens[p] == token)
                    logits[row, position, tokens[earlier + 1]] = 30.0
        return SimpleNamespace(logits=logits)


def test_copying_loss_parts_the_halves():
    first = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:20]
    rows = torch.cat([first, first])[None]
    news, copies = copying_loss(Copier(), rows)
    assert news == pytest.approx(math.log(50), rel=1e-4)
    assert copies == pytest.approx(0.0, abs=1e-4)


def test_induction_score_of_a_head_that_looks_after_the_earlier_copy():
    period = 6
    inductive, uniform = torch.zeros(2, 12, 12), torch.full((2, 12, 12), 1 / 12)
    for query in range(period, 12):
        inductive[:, query, query - period + 1] = 1.0
    pattern = torch.stack([inductive, uniform], dim=1)
    model = nn.Module()
    model.forward = lambda rows, **_: SimpleNamespace(attentions=[pattern])
    scores = induction_scores(model, torch.zeros(2, 12).long())
    assert torch.allclose(scores, torch.tensor([[1.0, 1 / 12]]))


def test_induction_scores_of_a_model_have_a_layer_and_a_head_axis():
    model = PersimmonForCausalLM(PersimmonConfig.tiny(), torch.Generator().manual_seed(0))
    scores = induction_scores(model, repeated_rows(128, 5, period=8, rows=2, seed=0))
    assert scores.shape == (2, 4)
    assert ((scores > 0) & (scores < 0.5)).all()
