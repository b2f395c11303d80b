"""The parts of a release found, in folders and in tars, and what is wrong with them told."""

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from persimmon_lab.adept import known_tars, tars
from persimmon_lab.adept import release as module
from persimmon_lab.adept.known_tars import md5_of, recognise
from persimmon_lab.adept.release import Release, find_release
from persimmon_lab.adept.torch_files import read_archive
from persimmon_lab.checkpoints.errors import CheckpointError, CheckpointNotFoundError
from tests.adept.releases import as_tar, build_release

EMBEDDING = "model.embed_tokens.weight"
ONE = "iter_0001000/mp_rank_00/model_optim_rng.pt"


def embedding(release: Release) -> torch.Tensor:
    """The embedding, joined of its parts: proof that these are the files of the release."""
    _, tensor_ranks = (1 + max(index) for index in zip(*release.ranks))
    stages = [read_archive(release.ranks[0, rank]) for rank in range(tensor_ranks)]
    parts = [stage["model"]["language_model"]["embedding"]["word_embeddings"]["weight"] for stage in stages]
    return torch.cat([part.read() for part in parts])


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "8b_release"


# Found


@pytest.mark.parametrize(
    "given",
    ["", "iter_0001000", "iter_0001000/mp_rank_00_001", "iter_0001000/mp_rank_01_002/model_optim_rng.pt", "..", "tar"],
)
def test_any_part_leads_to_the_whole(folder, given):
    tensors = build_release(folder, tensor_parallel=2, pipeline=3)
    release = find_release(as_tar(folder) if given == "tar" else folder / given)
    assert release.iteration == 1000
    assert release.tokenizer == b"a sentencepiece model"
    assert list(release.ranks) == [(stage, rank) for stage in range(3) for rank in range(2)]
    for (stage, rank), window in release.ranks.items():
        assert window.name.endswith(f"8b_release/iter_0001000/mp_rank_{rank:02d}_{stage:03d}/model_optim_rng.pt")
        assert read_archive(window)["args"]["rank"] == 2 * stage + rank
    assert torch.equal(embedding(release), tensors[EMBEDDING])


@pytest.mark.parametrize("given", [".", "..", "../../", "model_optim_rng.pt"])
def test_paths_without_a_name(folder, monkeypatch, given):
    build_release(folder, tensor_parallel=2)
    monkeypatch.chdir(folder / "iter_0001000" / "mp_rank_00")
    release = find_release(given)
    assert list(release.ranks) == [(0, 0), (0, 1)]
    assert (release.source, release.iteration) == (Path(given), 1000)


