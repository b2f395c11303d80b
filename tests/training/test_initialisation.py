"""Where training starts: reading, copying and writing agree."""

import pytest
import torch
from einops import rearrange

from persimmon_lab.attention import split_heads
from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.training.initialisation import start_copying


@pytest.fixture
def model() -> PersimmonForCausalLM:
    generator = torch.Generator().manual_seed(0)
    model = PersimmonForCausalLM(PersimmonConfig.tiny(hidden_size=128), generator)
    start_copying(model, generator, embedding_std=0.5, head_std=0.08, copying=0.25)
    return model


def test_the_head_is_the_embedding_turned(model):
    embedding, head = model.get_input_embeddings().weight, model.lm_head.weight
    assert embedding.std().item() == pytest.approx(0.5, rel=0.05)
    torch.testing.assert_close(head @ head.T, 0.16**2 * embedding @ embedding.T, atol=1e-4, rtol=1e-4)
    assert (embedding @ head.T).argmax(-1).ne(torch.arange(len(head))).float().mean() > 0.9


@pytest.mark.parametrize("layer", [0, 1])
def test_what_is_attended_to_is_written(model, layer):
    """Through the real layout of the fused projection, whichever way the heads are cut."""
    embedding, attention = model.get_input_embeddings().weight, model.model.layers[layer].self_attn
    fused = torch.nn.functional.linear(rearrange(embedding, "piece hidden -> 1 piece hidden"),
                                       attention.query_key_value.weight)  # fmt: skip
    _, _, value = split_heads(fused, attention.head_dim)
    written = attention.dense.weight @ rearrange(value, "1 head piece channel -> (head channel) piece")
    assert (model.lm_head.weight @ written).argmax(0).equal(torch.arange(len(embedding)))
    torch.testing.assert_close(written.norm(dim=0), 0.25 * embedding.norm(dim=-1))
