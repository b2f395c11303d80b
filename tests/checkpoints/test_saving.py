"""An interrupted save leaves the old checkpoint or the new one, and nothing beside it."""

import errno
import json
import shutil
import stat
import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, weight_norm

from persimmon_lab import PersimmonForCausalLM
from persimmon_lab.checkpoints import saving
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.safetensors_writer import write_safetensors
from persimmon_lab.checkpoints.saving import finish_save, parse_size, split_into_shards, staged
from persimmon_lab.checkpoints.tensor_streams import read
from persimmon_lab.checkpoints.weight_files import FileTensor, SafetensorsFile
from tests.checkpoints.conftest import build

SHARDS = {"whole": "5GB", "sharded": 60_000}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def holds(folder: Path, model) -> bool:
    """Whether the folder is this model's checkpoint: configuration, and every tensor."""
    loaded = PersimmonForCausalLM.from_pretrained(folder)
    ours, theirs = model.state_dict(), loaded.state_dict()
    return loaded.config.rope_theta == model.config.rope_theta and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("before", SHARDS)
@pytest.mark.parametrize("after", SHARDS)
def test_a_new_save_replaces_an_old_one(tmp_path, before, after):
    """No weights of the old save stay; files that are not ours do."""
    build(intermediate_size=900).save_pretrained(tmp_path, max_shard_size=SHARDS[before])
    (tmp_path / "tokenizer.model").write_text("kept")
    (tmp_path / "model.safetensors.bak").write_text("kept")
    new = build(seed=1, rope_theta=800.0)
    new.save_pretrained(tmp_path, max_shard_size=SHARDS[after])
    assert holds(tmp_path, new)
    new.save_pretrained(tmp_path.with_name("fresh"), max_shard_size=SHARDS[after])
    fresh = snapshot(tmp_path.with_name("fresh"))
    assert snapshot(tmp_path) == fresh | {"tokenizer.model": b"kept", "model.safetensors.bak": b"kept"}


def test_a_model_is_saved_over_its_own_checkpoint(saved):
    folder = saved(max_shard_size=60_000)
    model = PersimmonForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    model.save_pretrained(folder)
    assert holds(folder, model)


class Killed(BaseException):
    """The process is gone: nothing that it would have done afterwards happens."""


def die_after(steps: int, patch: pytest.MonkeyPatch):
    """Let this many changes of the file system happen, and none after them."""
    left = iter(range(steps))

    def mortal(function):
        def wrapped(*args, **kwargs):
            if next(left, None) is None:
                raise Killed
            return function(*args, **kwargs)

        return wrapped

    for name in ("mkdir", "write_text", "rename", "replace", "unlink", "rmdir"):
        patch.setattr(Path, name, mortal(getattr(Path, name)))
    patch.setattr(shutil, "rmtree", mortal(shutil.rmtree))


def save_words(folder: Path, word: str, shards: int):
    """A save as `save_pretrained` makes it, with words for tensors."""
    with staged(folder) as staging:
        names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
        for name in names if shards > 1 else ["model.safetensors"]:
            (staging / name).write_text(word)
        if shards > 1:
            weight_map = {word: names[0]} | {f"{word} {name}": name for name in names}
            (staging / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        (staging / "config.json").write_text(word)


def is_mixed(folder: Path) -> bool:
    """Whether a reader that knows nothing of staging folders would take files of two saves for one checkpoint."""
    words = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    if "model.safetensors.index.json" in words:
        words["model.safetensors.index.json"] = next(
            iter(json.loads(words["model.safetensors.index.json"])["weight_map"])
        )
    elif "model.safetensors" not in words:
        return False
    return len(set(words.values())) > 1


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 3), (3, 1), (3, 3), (2, 3)])
def test_killed_at_any_step(tmp_path, before, after):
    """Whatever step is the last, `finish_save` finds the old checkpoint or the new one, whole, and so does a save."""
    states = {}
    for word, shards in (("old", before), ("new", after), ("next", 2)):
        save_words(tmp_path / word, word, shards)
        states[word] = snapshot(tmp_path / word)
    found = []
    for steps in range(100):
        folder = tmp_path / str(steps)
        save_words(folder, "old", before)
        with pytest.MonkeyPatch.context() as patch:
            die_after(steps, patch)
            try:
                save_words(folder, "new", after)
                break
            except Killed:
                pass
        assert not is_mixed(folder)
        shutil.copytree(folder, tmp_path / f"{steps} next")
        save_words(tmp_path / f"{steps} next", "next", 2)
        assert snapshot(tmp_path / f"{steps} next") == states["next"]
        finish_save(folder)
        shutil.rmtree(folder / ".unfinished-save", ignore_errors=True)
        found += [word for word in ("old", "new") if snapshot(folder) == states[word]]
        assert len(found) == steps + 1
    assert snapshot(folder) == states["new"]
    # The commit is one step: old before it, new after it.
    assert found == sorted(found, reverse=True)
    assert min(found.count("old"), found.count("new")) > 2