def test_home_folder(folder, monkeypatch):
    build_release(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_release("~/8b_release").ranks == find_release(folder).ranks


def test_windows_of_a_tar_are_read_in_place(folder):
    tensors = build_release(folder, tensor_parallel=4)
    tar = as_tar(folder)
    whole = tar.read_bytes()
    for (_, rank), window in find_release(tar).ranks.items():
        file = folder / f"iter_0001000/mp_rank_{rank:02d}/model_optim_rng.pt"
        assert window.path == tar
        assert window.name == f"{tar}:8b_release/{file.relative_to(folder)}"
        assert whole[window.start :][: window.length] == file.read_bytes()
    shutil.rmtree(folder)
    assert torch.equal(embedding(find_release(tar)), tensors[EMBEDDING])
    assert list(folder.parent.iterdir()) == [tar], "nothing was extracted"


@pytest.mark.parametrize("pipeline", [1, 3])
def test_distributed_optimizer(folder, pipeline):
    """`mp_rank_00_000` is a stage with a model or, without stages, an optimizer's share: the files tell."""
    tensors = build_release(folder, pipeline=pipeline, tensor_parallel=2, distributed_optimizer=True)
    assert (
        folder / "iter_0001000" / ("mp_rank_00_000" if pipeline == 1 else "mp_rank_00_000_000") / "optim.pt"
    ).exists()
    for source in (folder, as_tar(folder)):
        release = find_release(source)
        assert len(release.ranks) == 2 * pipeline
        assert all(window.name.endswith("model_rng.pt") for window in release.ranks.values())
        assert torch.equal(embedding(release), tensors[EMBEDDING])


def test_one_file_of_any_name(folder):
    tensors = build_release(folder)
    shutil.copy(folder / ONE, folder.parent / "adept [1].bin")
    alone = find_release(folder.parent / "adept [1].bin")
    assert (list(alone.ranks), alone.iteration, alone.tokenizer) == ([(0, 0)], None, None)
    assert torch.equal(embedding(alone), tensors[EMBEDDING])
    shutil.copy(folder / "adept_vocab.model", folder.parent)
    assert find_release(folder.parent / "adept [1].bin").tokenizer == b"a sentencepiece model"


def test_folder_of_one_file(folder):
    tensors = build_release(folder)
    flat = folder.parent / "flat"
    flat.mkdir()
    for name in (ONE, "adept_vocab.model"):
        shutil.copy(folder / name, flat)
    (flat / "._model_optim_rng.pt").write_bytes(b"a shadow of macOS")
    for source in (flat, as_tar(flat)):
        release = find_release(source)
        assert (release.iteration, release.tokenizer) == (None, b"a sentencepiece model")
        assert torch.equal(embedding(release), tensors[EMBEDDING])


def test_ranks_without_an_iteration(folder):
    tensors = build_release(folder, tensor_parallel=2)
    for rank in ("mp_rank_00", "mp_rank_01"):
        (folder / "iter_0001000" / rank).rename(folder / rank)
    release = find_release(folder)
    assert (release.iteration, len(release.ranks)) == (None, 2)
    assert torch.equal(embedding(release), tensors[EMBEDDING])


def test_without_a_tokenizer(folder):
    build_release(folder, tokenizer=None)
    assert find_release(folder).tokenizer is None
    assert find_release(as_tar(folder)).tokenizer is None


def test_several_iterations(folder):
    """The tracker decides; a folder of one iteration decides for itself; without either it stays open."""
    first = build_release(folder, iteration=500, seed=1)
    second = build_release(folder, iteration=1000, seed=2)
    tracker = folder / "latest_checkpointed_iteration.txt"
    assert torch.equal(embedding(find_release(folder)), second[EMBEDDING])
    tracker.write_text("500\n")
    for source in (folder, as_tar(folder)):
        assert find_release(source).iteration == 500
        assert torch.equal(embedding(find_release(source)), first[EMBEDDING])
    assert find_release(folder / "iter_0001000").iteration == 1000
    tracker.unlink()
    for source in (folder, as_tar(folder)):
        with pytest.raises(CheckpointError, match=r"2 iterations \(iter_0000500, iter_0001000\), and no latest_"):
            find_release(source)


def test_iteration_called_release(folder):
    tensors = build_release(folder)
    (folder / "iter_0001000").rename(folder / "release")
    build_release(folder, iteration=7, seed=1)
    (folder / "latest_checkpointed_iteration.txt").write_text("release")
    for source in (folder, folder / "release", as_tar(folder)):
        assert find_release(source).iteration is None
        assert torch.equal(embedding(find_release(source)), tensors[EMBEDDING])


def test_release_called_release(tmp_path):
    """The word is also Megatron's for an iteration."""
    tensors = build_release(tmp_path / "release")
    for source in (tmp_path / "release", tmp_path, as_tar(tmp_path / "release")):
        assert find_release(source).iteration == 1000
        assert torch.equal(embedding(find_release(source)), tensors[EMBEDDING])


# Not found, or not whole


def refusal(source: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        find_release(source)
    assert str(source) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", ["2000", "iter_0002000", "latest", "", "-1", "²"])
def test_tracker_that_names_what_is_not_there(folder, text):
    build_release(folder)
    (folder / "latest_checkpointed_iteration.txt").write_text(text)
    for source in (folder, as_tar(folder)):
        message = refusal(source)
        assert f"latest_checkpointed_iteration.txt says {text!r}" in message
        assert "there is iter_0001000" in message
    assert find_release(folder / "iter_0001000").iteration == 1000


@pytest.mark.parametrize(
    ("sizes", "gone", "told"),
    [
        (dict(tensor_parallel=4), ["mp_rank_01"], "no mp_rank_01,"),
        (dict(tensor_parallel=4), ["mp_rank_00", "mp_rank_02"], "no mp_rank_00,"),
        (dict(pipeline=3), ["mp_rank_00_001"], "no mp_rank_00_001,"),
        (dict(pipeline=3), ["mp_rank_00_000"], "no mp_rank_00_000,"),
        (dict(pipeline=3, tensor_parallel=2), ["mp_rank_01_002"], "no mp_rank_01_002,"),
        (dict(pipeline=3, tensor_parallel=2), ["mp_rank_01_000", "mp_rank_01_001"], "no mp_rank_01_000,"),
    ],
)
def test_missing_ranks(folder, sizes, gone, told):
    build_release(folder, **sizes)
    for name in gone:
        shutil.rmtree(folder / "iter_0001000" / name)
    for source in (folder, folder / "iter_0001000", as_tar(folder)):
        message = refusal(source)
        assert "is incomplete" in message
        assert told in message


def test_folder_of_a_rank_without_its_file(folder):
    build_release(folder, tensor_parallel=2)
    (folder / "iter_0001000/mp_rank_00/model_optim_rng.pt").unlink()
    assert "no mp_rank_00," in refusal(folder)


def test_absurd_rank_is_no_reason_to_wait(folder):
    build_release(folder)
    (folder / "iter_0001000/mp_rank_00").rename(folder / "iter_0001000/mp_rank_99999999_99999999")
    assert "no mp_rank_00_000," in refusal(folder)


@pytest.mark.parametrize("other", ["mp_rank_00_000/model_optim_rng.pt", "mp_rank_00_001/model_optim_rng.pt",
                                   "mp_rank_0/model_optim_rng.pt", "mp_rank_00/model_rng.pt"])  # fmt: skip
def test_files_of_two_runs(folder, other):
    build_release(folder)
    (folder / "iter_0001000" / other).parent.mkdir(exist_ok=True)
    shutil.copy(folder / ONE, folder / "iter_0001000" / other)
    assert "mixes the files of two runs" in refusal(folder)


def test_two_releases(folder):
    for name in ("base", "chat"):
        build_release(folder / name)
    assert "holds 2 releases (base/, chat/)" in refusal(folder)
    assert "holds 2 releases (8b_release/base/, 8b_release/chat/)" in refusal(as_tar(folder))


def test_several_files_in_no_order(folder):
    folder.mkdir()
    for name in "abcdef":
        (folder / f"{name}.pt").touch()
    assert "several .pt files (a.pt, b.pt, c.pt, d.pt and 2 more)" in refusal(folder)


def test_nothing(folder):
    with pytest.raises(CheckpointNotFoundError, match="there is no .*8b_release; give the folder of a release"):
        find_release(folder)
    (folder / "iter_0001000").mkdir(parents=True)
    (folder / "iter_0001000/readme.txt").touch()
    for source in (folder, folder / "iter_0001000", as_tar(folder)):
        with pytest.raises(CheckpointNotFoundError, match="holds no checkpoint of Adept's"):
            find_release(source)


def test_converted_already(folder):
    folder.mkdir()
    (folder / "model-00001-of-00002.safetensors").touch()
    assert "is converted already; give it to from_pretrained" in refusal(folder)


# Tars


def make_tar(path: Path, *members: tuple[str, dict], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, fields in members:
            member = tarfile.TarInfo(name)
            for field, value in ({"size": 10} | fields).items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(b"0123456789") if member.size else None)
    return path


@pytest.mark.parametrize(
    ("name", "fields", "fault"),
    [
        ("../x.pt", {}, "leads out of the folder"),
        ("a/../../x.pt", {}, "leads out of the folder"),
        ("/etc/x.pt", {}, "leads out of the folder"),
        ("a\\..\\x.pt", {}, "leads out of the folder"),
        ("..", {"type": tarfile.DIRTYPE, "size": 0}, "leads out of the folder"),
        ("x.pt", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}, "is a link"),
        ("x.pt", {"type": tarfile.LNKTYPE, "linkname": ONE, "size": 0}, "is a link"),
        ("x.pt", {"type": tarfile.CHRTYPE, "size": 0}, "neither a plain file nor a folder"),
        ("x.pt", {"type": tarfile.BLKTYPE, "size": 0}, "neither a plain file nor a folder"),
        ("x.pt", {"type": tarfile.FIFOTYPE, "size": 0}, "neither a plain file nor a folder"),
        ("x.pt", {"type": b"Z"}, "neither a plain file nor a folder"),
        (ONE, {}, "two files called"),
        (f"./{ONE}", {}, "two files called"),
    ],
)
@pytest.mark.parametrize("where", ["before", "after"])
def test_dishonest_tars(tmp_path, name, fields, fault, where):
    """One such member, anywhere, and the whole tar is refused."""
    members = [("iter_0001000", {"type": tarfile.DIRTYPE, "size": 0}), (ONE, {})]
    bad = (name, fields)
    tar = make_tar(tmp_path / "x.tar", *([bad, *members] if where == "before" else [*members, bad]))
    message = refusal(tar)
    assert "is refused" in message
    assert fault in message
    assert os.listdir(tmp_path) == ["x.tar"]


def test_sparse_tar(tmp_path):
    """A file with holes lies in the tar without them, so it cannot be read in place."""
    fields = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,5,90,5", "GNU.sparse.size": "95"}
    tar = make_tar(tmp_path / "x.tar", (ONE, {"pax_headers": fields}))
    assert "neither a plain file nor a folder" in refusal(tar)


def test_names_of_any_length(tmp_path):
    """Long names take headers of their own, in two dialects."""
    folder = tmp_path / ("long" * 50)
    tensors = build_release(folder)
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=dialect) as tar:
            tar.add(folder, arcname=folder.name)
        assert torch.equal(embedding(find_release(tmp_path / "x.tar")), tensors[EMBEDDING])


