"""Megatron's names are ours in another spelling, and its partition is the one that its arithmetic needs."""

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.adept.tensor_names import gather, our_name, shared_dimension, their_name
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import InMemory

MODEL = PersimmonForCausalLM(PersimmonConfig.tiny())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("language_model.embedding.word_embeddings.weight", "model.embed_tokens.weight"),
        ("language_model.word_embeddings.weight", "model.embed_tokens.weight"),
        ("word_embeddings_for_head.weight", "lm_head.weight"),
        ("language_model.encoder.final_layernorm.bias", "model.final_layernorm.bias"),
        ("language_model.transformer.final_layernorm.bias", "model.final_layernorm.bias"),
        ("language_model.encoder.layers.0.self_attention.dense.bias", "model.layers.30.self_attn.dense.bias"),
        ("language_model.transformer.layers.12.attention.dense.bias", "model.layers.42.self_attn.dense.bias"),
        ("language_model.encoder.layers.1.mlp.dense_4h_to_h.weight", "model.layers.31.mlp.dense_4h_to_h.weight"),
        ("language_model.encoder.layers.1.input_layernorm.weight", "model.layers.31.input_layernorm.weight"),
        (
            "language_model.encoder.layers.1.self_attention.q_layernorm.layernorms.2.bias",
            "model.layers.31.self_attn.q_layernorm.layernorms.2.bias",
        ),
        ("language_model.embedding.position_embeddings.weight", "model.position_embeddings.weight"),
        ("language_model.pooler.dense.weight", "model.pooler.dense.weight"),
    ],
)
def test_names(theirs, ours):
    assert our_name(theirs, first_layer=30) == ours


def test_names_there_and_back():
    assert [our_name(".".join(their_name(name))) for name in MODEL.state_dict()] == list(MODEL.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_compute_together_what_one_would(ranks):
    """Megatron's block in tensor parallel: every rank its own heads and neurons, their outputs summed.

    What a rank holds is cut along `shared_dimension`; any other cut has shapes or numbers that do not add up.
    """
    layer = MODEL.model.layers[0].double()
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(tensor.shape, dtype=torch.float64, generator=generator)
        for name, tensor in layer.state_dict().items()
    }
    layer.load_state_dict(weights)

    def held_by(rank: int) -> dict[str, torch.Tensor]:
        cuts = {name: shared_dimension(f"model.layers.0.{name}") for name in weights}
        return {n: w if cuts[n] is None else w.chunk(ranks, cuts[n])[rank] for n, w in weights.items()}

    x = torch.randn(1, 5, 64, dtype=torch.float64, generator=generator)
    attended = hidden = 0
    for rank in range(ranks):
        held = held_by(rank)
        part = type(layer.self_attn)(PersimmonConfig.tiny(), 0).double()
        part.query_key_value = torch.nn.Linear(64, 3 * 64 // ranks).double()
        part.dense = torch.nn.Linear(64 // ranks, 64, bias=False).double()
        own = {n.removeprefix("self_attn."): w for n, w in held.items() if n.startswith("self_attn.")}
        bias = own.pop("dense.bias")
        part.load_state_dict(own)
        tables = torch.ones(1, 5, 8, dtype=torch.float64), torch.zeros(1, 5, 8, dtype=torch.float64)
        attended = attended + part(x, *tables, None)[0]
        neurons = F.linear(x, held["mlp.dense_h_to_4h.weight"], held["mlp.dense_h_to_4h.bias"])
        hidden = hidden + F.linear(neurons.relu() ** 2, held["mlp.dense_4h_to_h.weight"])
    torch.testing.assert_close(attended + bias, layer.self_attn(x, *tables, None)[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(hidden + held["mlp.dense_4h_to_h.bias"], layer.mlp(x), rtol=1e-11, atol=1e-11)


def test_vocabularies_are_shared_out_by_rows():
    assert shared_dimension("model.embed_tokens.weight") == shared_dimension("lm_head.weight") == 0


def stage(*numbers: int, last: bool = False) -> dict:
    """A stage whose layers have one tensor each, which holds their number; the last one also has the final norm."""
    encoder = {f"layers.{index}.mlp.dense_4h_to_h.bias": vector(number) for index, number in enumerate(numbers)}
    return {"language_model": {"encoder": encoder | ({"final_layernorm.bias": vector(100)} if last else {})}}


def vector(number: float) -> InMemory:
    return InMemory(torch.tensor([float(number)]))


def numbered(gathered) -> dict[str, list[float]]:
    return {name: [part.tensor.item() for part in parts] for name, parts in gathered.items()}


def layers_of(count: int) -> dict[str, list[float]]:
    return {f"model.layers.{index}.mlp.dense_4h_to_h.bias": [index] for index in range(count)}


def test_stages_follow_each_other():
    archives = {(1, 0): {"model": stage(3)}, (0, 0): {"model": stage(0, 1, 2)}, (2, 0): {"model": stage(4, 5)}}
    assert numbered(gather(archives)) == layers_of(6)


def test_interleaved_stages_take_turns():
    """8 layers, 2 stages of 2 pieces of 2 layers: stage 0 has [0, 1] and [4, 5]. Source: adept-inference."""
    archives = {
        (0, 0): {"model0": stage(0, 1), "model1": stage(4, 5)},
        (1, 0): {"model0": stage(2, 3), "model1": stage(6, 7)},
    }
    assert numbered(gather(archives)) == layers_of(8)


def test_many_pieces_go_by_number():
    archives = {(0, 0): {f"model{number}": stage(number) for number in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9, 11)}}
    assert numbered(gather(archives)) == layers_of(12)


def test_a_stage_may_have_no_layers():
    archives = {(0, 0): {"model": {"language_model": {"embedding": {"word_embeddings": {"weight": vector(7)}}}}},
                (1, 0): {"model": stage(0, 1)}}  # fmt: skip
    assert numbered(gather(archives)) == {"model.embed_tokens.weight": [7]} | layers_of(2)


def test_ranks_are_in_order_and_other_entries_are_left():
    archives = {(0, rank): {"optimizer": {"state": vector(9)}, "model": stage(rank), "iteration": 3} for rank in (1, 0)}
    assert numbered(gather(archives)) == {"model.layers.0.mlp.dense_4h_to_h.bias": [0, 1]}


@pytest.mark.parametrize(
    ("archives", "message"),
    [
        ({(0, 0): {"args": {}, "iteration": 3}}, "stage 0, tensor rank 0 holds no model, but args, iteration"),
        ({(0, 0): {"model": vector(0)}}, "stage 0, tensor rank 0 holds no model, but model"),
        (
            {(0, 0): {"model": stage(0)}, (1, 0): {"model0": stage(0), "model1": stage(0)}},
            "different numbers of pieces",
        ),
        (
            {(0, 0): {"model": stage(0)}, (0, 1): {"model": stage(0, 1)}},
            "ranks 0 and 1 of pipeline stage 0 hold different tensors: .*layers.1.mlp.dense_4h_to_h.bias",
        ),
        (
            {(0, 0): {"model": stage(0, last=True)}, (1, 0): {"model": stage(1, last=True)}},
            "holds model.final_layernorm.bias twice, the second time in stage 1",
        ),
    ],
    ids=["no model", "no dictionary", "pieces", "ranks differ", "twice"],
)
def test_what_is_no_model(archives, message):
    with pytest.raises(CheckpointError, match=message):
        gather(archives)