def test_loading_finishes_a_save_that_was_killed(tmp_path, monkeypatch):
    old, new = build(num_hidden_layers=2), build(num_hidden_layers=1, rope_theta=800.0, seed=1)
    old.save_pretrained(tmp_path, max_shard_size=60_000)
    replace, moved = Path.replace, []

    def replace_two(path, target):
        if path.parent.name == ".finished-save":
            moved.append(path)
            if len(moved) > 2:
                raise Killed
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_two)
    with pytest.raises(Killed):
        new.save_pretrained(tmp_path, max_shard_size=60_000)
    monkeypatch.undo()
    assert len(moved) == 3
    assert holds(tmp_path, new)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("existing", [True, False])
def test_full_disk(tmp_path, monkeypatch, existing):
    """A disk that fills up at the second shard: a clear error, nothing left behind, the old checkpoint as it was."""
    folder = tmp_path / "saved"
    if existing:
        build().save_pretrained(folder)
    before = snapshot(tmp_path)
    write, shards = saving.write_safetensors, []

    def fill_up(path, tensors, progress):
        shards.append(path)
        if len(shards) < 2:
            return write(path, tensors, progress)
        path.write_bytes(b"as far as it went")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "write_safetensors", fill_up)
    with pytest.raises(OSError, match=r"could not save to .*saved .*No space left.* bytes free.*unchanged") as caught:
        build(seed=1).save_pretrained(folder, max_shard_size=60_000)
    assert caught.value.errno == errno.ENOSPC
    assert snapshot(tmp_path) == before
    assert folder.exists() == existing
    assert not list(tmp_path.rglob(".*"))


def test_an_error_while_writing_leaves_nothing(tmp_path, monkeypatch):
    build().save_pretrained(tmp_path)
    before = snapshot(tmp_path)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("persimmon_lab.config.PersimmonConfig.to_json_string", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(seed=1).save_pretrained(tmp_path)
    assert snapshot(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match="could not save to .*file"):
        build().save_pretrained(tmp_path / "file")
    with pytest.raises(OSError, match="could not save to .*file"):
        build().save_pretrained(tmp_path / "file" / "deeper")
    assert snapshot(tmp_path) == {"file": b"kept"}


def test_files_are_as_readable_as_others(tmp_path):
    build().save_pretrained(tmp_path / "saved")
    (tmp_path / "other").write_text("")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "saved").iterdir()}
    assert modes == {stat.S_IMODE((tmp_path / "other").stat().st_mode)}


