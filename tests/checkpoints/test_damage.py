"""Every way a checkpoint can be wrong has an error of its own, which names the file and what to do."""

import json
import os
import pickle
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from persimmon_lab import PersimmonForCausalLM
from persimmon_lab.checkpoints.errors import CheckpointError, CheckpointNotFoundError
from tests.checkpoints.conftest import build

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def refused(folder: Path, *words: str, error=CheckpointError, **options):
    """Loading fails with this error, whose message has all these words in it."""
    with pytest.raises(error) as caught:
        PersimmonForCausalLM.from_pretrained(folder, **options)
    for word in words:
        assert word in str(caught.value)


def edit(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_all_differences_are_listed_at_once(saved):
    folder = saved()
    tensors = load_file(folder / WEIGHTS)
    del tensors["model.layers.0.mlp.dense_h_to_4h.bias"], tensors["lm_head.weight"]
    tensors["model.layers.9.mlp.dense_h_to_4h.bias"] = torch.zeros(3)
    tensors["model.final_layernorm.weight"] = torch.zeros(65)
    tensors["model.embed_tokens.weight"] = torch.zeros(128, 64, dtype=torch.int8)
    save_file(tensors, folder / WEIGHTS)
    refused(
        folder,
        "2 missing: model.layers.0.mlp.dense_h_to_4h.bias, lm_head.weight",
        "1 unexpected: model.layers.9.mlp.dense_h_to_4h.bias",
        "model.final_layernorm.weight is (65,), the model's is (64,)",
        "model.embed_tokens.weight is I8",
    )


def test_a_buffer_of_early_checkpoints_is_left_out(saved):
    folder = saved()
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, folder / WEIGHTS)
    PersimmonForCausalLM.from_pretrained(folder)


def test_tied_or_not(saved):
    folder = saved()
    edit(folder / "config.json", tie_word_embeddings=True)
    refused(folder, "tie_word_embeddings", "lm_head.weight", "two different tensors")
    PersimmonForCausalLM.from_pretrained(folder, tie_word_embeddings=False)


@pytest.mark.parametrize("keep", [0, 4, 8, 500, -1])
def test_truncated(saved, keep):
    path = saved() / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    refused(path.parent, str(path), "is empty" if keep == 0 else "truncated or damaged")


@pytest.mark.parametrize("byte", [1, 7, 8, 300])
def test_flipped_bit_in_the_header(saved, byte):
    path = saved() / WEIGHTS
    data = bytearray(path.read_bytes())
    data[byte] ^= 0x80
    path.write_bytes(data)
    refused(path.parent, str(path))


@pytest.mark.parametrize("shard", ["5GB", 60_000])
def test_flipped_bit_in_the_data(saved, shard):
    """Found by the checksum that is saved beside each tensor, at its name; verify=False looks away."""
    folder = saved(max_shard_size=shard)
    path = max(folder.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = next(name for name in header if name.endswith("weight"))
    data[8 + length + header[name]["data_offsets"][1] - 1] ^= 0x01
    path.write_bytes(data)
    refused(folder, str(path), name, "CRC-32 differs", "verify=False")
    refused(folder, "CRC-32 differs", dtype="bfloat16")
    refused(folder, str(path), name, "CRC-32 differs", mmap=True, verify=True)
    for looks_away in ({"verify": False}, {"mmap": True}):
        damaged = PersimmonForCausalLM.from_pretrained(folder, **looks_away).state_dict()
        unequal = [name for name, tensor in build().state_dict().items() if not torch.equal(tensor, damaged[name])]
        assert unequal == [name]


def test_file_that_shrinks_while_it_is_read(saved, monkeypatch):
    folder = saved()
    monkeypatch.setattr("persimmon_lab.checkpoints.loading.check_tied", lambda *_: os.truncate(folder / WEIGHTS, 9000))
    refused(folder, "became shorter")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html><body>404</body></html>", "error page"),
        (b'{"error": "Repository not found"}', "error page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n", "git lfs pull"),
        (b"", "is empty"),
        (random.Random(0).randbytes(4096), "truncated or damaged"),  # by chance bytes may begin as a pickle does
    ],
    ids=["html", "json", "git-lfs", "empty", "noise"],
)
@pytest.mark.parametrize("name", [WEIGHTS, "pytorch_model.bin"])
def test_something_else_saved_as_weights(saved, content, words, name):
    folder = saved()
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(content)
    refused(folder, str(folder / name), words)


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_pickle_with_code_is_refused_and_not_run(saved, tmp_path, write):
    folder = saved()
    (folder / WEIGHTS).unlink()
    write(build().state_dict() | {"canary": Canary(tmp_path / "sings")}, folder / "pytorch_model.bin")
    refused(folder, str(folder / "pytorch_model.bin"), "refused", "not run")
    assert not (tmp_path / "sings").exists()


