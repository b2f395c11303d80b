"""persimmon-mini rebuilt at a small size: every part of the real thing, from archives to a card, in seconds."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from persimmon_lab import PersimmonForCausalLM, PersimmonTokenizer
from persimmon_lab.training import card, mini
from persimmon_lab.training.batches import batch_at
from persimmon_lab.training.conversation import OPENINGS, answers
from persimmon_lab.training.corpus import prepare
from persimmon_lab.training.mini import RECIPE, mini_config, row_sources, train_mini
from persimmon_lab.training.recipe import check_fit
from persimmon_lab.training.skills import SKILLS
from persimmon_lab.training.trainer import read_metrics


@pytest.fixture
def at_a_small_size(small: None, monkeypatch: pytest.MonkeyPatch):
    """A hundredth of the tokenizer's text, a tenth of its pieces, a quarter of the layers, a few short steps."""
    monkeypatch.setattr(mini, "prepare", partial(prepare, vocabulary=420, size=0.01))
    monkeypatch.setattr(mini, "RECIPE", replace(RECIPE, tokens=256, lengths=((0.0, 64), (0.7, 128))))
    monkeypatch.setattr(mini, "mini_config", lambda corpus: replace(mini_config(corpus), num_hidden_layers=2))
    monkeypatch.setattr(card, "SKILL_ITEMS", 2)
    monkeypatch.setattr(card, "PERIODS", (16,))
    monkeypatch.setattr(card, "PROMPTS", card.PROMPTS[:1])
    monkeypatch.setattr(card, "answers", partial(answers, openings=OPENINGS[:2]))


def test_the_mini_is_made_from_nothing_and_goes_on(at_a_small_size: None, tmp_path: Path):
    work, out = tmp_path / "work", tmp_path / "out"
    train_mini(work, steps=2, progress=False)
    train_mini(work, out, steps=4, dtype=torch.float32, progress=False)
    assert [entry["step"] for entry in read_metrics(work / "run" / "metrics.jsonl") if "held_out" in entry] == [2, 4]
    model = PersimmonForCausalLM.from_pretrained(out, torch_dtype="auto")
    tokenizer = PersimmonTokenizer.from_pretrained(out)
    assert model.dtype == torch.bfloat16 and model.config.vocab_size == len(tokenizer) == 420
    report = json.loads((work / "report.json").read_text())
    assert report["tokens_seen"] == 4 * 256
    assert set(report["held_out"]) == {"chat", "code", "questions", "scripture", "verse"}
    assert set(report["skills"]) == set(SKILLS)
    text = (out / "MODEL_CARD.md").read_text()
    assert "in 4 steps" in text and all(f"| {name} |" in text for name in (*RECIPE.weights, *SKILLS))


def test_every_domain_of_the_recipe_has_rows(at_a_small_size: None, tmp_path: Path):
    corpus = mini.prepare(tmp_path)
    sources = row_sources(corpus, RECIPE)
    check_fit(RECIPE, mini_config(corpus), sources)
    for name in RECIPE.weights:
        tokens, following = batch_at(0, seed=1, sources=sources, weights={name: 1.0}, rows=4, length=60)
        assert tokens.shape == following.shape == (4, 60) and tokens.max() < 420
