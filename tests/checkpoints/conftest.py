"""Small random models on disk, for the tests of loading and saving."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM

# Far from every default, so that a field lost on the way shows in the logits.
FIELDS = {"rope_theta": 700.0, "partial_rotary_factor": 0.25, "layer_norm_eps": 1e-3, "hidden_act": "gelu",
          "bos_token_id": 5, "eos_token_id": 6, "pad_token_id": 0, "num_labels": 3}  # fmt: skip


def build(architecture=PersimmonForCausalLM, dtype: torch.dtype = torch.float32, seed: int = 0, **fields):
    """A model whose every tensor is random, norms and biases included."""
    model = architecture(PersimmonConfig.tiny(**FIELDS | fields)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.to(dtype)


@pytest.fixture
def saved(tmp_path) -> Callable[..., Path]:
    """A function that builds a causal LM and saves it; returns the folder."""

    def save(max_shard_size="5GB", **options) -> Path:
        build(**options).save_pretrained(tmp_path / "saved", max_shard_size=max_shard_size)
        return tmp_path / "saved"

    return save