def test_wide_numbers_are_aligned(tmp_path):
    """What safetensors reads is what was written, at addresses that are multiples of each number's size."""
    values = torch.randn(15, generator=torch.Generator().manual_seed(0))
    tensors = {str(dtype): values.to(dtype) for dtype in (torch.bfloat16, torch.float64, torch.float16, torch.float32)}
    tensors["across"] = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).T
    write_safetensors(tmp_path / "file.safetensors", tensors)
    read = load_file(tmp_path / "file.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    for longer in range(8):  # a header of every length
        write_safetensors(tmp_path / "file.safetensors", tensors | {"x" * (1 + longer): values})
        data = (tmp_path / "file.safetensors").read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        for name, tensor in tensors.items():
            assert (8 + length + header[name]["data_offsets"][0]) % tensor.itemsize == 0


class Rows:
    """A source that gives `given` of its rows, at most three at a time."""

    def __init__(self, tensor: torch.Tensor, given: int | None = None):
        self.tensor, self.given = tensor, len(tensor) if given is None else given
        self.shape, self.dtype, self.nbytes = tuple(tensor.shape), tensor.dtype, tensor.nbytes

    def pieces(self, rows: int):
        yield from self.tensor[: self.given].split(min(rows, 3))


def test_sources_are_written_as_they_come(tmp_path):
    """The same bytes as from the tensors, with checksums that zlib gives for the whole, and progress that adds up."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "odd": torch.randn(7, 5, generator=generator),
        "half": torch.randn(10, 2, 3, generator=generator).bfloat16(),
        "row": torch.randn(11, generator=generator, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
    }
    counts = []
    write_safetensors(tmp_path / "tensors", tensors)
    write_safetensors(tmp_path / "sources", {name: Rows(t) for name, t in tensors.items()}, counts.append)
    assert (tmp_path / "sources").read_bytes() == (tmp_path / "tensors").read_bytes()
    assert sum(counts) == sum(tensor.nbytes for tensor in tensors.values()) and len(counts) == 3 + 4 + 4 + 1
    with safe_open(tmp_path / "sources", "pt") as file:
        assert all(torch.equal(file.get_tensor(name), tensors[name]) for name in tensors)
        checksums = json.loads(file.metadata()["crc32"])
    assert checksums == {name: zlib.crc32(t.view(torch.uint8).numpy().tobytes()) for name, t in tensors.items()}


def test_files_are_sources(tmp_path):
    """What is written can be read piece by piece, and written again to the same bytes."""
    values = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    write_safetensors(tmp_path / "file", {"values": values, "half": values.half()})
    file = SafetensorsFile(tmp_path / "file")
    sources = {name: FileTensor(file, name) for name in ("values", "half")}
    assert [source.nbytes for source in sources.values()] == [120, 60]
    assert [len(piece) for piece in sources["values"].pieces(4)] == [4, 4, 2]
    assert torch.equal(read(sources["half"]), values.half())
    write_safetensors(tmp_path / "again", sources)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()
    data = bytearray((tmp_path / "file").read_bytes())
    data[-1] ^= 1
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(CheckpointError, match="half are not the ones that were saved"):
        list(sources["half"].pieces(4))


@pytest.mark.parametrize("given", [0, 6, 8])
def test_a_source_that_does_not_keep_its_word(tmp_path, given):
    source = Rows(torch.arange(8.0), given)
    source.shape, source.nbytes = (7,), 28
    with pytest.raises(ValueError, match=f"numbers of shape .7,. gave {4 * given} bytes instead of 28"):
        write_safetensors(tmp_path / "file", {"numbers": source})


def test_shards_are_full_but_not_too_full(tmp_path):
    model = build()
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in model.state_dict().values())
    sizes = []
    for path in sorted(tmp_path.glob("model-*.safetensors")):
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            assert file.metadata()["format"] == "pt"
            assert {index["weight_map"][name] for name in names} == {path.name}
            sizes.append((len(names), sum(file.get_tensor(name).nbytes for name in names)))
    assert all(size <= 60_000 or count == 1 for count, size in sizes)
    assert all(one + other > 60_000 for (_, one), (_, other) in zip(sizes, sizes[1:]))


def test_splitting():
    assert split_into_shards({"a": 3, "b": 3, "c": 4, "d": 11, "e": 1}, 10) == [["a", "b", "c"], ["d"], ["e"]]
    assert split_into_shards({"a": 11}, 10) == [["a"]]


@pytest.mark.parametrize(
    ("size", "expected"), [(7, 7), ("7", 7), ("5GB", 5 * 10**9), ("2 GiB", 2**31), ("1.5kb", 1500), ("3MiB", 3 * 2**20)]
)
def test_sizes(size, expected):
    assert parse_size(size) == expected


@pytest.mark.parametrize("size", [0, -1, "", "GB", "5XB", "five", "0MB"])
def test_sizes_refused(tmp_path, size):
    with pytest.raises(ValueError, match="max_shard_size"):
        build().save_pretrained(tmp_path / "saved", max_shard_size=size)
    assert not (tmp_path / "saved").exists()


def test_what_cannot_be_saved(tmp_path):
    model = build(tie_word_embeddings=True)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(128, 64))
    with pytest.raises(ValueError, match=r"lm_head.weight is a tensor of its own; call tie_weights\(\)"):
        model.save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="meta device"):
        build().to("meta").save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def low_rank(model):
    """As peft's LoRA puts it: a module around the one that was there, with two small ones beside it."""
    dense = model.model.layers[1].mlp.dense_4h_to_h
    around = nn.Module()
    around.base_layer, around.lora_A, around.lora_B = dense, nn.Linear(256, 4, bias=False), nn.Linear(4, 64, bias=False)
    model.model.layers[1].mlp.dense_4h_to_h = around


def pruned(model):
    prune.l1_unstructured(model.model.layers[1].mlp.dense_4h_to_h, "weight", 0.5)


def spectral(model):
    parametrizations.spectral_norm(model.model.layers[1].mlp.dense_4h_to_h)


def of_old_torch(model):
    weight_norm(model.model.layers[1].mlp.dense_4h_to_h)


def replaced(model):
    model.model.layers[1].mlp.dense_4h_to_h = nn.Identity()


def probed(model):
    model.model.layers[1].mlp.dense_4h_to_h.probe = nn.Linear(3, 3)


CHANGES = [low_rank, pruned, spectral, of_old_torch, replaced, probed]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_what_could_not_be_read_is_not_written(tmp_path, change):
    """Nothing is touched, and the module that is another one is named."""
    build().save_pretrained(tmp_path)
    before = snapshot(tmp_path)
    model = build(seed=1)
    change(model)
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.dense_4h_to_h.* before saving"):
        model.save_pretrained(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_was_taken_out_again_is_saved(tmp_path):
    model = build()
    pruned(model)
    prune.remove(model.model.layers[1].mlp.dense_4h_to_h, "weight")
    spectral(model)
    parametrize.remove_parametrizations(model.model.layers[1].mlp.dense_4h_to_h, "weight")
    model.save_pretrained(tmp_path)
    assert holds(tmp_path, model)


def narrower(model):
    model.model.layers[1].mlp.dense_h_to_4h = nn.Linear(64, 200)
    model.model.layers[1].mlp.dense_4h_to_h = nn.Linear(200, 64)


def rounded(model):
    model.model.layers[1].mlp.dense_4h_to_h.weight = nn.Parameter(torch.ones(64, 256, dtype=torch.int8), False)


class Quantised(torch.Tensor):
    """A tensor whose numbers are kept in some other way."""


def quantised(model):
    dense = model.model.layers[1].mlp.dense_4h_to_h
    dense.weight = nn.Parameter(dense.weight.detach().as_subclass(Quantised))


@pytest.mark.parametrize("change", [narrower, rounded, quantised], ids=lambda change: change.__name__)
def test_tensors_of_another_kind_are_not_written(tmp_path, change):
    model = build()
    change(model)
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.dense_4h_to_h\.weight"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("left_out", [(), ("lm_head.weight",)])
def test_tensors_that_were_gathered_elsewhere(tmp_path, tied, left_out):
    """As under FSDP: the model's own are not looked at, but that they are all there."""
    model = build(tie_word_embeddings=tied)
    gathered = {name: tensor.clone() for name, tensor in model.state_dict().items() if name not in left_out}
    empty = model.to("meta")
    if left_out and not tied:
        with pytest.raises(ValueError, match=r"lacks 1: see lm_head"):
            empty.save_pretrained(tmp_path / "saved", state_dict=gathered)
        assert not (tmp_path / "saved").exists()
        return
    empty.save_pretrained(tmp_path / "saved", state_dict=gathered)
    assert holds(tmp_path / "saved", build(tie_word_embeddings=tied))
    gathered |= {"lm_head.weight": torch.zeros(128, 64)}
    if tied:
        with pytest.raises(ValueError, match="lm_head.weight is a tensor of its own"):
            empty.save_pretrained(tmp_path / "saved", state_dict=gathered)


def test_the_other_arguments_of_transformers(tmp_path):
    build().save_pretrained(tmp_path / "other", is_main_process=False, push_to_hub=False, token=None)
    assert not (tmp_path / "other").exists()
    with pytest.raises(ValueError, match="safe_serialization=False"):
        build().save_pretrained(tmp_path / "other", safe_serialization=False)
    with pytest.raises(TypeError, match=r"push_to_hub .use huggingface_hub.HfApi\(\).upload_folder"):
        build().save_pretrained(tmp_path / "other", push_to_hub=True)
    with pytest.raises(TypeError, match="takes no argument 'max_shards'"):
        build().save_pretrained(tmp_path / "other", max_shards=3)
    assert not (tmp_path / "other").exists()
    with pytest.warns(UserWarning, match="ignores save_function"):
        build().save_pretrained(tmp_path, save_function=torch.save, safe_serialization=True, is_main_process=True)
    assert holds(tmp_path, build())


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("layer_norm_eps", 0.5, "input_layernorm has eps 0.001, and would have 0.5"),
        ("hidden_act", "relu2", "mlp has act"),
    ],
)
def test_a_configuration_that_the_model_was_not_made_by_is_not_saved(tmp_path, field, value, told):
    """A field that is changed afterwards changes nothing here, and would change what is loaded."""
    model = build()
    setattr(model.config, field, value)
    with pytest.raises(ValueError, match=told):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
