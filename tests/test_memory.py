"""The budget is counted twice: by formula and by building the model on the meta device."""

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.memory import cache_bytes, memory_plan, parameter_counts, streamed_bytes


@pytest.mark.parametrize(
    "config",
    [
        PersimmonConfig.persimmon_8b(),
        PersimmonConfig.tiny(),
        PersimmonConfig.tiny(tie_word_embeddings=True),
        PersimmonConfig.tiny(qk_layernorm=False, intermediate_size=100),
    ],
    ids=["8b", "tiny", "tied", "no qk-layernorm"],
)
def test_parameter_counts_equal_the_model(config):
    with torch.device("meta"):
        model = PersimmonForCausalLM(config)
    counts = parameter_counts(config)
    assert sum(counts.values()) == model.num_parameters()
    marks = {
        "norms": "norm",
        "attention": "self_attn",
        "mlp": "mlp",
        "embed_tokens": "embed_tokens",
        "lm_head": "lm_head",
    }
    by_name = dict.fromkeys(counts, 0)
    for name, parameter in model.named_parameters():
        part = next(part for part, mark in marks.items() if mark in name)
        by_name[part] += parameter.numel()
    assert counts == by_name


def test_8b_figures():
    """9.40 B parameters, 589,824 bytes of cache and 16.65 GB streamed per token in bfloat16."""
    config = PersimmonConfig.persimmon_8b()
    assert sum(parameter_counts(config).values()) == 9_397_175_296
    assert cache_bytes(config, torch.bfloat16, positions=1) == 589_824
    assert streamed_bytes(config, torch.bfloat16) == pytest.approx(16.65e9, rel=1e-3)
    plan = memory_plan(config, torch.bfloat16, batch=2)
    assert plan.cache == 2 * 16384 * 589_824
    assert plan.total == plan.weights + plan.cache


def test_cache_bytes_equal_a_real_cache():
    config = PersimmonConfig.tiny()
    past = PersimmonForCausalLM(config)(torch.zeros(3, 7, dtype=torch.long)).past_key_values
    held = sum(tensor.untyped_storage().nbytes() for layer in past for tensor in layer)  # of what they are views of
    assert cache_bytes(config, torch.float32, positions=7, batch=3) == held
