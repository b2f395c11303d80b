"""Verifying accepts what a conversion writes and nothing else."""

import json
from pathlib import Path

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file

from persimmon_lab import PersimmonForCausalLM
from persimmon_lab.adept.convert import convert
from persimmon_lab.adept.open_release import open_release
from persimmon_lab.adept.verify import logits, verify
from persimmon_lab.checkpoints.errors import CheckpointError
from tests.adept.conversions import VARIANTS, release, stored

IDS = torch.arange(10).unsqueeze(0)


@pytest.mark.parametrize("variant", ["both", "tied across stages", "no qk-layernorm", "float16"])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_a_conversion_is_what_it_should_be(tmp_path, variant, dtype):
    release(tmp_path / "release", **VARIANTS[variant])
    counts = []
    converted = convert(tmp_path / "release", tmp_path / "out", dtype=dtype, max_shard_size="40KB")
    verify(converted, tmp_path / "out", counts.append)
    assert sum(counts) == converted.nbytes


def edit(folder: Path, change):
    """Change the tensors of a checkpoint, without the checksums that would tell."""
    tensors = stored(folder)
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def swap_query_and_key(tensors):
    """As a converter would that takes (head three channel) for (three head channel): the shape is the same."""
    weight = tensors["model.layers.1.self_attn.query_key_value.weight"]
    weight.copy_(rearrange(weight, "(head three channel) hidden -> (three head channel) hidden", head=4, three=3))


def flip_the_last_bit(tensors):
    tensors["model.layers.2.mlp.dense_4h_to_h.weight"].view(torch.int16)[-1, -1] ^= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (swap_query_and_key, "model.layers.1.self_attn.query_key_value.weight in .* is not what .* holds"),
        (flip_the_last_bit, "model.layers.2.mlp.dense_4h_to_h.weight in .* is not what .* holds"),
        (lambda t: t.update({"lm_head.weight": t["lm_head.weight"].float()}), "lm_head.weight in .* is not what"),
        (lambda t: t.pop("model.final_layernorm.bias"), "other tensors than .*: model.final_layernorm.bias"),
        (lambda t: t.update({"score.weight": torch.ones(2, 32)}), "other tensors than .*: score.weight"),
    ],
)
def test_weights_that_are_not_the_release_s(tmp_path, change, words):
    release(tmp_path / "release")
    converted = convert(tmp_path / "release", tmp_path / "out")
    edit(tmp_path / "out", change)
    with pytest.raises(CheckpointError, match=words):
        verify(converted, tmp_path / "out")


@pytest.mark.parametrize("change", [{"rope_theta": 7.0}, {"layer_norm_eps": 1e-6}, {"eos_token_id": 7}], ids=str)
def test_a_configuration_that_is_not_the_release_s(tmp_path, change):
    release(tmp_path / "release")
    converted = convert(tmp_path / "release", tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="config.json in .* is not the configuration of"):
        verify(converted, tmp_path / "out")


def test_logits_that_overflow(tmp_path):
    """Every weight fits into float16, and the squared ReLU of what they compute does not."""

    def enlarge(checkpoint, stage, rank):
        checkpoint["model"]["language_model"]["encoder"]["layers.1.mlp.dense_h_to_4h.bias"].fill_(300)

    release(tmp_path / "release", edit=enlarge)
    verify(convert(tmp_path / "release", tmp_path / "bfloat16"), tmp_path / "bfloat16")
    converted = convert(tmp_path / "release", tmp_path / "float16", dtype=torch.float16)
    with pytest.raises(CheckpointError, match="logits that are not finite in torch.float16"):
        verify(converted, tmp_path / "float16")


def test_logits_are_compared_as_well(tmp_path, monkeypatch):
    """Were the comparison of tensors blind, the forward pass would still tell."""
    release(tmp_path / "release")
    converted = convert(tmp_path / "release", tmp_path / "out")
    edit(tmp_path / "out", swap_query_and_key)
    monkeypatch.setattr("persimmon_lab.adept.verify.same_bits", lambda one, other: True)
    with pytest.raises(CheckpointError, match="out computes other logits than the tensors of .*release"):
        verify(converted, tmp_path / "out")


@pytest.mark.parametrize("variant", ["two tensor ranks", "tied"])
def test_logits_a_layer_at_a_time(tmp_path, variant):
    """Those of the model with all its weights; afterwards nothing stays with the one on meta."""
    release(tmp_path / "release", **VARIANTS[variant])
    convert(tmp_path / "release", tmp_path / "out")
    empty = PersimmonForCausalLM.from_pretrained(tmp_path / "out", torch_dtype="auto", device="meta")
    found = logits(empty, IDS, open_release(tmp_path / "release").tensors)
    with torch.no_grad():
        expected = PersimmonForCausalLM.from_pretrained(tmp_path / "out", torch_dtype="auto")(IDS).logits
    assert torch.equal(found, expected)
    assert all(parameter.is_meta for parameter in empty.parameters())
