"""Pairs of one tiny random model in both implementations, so that what differs can only be the decoding."""

import pytest
import torch
import transformers

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM

# Wide enough that the most probable token is clear, and that greedy decoding does not settle into one token.
SPREAD = {"initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.fixture
def tiny_model():
    """tiny_model(seed=0, **config) -> our model, on random weights."""

    def make(seed: int = 0, **overrides) -> PersimmonForCausalLM:
        config = PersimmonConfig.tiny(**SPREAD | overrides)
        return PersimmonForCausalLM(config, torch.Generator().manual_seed(seed)).eval()

    return make


@pytest.fixture
def twins(tiny_model):
    """twins(seed=0, **config) -> (our model, transformers' model) with the same weights."""

    def make(seed: int = 0, **overrides):
        ours = tiny_model(seed, **overrides)
        values = ours.config.to_dict()
        rope = {"rope_theta": ours.config.rope_theta, "partial_rotary_factor": ours.config.partial_rotary_factor}
        scaling = values.pop("rope_scaling", None) or {"type": "default"}
        rope |= {"rope_type": scaling["type"]} | ({"factor": scaling["factor"]} if "factor" in scaling else {})
        theirs = transformers.PersimmonForCausalLM(transformers.PersimmonConfig(**values | {"rope_parameters": rope}))
        theirs.load_state_dict(ours.state_dict())
        return ours, theirs.eval()

    return make


@pytest.fixture
def padded_prompts():
    """Three prompts of 7, 4 and 6 tokens, padded on the left with 0: (ids, mask)."""
    ids = torch.randint(3, 128, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    mask[2, :1] = 0
    return ids * mask, mask