def test_headers_that_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tars, "LARGEST", 1024)
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=dialect) as tar:
            tar.addfile(tarfile.TarInfo("long" * 500))
        assert "is not a whole tar: it has a header of 2," in refusal(tmp_path / "x.tar")


def test_tokenizer_that_fills_the_memory(folder, monkeypatch):
    build_release(folder)
    monkeypatch.setattr(module, "LARGEST", 21)
    assert find_release(folder).tokenizer == b"a sentencepiece model"
    monkeypatch.setattr(module, "LARGEST", 20)
    assert "adept_vocab.model has 21 bytes, so it is not what its name says" in refusal(folder)


@pytest.mark.parametrize(
    ("compress", "program"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")]
)
def test_compressed_tars(folder, compress, program):
    build_release(folder)
    for name in ("x.tar", "x.tar.gz", "x.tgz"):
        path = folder.with_name(name)
        path.write_bytes(compress(as_tar(folder).read_bytes()))
        assert f"is compressed with {program}" in refusal(path)
        assert f"unpack it first (`tar -xf {name}`)" in refusal(path)


def test_tars_of_any_name(folder):
    tensors = build_release(folder)
    renamed = as_tar(folder).rename(folder.with_name("download"))
    assert torch.equal(embedding(find_release(renamed)), tensors[EMBEDDING])


def test_tars_cut_off(folder):
    """In a header, in a file, between two files, or before the end mark: none goes unnoticed."""
    build_release(folder, tensor_parallel=2)
    whole = as_tar(folder).read_bytes()
    last = whole.rindex(b"8b_release/")
    cut = folder.with_name("cut.tar")
    for length in (700, last - 5000, last - 512, last, last + 100, last + 512, last + 600, len(whole) // 2):
        cut.write_bytes(whole[:length])
        message = refusal(cut)
        assert "cut off" in message or "not a whole tar" in message, length
    end = last + 512 + 512
    cut.write_bytes(whole[:end])
    assert "is cut off or damaged after byte" in refusal(cut)
    cut.write_bytes(whole[: end + 512])
    assert len(find_release(cut).ranks) == 2, "one of the two closing blocks is enough"


def test_tar_with_a_damaged_header(folder):
    """tarfile takes it for the end, and the ranks after it would be forgotten without a word."""
    build_release(folder, tensor_parallel=2)
    tar = as_tar(folder)
    whole = bytearray(tar.read_bytes())
    for position in range(0, len(whole), 512):
        if whole[position : position + 11] == b"8b_release/":
            damaged = whole.copy()
            damaged[position + 130] ^= 1
            tar.write_bytes(damaged)
            assert ("cut off or damaged after byte" if position else "not a whole tar") in refusal(tar)


@pytest.mark.parametrize(
    ("content", "told"), [(b"", "The file is empty"), (b"<html>", "It is text"), (bytes(9999), "holds no checkpoint")]
)
def test_not_a_tar(tmp_path, content, told):
    (tmp_path / "x.tar").write_bytes(content)
    assert told in refusal(tmp_path / "x.tar")


# The published tars


def test_published_sums():
    """As the README of adept-inference prints them."""
    assert known_tars.PUBLISHED == {
        "cd0320cba9efad9ccd18e9ec4d16ae1b": "8b_base_model_release.tar",
        "663aeace07269c44e90f4e8bcd07f32a": "8b_chat_model_release.tar",
    }


def test_md5_tells_its_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(known_tars, "BITE", 1000)
    data = bytes(range(256)) * 10
    (tmp_path / "x").write_bytes(data)
    told = []
    assert md5_of(tmp_path / "x", told.append) == hashlib.md5(data).hexdigest() == md5_of(tmp_path / "x")
    assert told == [1000, 1000, 560]


def test_recognise(tmp_path, monkeypatch):
    sums = {hashlib.md5(name.encode()).hexdigest(): f"{name}.tar" for name in ("base", "chat")}
    monkeypatch.setattr(known_tars, "PUBLISHED", sums)

    def file(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    told = []
    assert recognise(file("base.tar", b"base"), told.append) == "base.tar"
    assert told == [4]
    assert recognise(file("renamed.tar", b"chat")) == "chat.tar"
    assert recognise(file("own.tar", b"own")) is None
    assert recognise(file("base.pt", b"base")) is None
    assert recognise(tmp_path) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert recognise(Path("~/base.tar")) == "base.tar"
    for content in (b"chat", b"bas"):
        with pytest.raises(CheckpointError, match=r"base\.tar is called like the release .* its md5 is .* damaged"):
            recognise(file("base.tar", content))
