"""What is exported converts back to the same bytes, and Adept's layout is the one that Megatron writes."""

import argparse
import shutil
from types import SimpleNamespace

import pytest
import torch
import transformers

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.adept.convert import convert
from persimmon_lab.adept.export import export_checkpoint, export_release
from persimmon_lab.adept.release import find_release
from persimmon_lab.adept.torch_files import read_archive
from persimmon_lab.adept.verify import verify
from persimmon_lab.checkpoints.errors import CheckpointError
from tests.adept.conversions import TOKENIZER, WITH_TOKENIZER, release, same_tensors, snapshot, stored
from tests.checkpoints.conftest import build

OPTIONS = {
    "with a tokenizer": WITH_TOKENIZER,
    "tied": {"tied": True},
    "no qk-layernorm": {"qk_layernorm": "none"},
    "float32": {"dtype": torch.float32},
    "fields": {"rotary_pct": 0.25, "hidden": 64, "rotary_emb_base": 700.5, "layernorm_epsilon": 1e-3},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("ranks", [1, 4])
def test_there_and_back_and_there_again(tmp_path, options, ranks):
    """A release, its checkpoint, a release of that, its checkpoint: the two checkpoints are the same files."""
    release(tmp_path / "release", **OPTIONS[options])
    convert(tmp_path / "release", tmp_path / "one", max_shard_size="60KB")
    export_release(tmp_path / "one", tmp_path / "again", tensor_parallel=ranks)
    converted = convert(tmp_path / "again", tmp_path / "two", max_shard_size="60KB")
    assert snapshot(tmp_path / "two") == snapshot(tmp_path / "one")
    assert [note for note in converted.notes if "no adept_vocab.model" not in note] == []
    assert not list(tmp_path.glob(".*"))


def load(folder, rank: int = 0) -> dict:
    """One rank's file, as Adept's code loads it."""
    path = folder / "iter_0000001" / f"mp_rank_{rank:02d}" / "model_optim_rng.pt"
    return torch.load(path, map_location="cpu", weights_only=False)


def leaves(tree: dict, prefix: str = "") -> dict:
    """Nested dictionaries as one, with the keys joined by dots."""
    flat = {}
    for key, value in tree.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("tied", [False, True])
def test_ranks_are_what_megatron_would_write(tmp_path, ranks, tied):
    """File by file and tensor by tensor what tests/adept/releases.py writes, which follows Megatron independently."""
    release(tmp_path / "release", tensor_parallel=ranks, tied=tied, iteration=1, **WITH_TOKENIZER)
    convert(tmp_path / "release", tmp_path / "out")
    export_release(tmp_path / "out", tmp_path / "again", tensor_parallel=ranks)
    assert snapshot(tmp_path / "again").keys() == snapshot(tmp_path / "release").keys()
    assert (tmp_path / "again" / "latest_checkpointed_iteration.txt").read_text() == "1"
    assert (tmp_path / "again" / "adept_vocab.model").read_bytes() == TOKENIZER
    assert (tmp_path / "again" / "adept_vocab.vocab").read_text().split("\n")[3] == "|ENDOFTEXT|\t0"
    for rank in range(ranks):
        ours, theirs = load(tmp_path / "again", rank), read_archive(find_release(tmp_path / "release").ranks[0, rank])
        tensors, expected = leaves(ours["model"]), leaves(theirs["model"])
        assert tensors.keys() == expected.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, expected[name].read()), name
            assert tensor.untyped_storage().nbytes() == tensor.nbytes, name  # and no more of it is saved
        assert isinstance(ours["args"], argparse.Namespace)
        said = vars(ours["args"])
        assert {key: theirs["args"].get(key, False) for key in said} | {"init_method_std": 0.02} == said


@pytest.mark.parametrize(
    ("fields", "ranks", "words"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, 1, "rope_scaling is"),
        ({"hidden_act": "gelu"}, 1, "hidden_act is 'gelu', not squared ReLU"),
        (
            {},
            3,
            "num_attention_heads 4 cannot be .* 3 tensor ranks; intermediate_size 256 cannot .*; vocab_size 128 cannot",
        ),
        ({}, 8, "num_attention_heads 4 cannot be shared out among 8 tensor ranks$"),
        ({}, 0, "among 0 tensor ranks"),
    ],
)
def test_what_adept_s_layout_cannot_hold(tmp_path, fields, ranks, words):
    PersimmonForCausalLM(PersimmonConfig.tiny(**fields)).save_pretrained(tmp_path / "saved")
    before = snapshot(tmp_path)
    with pytest.raises(CheckpointError, match=f"Adept's layout cannot hold this model: .*{words}"):
        export_release(tmp_path / "saved", tmp_path / "out", tensor_parallel=ranks)
    assert snapshot(tmp_path) == before


