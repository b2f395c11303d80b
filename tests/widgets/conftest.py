"""A small model with opinions, the tests' tokenizer, and a model that writes what it is told to."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.tokenizer import PersimmonTokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return PersimmonTokenizer.from_pretrained(Path(__file__).parents[1] / "fixtures" / "tokenizer")


@pytest.fixture
def model(tokenizer):
    """Random weights, and logits far enough apart that sampling and its filters matter."""
    config = PersimmonConfig.tiny(
        vocab_size=tokenizer.vocab_size, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id
    )
    model = PersimmonForCausalLM(config, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        model.lm_head.weight *= 20
    return model


class Scripted:
    """Stands for a model: gives nearly all probability to one id after another, then to eos."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, tokenizer, script: list[int]):
        self.script, self.steps, self.vocab_size = [*script, tokenizer.eos_token_id], 0, tokenizer.vocab_size
        self.config = PersimmonConfig.tiny(
            vocab_size=tokenizer.vocab_size,
            max_position_embeddings=256,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    def get_input_embeddings(self):
        return torch.nn.Embedding(1, 1)

    def __call__(self, **inputs):
        logits = torch.zeros(1, 1, self.vocab_size)
        logits[0, 0, self.script[self.steps % len(self.script)]] = 20.0
        self.steps += 1
        return SimpleNamespace(logits=logits, past_key_values=None)


@pytest.fixture
def scripted(tokenizer):
    return lambda script: Scripted(tokenizer, script)
