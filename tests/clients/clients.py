"""What the tests of this folder share: the shipped model, once loaded, and texts for it."""

import copy
from functools import cache

import torch
from torch import Tensor

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.mini import MINI, load_mini
from persimmon_lab.tokenizer import PersimmonTokenizer

TEXTS = (
    "Shall I compare thee to a summer's day?",
    "human: What is two plus three?\n\nadept: Five.",
    "Once upon a time there was a fox",
    "The north wind and the sun",
)


@cache
def _loaded() -> tuple[PersimmonForCausalLM, PersimmonTokenizer]:
    return load_mini()


def mini(layers: int | None = None) -> PersimmonForCausalLM:
    """persimmon-mini in float32, a copy that a test may change; only its first `layers`, where time counts."""
    model = copy.deepcopy(_loaded()[0])
    if layers is not None:
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
    return model


def tokenizer() -> PersimmonTokenizer:
    return PersimmonTokenizer.from_pretrained(MINI)


def rows(count: int = 8, length: int = 8) -> Tensor:
    """Ids of ordinary pieces, (batch, position), the same on every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(300, 3000, (count, length), generator=generator)


def prompt() -> Tensor:
    """One row of ids, (1, position)."""
    return tokenizer()(TEXTS[0], return_tensors="pt").input_ids
