"""Rows that pack several documents: position ids that begin again at 0, and what is no such row."""

import pytest
import torch
import transformers

from persimmon_lab import PersimmonForCausalLM, PersimmonForSequenceClassification, PersimmonModel
from persimmon_lab.inputs import documents_of
from tests.models import ids, tiny
from tests.parity.cases import fill
from tests.tolerances import TOLERANCE

PACKED = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 4, 0, 1, 2, 3]])


def pieces(positions: torch.Tensor, row: int):
    """Where each document of a row begins and ends."""
    starts = [*(positions[row] == 0).nonzero().flatten().tolist(), positions.shape[1]]
    return zip(starts, starts[1:], strict=False)


def alone(model, token_ids, positions):
    """The logits of every document read by itself."""
    rows = [
        torch.cat([model(token_ids[row : row + 1, a:b], use_cache=False).logits[0] for a, b in pieces(positions, row)])
        for row in range(len(token_ids))
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_documents_of_a_row_do_not_see_each_other(implementation):
    model = tiny(attn_implementation=implementation)
    packed = model(ids(), position_ids=PACKED, use_cache=False).logits
    wanted = alone(model, ids(), PACKED)
    assert (packed - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    turned_only = model(ids(), attention_mask=torch.ones(2, 9).long(), position_ids=PACKED, use_cache=False).logits
    assert (turned_only - wanted).abs().max() > 0.1, "a mask says itself what is seen"


def test_as_the_peer_reads_them():
    model = tiny()
    peer = fill(transformers.PersimmonForCausalLM(transformers.PersimmonConfig(**tiny_settings(model)))).eval()
    peer.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        ours = model(ids(), position_ids=PACKED, use_cache=False).logits
        theirs = peer(ids(), position_ids=PACKED, use_cache=False).logits
    assert (ours - theirs).abs().max() < TOLERANCE[torch.float32]


def tiny_settings(model):
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "max_position_embeddings", "layer_norm_eps", "qk_layernorm", "pad_token_id", "bos_token_id", "eos_token_id",
    )  # fmt: skip
    settings = {name: getattr(model.config, name) for name in names}
    rope = {"rope_type": "default", "rope_theta": model.config.rope_theta, "partial_rotary_factor": 0.5}
    return settings | {"rope_parameters": rope, "hidden_act": "relu2"}


@pytest.mark.parametrize(
    "positions",
    [list(range(8, -1, -1)), [0, 0, 1, 1, 2, 2, 3, 3, 4], list(range(3, 12)), [3, 4, 5, 0, 1, 2, 3, 4, 5], [0] * 9,
     [0, 1, 2, 0, 1, 2, 4, 0, 1]],
    ids=["reversed", "repeated", "shifted", "begun late", "zeros", "with a gap"],
)  # fmt: skip
def test_any_other_positions_hide_nothing(positions):
    model, positions = tiny(), torch.tensor([positions])
    everything = torch.ones(2, 9, dtype=torch.long)
    seen = model(ids(), position_ids=positions, use_cache=False).logits
    assert torch.equal(seen, model(ids(), attention_mask=everything, position_ids=positions, use_cache=False).logits)


def test_a_cache_and_a_past_hide_nothing():
    model = tiny()
    kept = model(ids(), position_ids=PACKED, use_cache=True)
    masked = model(ids(), attention_mask=torch.ones(2, 9).long(), position_ids=PACKED, use_cache=True)
    assert torch.equal(kept.logits, masked.logits)
    past = kept.past_key_values
    after = model(ids(), position_ids=PACKED, past_key_values=past, use_cache=False).logits
    everything = torch.ones(2, 18).long()
    plain = model(ids(), attention_mask=everything, position_ids=PACKED, past_key_values=past, use_cache=False).logits
    assert torch.equal(after, plain)


def test_rows_decide_by_themselves():
    model = tiny()
    mixed = torch.stack([PACKED[0], torch.arange(9)])
    logits = model(ids(), position_ids=mixed, use_cache=False).logits
    assert (logits[0] - alone(model, ids(), PACKED)[0]).abs().max() < 1e-5
    assert (logits[1] - model(ids()).logits[1]).abs().max() < 1e-5
    assert documents_of(mixed).tolist() == [[0, 0, 0, 1, 1, 1, 1, 2, 2], [0] * 9]
    assert documents_of(torch.arange(9)[None]) is None


@pytest.mark.parametrize("head", [PersimmonModel, PersimmonForCausalLM, PersimmonForSequenceClassification])
def test_gradients_stay_within_a_document(head):
    model = tiny(head, pad_token_id=None)
    embeds = model.get_input_embeddings()(ids(1)).detach().requires_grad_()
    output = model(inputs_embeds=embeds, position_ids=PACKED[:1], use_cache=False)[0]
    (output if output.ndim == 2 else output[:, -1]).sum().backward()
    assert embeds.grad[0, :7].abs().max() == 0
    assert embeds.grad[0, 7:].abs().min() > 0
