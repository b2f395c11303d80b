"""Each rank reads its part of a folder, and has what cutting the whole model gives."""

import json

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.distributed.loading import PartialFile, load_sharded, part_of
from persimmon_lab.distributed.plan import shard
from persimmon_lab.distributed.world import joined
from persimmon_lab.mini import MINI
from tests.distributed.part_peaks import peak
from tests.distributed.ranks import on_ranks
from tests.models import ids, tiny

VARIANTS = {
    "one file": ({}, "5GB", torch.float32),
    "shards": ({}, "60KB", torch.float32),
    "a vocabulary that does not divide": ({"vocab_size": 131}, "5GB", torch.float32),
    "tied": ({"tie_word_embeddings": True}, "5GB", torch.float32),
    "bfloat16": ({}, "5GB", torch.bfloat16),
}


def local(tensor):
    return getattr(tensor, "_local_tensor", tensor)


@torch.no_grad()
def read_and_cut(rank, folders):
    with joined("cpu") as world:
        for name, (changes, _, stored) in VARIANTS.items():
            for dtype in (None, "auto", torch.float64):
                read = load_sharded(folders / name, world, torch_dtype=dtype)
                right = PersimmonForCausalLM.from_pretrained(folders / name, torch_dtype=dtype)
                assert read.dtype == right.dtype == {None: torch.float32, "auto": stored}.get(dtype, dtype)
                logits = right(ids()).logits
                cut = shard(right, world.mesh)
                for (one, mine), (other, theirs) in zip(
                    read.state_dict().items(), cut.state_dict().items(), strict=True
                ):
                    assert one == other and mine.shape == theirs.shape
                    assert torch.equal(local(mine), local(theirs)), (name, one)
                    assert local(mine).untyped_storage().nbytes() == local(mine).nbytes, one
                assert torch.equal(read(ids()).logits, cut(ids()).logits)
                assert (read(ids()).logits - logits).abs().max() < 10 * torch.finfo(read.dtype).eps * logits.abs().max()
            tied = bool(changes.get("tie_word_embeddings"))
            assert (read.lm_head.weight is read.model.embed_tokens.weight) == tied
        assert read.generation_config.max_new_tokens == 5
        assert read.name_or_path == str(folders / name)
        assert not read.training and not any(weight.requires_grad for weight in read.parameters())
    return True


def test_a_rank_reads_what_cutting_the_whole_model_gives_it(tmp_path):
    for name, (changes, size, dtype) in VARIANTS.items():
        model = tiny(**changes).to(dtype)
        model.generation_config.max_new_tokens = 5
        model.save_pretrained(tmp_path / name, max_shard_size=size)
    assert on_ranks(read_and_cut, tmp_path) == [True, True]


def refusals(rank, folders):
    told = []
    with joined("cpu") as world:
        for name, error in (("damaged", CheckpointError), ("body", CheckpointError), ("pickle", CheckpointError),
                            ("heads", ValueError)):  # fmt: skip
            with pytest.raises(error) as refusal:
                load_sharded(folders / name, world)
            told.append(str(refusal.value))
        load_sharded(folders / "damaged", world, verify=False)
    return told


def test_every_rank_refuses_what_one_of_them_cannot_read(tmp_path):
    model = tiny()
    for name in ("damaged", "body", "pickle", "heads"):
        model.save_pretrained(tmp_path / name)
    path = tmp_path / "damaged" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    model.model.save_pretrained(tmp_path / "body")
    (tmp_path / "pickle" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pickle" / "pytorch_model.bin")
    tiny(num_attention_heads=1).save_pretrained(tmp_path / "heads")
    first, second = on_ranks(refusals, tmp_path)
    assert first == second
    damaged, body, pickle, heads = first
    assert "CRC-32" in damaged
    assert "lm_head.weight" in body
    assert "pytorch_model.bin" in pickle and "--format hf" in pickle
    assert "num_attention_heads is 1" in heads


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 131])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 8])
def test_parts_are_those_of_torch(length, ranks):
    rows = torch.arange(length)
    parts = [rows[part_of(length, ranks, rank)] for rank in range(ranks)]
    theirs = [*torch.chunk(rows, ranks), *[rows[:0]] * ranks][:ranks]
    assert all(torch.equal(one, other) for one, other in zip(parts, theirs, strict=True))


def test_a_file_that_shrinks_is_named(tmp_path):
    tiny().save_pretrained(tmp_path)
    file = PartialFile(tmp_path / "model.safetensors")
    name = max(file.shapes, key=lambda name: file._offsets[name])
    with (tmp_path / "model.safetensors").open("rb+") as handle:
        handle.truncate(file._offsets[name] + 4)
    with pytest.raises(CheckpointError, match="shorter"):
        file.read_part(name, slice(0, file.shapes[name][0]), None, dtype=torch.float32, device=torch.device("cpu"))


def loaded(rank, folder):
    return peak(folder, MINI)


def test_memory_grows_by_little_more_than_a_ranks_part(tmp_path, report_table):
    """On 0.25 GB here; the same script on a checkpoint of 1 GB is told of in docs/scale.md."""
    config = PersimmonConfig(
        vocab_size=16384, hidden_size=1024, intermediate_size=4096, num_hidden_layers=7, num_attention_heads=16,
        max_position_embeddings=64,
    )  # fmt: skip
    with torch.device("meta"):
        model = PersimmonForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    model = model.to(torch.bfloat16).to_empty(device="cpu")
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randint(-100, 100, weight.shape, generator=generator, dtype=torch.int8))
    model.save_pretrained(tmp_path, max_shard_size="100MB")
    del model
    rows = on_ranks(loaded, tmp_path)
    for row in rows:
        assert row["part"] < 0.51 * row["whole"]
        assert row["taken"] < 1.2 * row["part"], json.dumps(row)
    report_table(
        "Memory of a rank that loads its half of a checkpoint", [{"rank": rank, **row} for rank, row in enumerate(rows)]
    )