@pytest.mark.parametrize("value", [[torch.zeros(1)], {"state": {"a": torch.zeros(1)}}, torch.zeros(1)])
def test_bin_without_a_dictionary_of_tensors(saved, value):
    folder = saved()
    (folder / WEIGHTS).unlink()
    torch.save(value, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin", "other than a dictionary of tensors")


def test_truncated_bin(saved):
    folder = saved()
    (folder / WEIGHTS).unlink()
    path = folder / "pytorch_model.bin"
    torch.save(build().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    refused(folder, str(path), "truncated or damaged")


@pytest.mark.parametrize("shard", ["../outside.safetensors", "{outside}", "sub/../../outside.safetensors", "..", "", 5])
def test_index_that_points_outside_its_folder(saved, tmp_path, shard):
    folder = saved(max_shard_size=60_000)
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    name, inside = next(iter(weight_map.items()))
    outside = tmp_path / "outside.safetensors"
    (folder / inside).rename(outside)
    shard = shard.format(outside=outside) if isinstance(shard, str) else shard
    edit(folder / INDEX, weight_map={n: shard if s == inside else s for n, s in weight_map.items()})
    refused(folder, str(folder / INDEX), "points outside its folder", repr(shard))


@pytest.mark.parametrize("layout", [60_000, "5GB"], ids=["sharded", "whole"])
@pytest.mark.parametrize("linked", ["the weights", "every file", "the folder"])
def test_links_of_the_reader_are_followed(saved, tmp_path, layout, linked):
    """Weights on another disk, whole or in shards: what must not lead out is the name in an index, which came from
    elsewhere."""
    folder = saved(max_shard_size=layout)
    disk = tmp_path / "disk"
    if linked == "the folder":
        folder.rename(disk)
        folder.symlink_to(disk)
    else:
        disk.mkdir()
        for file in [*folder.glob("*.safetensors" if linked == "the weights" else "*")]:
            file.rename(disk / file.name)
            file.symlink_to(disk / file.name)
    loaded = PersimmonForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in build().state_dict().items())


def test_a_link_to_nothing_is_a_missing_shard(saved, tmp_path):
    folder = saved(max_shard_size=60_000)
    shard = next(folder.glob("model-00001*"))
    shard.unlink()
    shard.symlink_to(tmp_path / "unplugged" / shard.name)
    refused(folder, "names 1 shards that are not beside it", shard.name)


def test_missing_shards_are_all_named(saved):
    folder = saved(max_shard_size=60_000)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 3
    shards[0].unlink()
    shards[2].unlink()
    refused(folder, "2 shards", shards[0].name, shards[2].name, error=CheckpointNotFoundError)


def test_index_and_shards_disagree(saved):
    folder = saved(max_shard_size=60_000)
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    one, other = "model.embed_tokens.weight", "lm_head.weight"
    left_out = "model.final_layernorm.bias"
    edit(
        folder / INDEX,
        weight_map={n: weight_map[other] if n == one else shard for n, shard in weight_map.items() if n != left_out},
    )
    refused(folder, str(folder / INDEX), "disagree", one, left_out)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": null}', "\ufffd"])
def test_index_that_is_none(saved, text):
    folder = saved(max_shard_size=60_000)
    (folder / INDEX).write_text(text)
    refused(folder, str(folder / INDEX), "weight_map")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{'model_type': 'persimmon'}", "not JSON"),
        ("<html></html>", "not JSON"),
        ("[1]", "list"),
        ('{"model_type": "llama"}', "'llama'"),
        ('{"hidden_size": "64"}', "hidden_size"),
        ('{"hidden_size": 63}', "63"),
        ('{"torch_dtype": "float32", "dtype": "bfloat16"}', "contradictory"),
        ('{"rope_theta": 25000.0, "rope_parameters": {"rope_theta": 10000.0}}', "contradictory"),
        ('{"num_labels": 3, "id2label": {"0": "a"}}', "contradictory"),
        ('{"num_hidden_layers": 1e99}', "num_hidden_layers"),
    ],
)
def test_configuration_that_is_none(saved, text, words):
    folder = saved()
    (folder / "config.json").write_text(text)
    refused(folder, str(folder / "config.json"), words)


def test_dtype_of_the_configuration(saved):
    folder = saved()
    edit(folder / "config.json", torch_dtype="int8")
    refused(folder, str(folder / "config.json"), "int8", dtype="auto")


@pytest.mark.parametrize("text", ["{", "[]", '{"eos_token_id": '])
def test_generation_settings_that_are_none(saved, text):
    folder = saved()
    (folder / "generation_config.json").write_text(text)
    refused(folder, str(folder / "generation_config.json"))


def test_nothing_to_load(saved, tmp_path):
    folder = saved()
    (folder / "config.json").unlink()
    refused(folder, "no config.json", error=CheckpointNotFoundError)
    folder = saved()
    (folder / WEIGHTS).unlink()
    refused(folder, "holds no model.safetensors", "config.json", error=CheckpointNotFoundError)
    refused(folder / "config.json", "is a file", error=CheckpointNotFoundError)


def test_nan_is_a_number_to_keep(tmp_path):
    model = build()
    with torch.no_grad():
        model.lm_head.weight[3, 4] = torch.nan
        model.lm_head.weight[5, 6] = torch.inf
    model.save_pretrained(tmp_path)
    loaded = PersimmonForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight.isnan(), model.lm_head.weight.isnan())
    assert loaded.lm_head.weight[5, 6] == torch.inf