# The other format


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16])
def test_another_dtype_and_other_shards(tmp_path, dtype):
    model = build(dtype=torch.bfloat16, pad_token_id=None)
    model.save_pretrained(tmp_path / "saved", max_shard_size="60KB")
    (tmp_path / "saved" / "tokenizer.model").write_bytes(TOKENIZER)
    (tmp_path / "saved" / "generation_config.json").write_text('{"temperature": 0.5, "do_sample": true}')
    counts = []
    export_checkpoint(tmp_path / "saved", tmp_path / "out", dtype=dtype, max_shard_size="100KB", progress=counts.append)
    dtype = dtype or torch.bfloat16
    expected = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    same_tensors(stored(tmp_path / "out"), expected)
    assert sum(counts) == sum(tensor.nbytes for tensor in expected.values())
    assert len(list((tmp_path / "out").glob("model-*"))) != len(list((tmp_path / "saved").glob("model-*")))
    loaded = PersimmonForCausalLM.from_pretrained(tmp_path / "out", torch_dtype="auto")
    assert (
        loaded.dtype == transformers.PersimmonForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == dtype
    )
    assert loaded.generation_config.temperature == 0.5
    assert loaded.config.rope_theta == model.config.rope_theta
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == TOKENIZER
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_files_of_torch_are_read_too(tmp_path):
    model = build(tie_word_embeddings=True)
    model.config.save_pretrained(tmp_path / "saved")
    torch.save(model.state_dict(), tmp_path / "saved" / "pytorch_model.bin")  # with the tied tensor twice
    export_checkpoint(tmp_path / "saved", tmp_path / "out")
    same_tensors(stored(tmp_path / "out"), {n: t for n, t in model.state_dict().items() if n != "lm_head.weight"})


# Bad input, and interruptions


@pytest.mark.parametrize("export", [export_checkpoint, export_release])
def test_exports_that_fail_leave_no_trace(tmp_path, monkeypatch, export):
    model = build(hidden_act="relu2")
    with torch.no_grad():
        model.lm_head.weight[3, 3] = 1e5
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "out").mkdir()
    before = snapshot(tmp_path)

    def interrupt(count):
        raise KeyboardInterrupt

    with pytest.raises(CheckpointError, match="lm_head.weight does not fit into torch.float16"):
        export(tmp_path / "saved", tmp_path / "out", dtype=torch.float16)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "saved", tmp_path / "out", progress=interrupt)
    with pytest.raises(CheckpointError, match="saved"):
        export(tmp_path / "saved" / "..", tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(OSError, match="too few; nothing was written"):
            export(tmp_path / "saved", tmp_path / "out")
    assert snapshot(tmp_path) == before
    export(tmp_path / "saved", tmp_path / "out")
    assert snapshot(tmp_path / "out")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    release(tmp_path / "home" / "release")
    verify(convert("~/release", "~/converted"), "~/converted")
    export_checkpoint("~/converted", "~/again")
    export_release("~/converted", "~/released")
    assert {path.name for path in (tmp_path / "home").iterdir()} == {"release", "converted", "again", "released"}
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_release_goes_to_a_new_folder(tmp_path):
    build(hidden_act="relu2").save_pretrained(tmp_path / "saved")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("kept")
    before = snapshot(tmp_path)
    for out in ("out", "out/notes.txt"):
        with pytest.raises(CheckpointError, match=f"{out} is there already; a release is written to a new"):
            export_release(tmp_path / "saved", tmp_path / out)
    assert snapshot(tmp_path) == before


def test_an_export_that_was_killed_is_no_obstacle(tmp_path):
    build(pad_token_id=None, hidden_act="relu2", num_labels=2).save_pretrained(tmp_path / "saved")
    (tmp_path / ".out.unfinished" / "iter_0000001").mkdir(parents=True)
    export_release(tmp_path / "saved", tmp_path / "out")
    assert not list(tmp_path.glob(".*"))
    assert snapshot(tmp_path / "out").keys() == {
        "iter_0000001", "iter_0000001/mp_rank_00", "iter_0000001/mp_rank_00/model_optim_rng.pt",
        "latest_checkpointed_iteration.txt",
    }  # fmt: skip


def test_checkpoints_without_a_head(tmp_path):
    build().model.save_pretrained(tmp_path / "saved")
    with pytest.raises(CheckpointError, match="missing: .*lm_head.weight"):
        export_release(tmp_path / "saved", tmp_path / "out")
