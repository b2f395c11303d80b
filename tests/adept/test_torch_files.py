"""torch.save's files read without torch.load: the same contents, in little memory, and every damage told."""

import argparse
import contextlib
import io
import random
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import psutil
import pytest
import torch
from torch import Tensor

from persimmon_lab.adept.stand_ins import Inert
from persimmon_lab.adept.torch_files import StoredTensor, read_archive
from persimmon_lab.adept.window import Window
from persimmon_lab.checkpoints.errors import CheckpointError
from tests.adept.releases import build_release, megatron, write_archive

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
each_format = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def save(path: Path, contents: object, **options) -> Path:
    write_archive(path, contents, **options)
    return path


def read(path: Path) -> dict:
    return read_archive(Window.whole(path))


def flat(contents: object, place: str = "") -> dict[str, object]:
    """Leaves by their place, stored tensors read."""
    if isinstance(contents, StoredTensor):
        return {place: contents.read()}
    if isinstance(contents, argparse.Namespace):
        contents = vars(contents)
    if isinstance(contents, list | tuple):
        contents = dict(enumerate(contents))
    if not isinstance(contents, dict):
        return {place: contents}
    return {name: leaf for key, value in contents.items() for name, leaf in flat(value, f"{place}/{key}").items()}


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def assert_same(found: object, expected: object):
    """Equal to the bit, placeholders left out."""
    found, expected = flat(found), flat(expected)
    assert list(found) == list(expected)
    for place, value in expected.items():
        if isinstance(value, Tensor):
            assert (found[place].dtype, found[place].shape) == (value.dtype, value.shape), place
            assert bits(found[place]) == bits(value), place
        elif not isinstance(found[place], Inert):
            assert found[place] == value, place


@contextlib.contextmanager
def no_checksums() -> Iterator[None]:
    """torch.save leaves them out."""
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(True)


def flipped(whole: bytes, position: int, mask: int = 1) -> bytes:
    return whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :]


# What torch.load would give


@each_format
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equals_torch_load(tmp_path, legacy, dtype):
    build_release(tmp_path, dtype=dtype, legacy=legacy, optimizer=True)
    (path,) = tmp_path.glob("*/*/*.pt")
    with pytest.raises(ModuleNotFoundError, match="megatron"):
        torch.load(path, map_location="cpu", weights_only=False)
    with megatron():
        expected = torch.load(path, map_location="cpu", weights_only=False)
    found = read(path)
    assert_same(found, expected)
    placeholders = [place for place, leaf in flat(found).items() if isinstance(leaf, Inert)]
    assert placeholders == ["/rng_state/0/np_rng_state/1", "/args/model_type"]


@each_format
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 4)], ids=str)
def test_tensors_without_elements_read_nothing(tmp_path, legacy, shape):
    """At the end of a file, where there is nothing after them."""
    contents = {"none": torch.empty(shape)}
    assert_same(read(save(tmp_path / "x.pt", contents, legacy=legacy)), contents)


@each_format
def test_every_kind_of_tensor(tmp_path, legacy):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(6, 8, generator=generator)
    contents = {
        "transposed": torch.randn(5, 7, generator=generator).T,
        "part": torch.randn(9, 4, generator=generator)[2:5],
        "corner": torch.randn(9, 4, generator=generator)[2:5, 1:3],
        "every other": torch.randn(3, 10, generator=generator)[:, ::2],
        "matrix": matrix,
        "tied": matrix,
        "rows of it": matrix[1:],
        "parameter": torch.nn.Parameter(torch.randn(3, generator=generator)),
        "with attributes": torch.nn.Parameter(torch.randn(3, generator=generator)),
        "whole numbers": torch.arange(5),
        "truths": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.5),
        "no rows": torch.empty(0, 3),
        "no columns": torch.empty(3, 0),
        "long name": torch.randn(1, 1, 4, generator=generator)[:, :, 1:3],
    }
    contents["with attributes"].tensor_model_parallel = True
    found = read(save(tmp_path / "x.pt", contents, legacy=legacy))
    assert_same(found, contents)
    for name in ("transposed", "part", "corner", "every other", "matrix"):
        for rows in (1, 2, 100):
            pieces = list(found[name].pieces(rows))
            assert [len(piece) for piece in pieces] == [len(part) for part in contents[name].split(rows)]
            assert torch.equal(torch.cat(pieces), contents[name])
    assert [piece.tolist() for piece in found["scalar"].pieces(3)] == [[2.5]], "as a piece, a scalar is one row"


def test_dtypes_that_have_no_storage_class(tmp_path):
    contents = {"eight bits": torch.tensor([1.5, -2.0, 448.0]).to(torch.float8_e4m3fn)}
    assert_same(read(save(tmp_path / "x.pt", contents)), contents)


@each_format
def test_tensor_says_where_it_is_from(tmp_path, legacy):
    one, other = torch.ones(4, 4), torch.ones(4, 4)
    contents = {"a": one, "b": one, "c": one[2:], "d": other}
    a, b, c, d = read(save(tmp_path / "x.pt", contents, legacy=legacy, location="cuda:3")).values()
    assert a.storage == b.storage == c.storage != d.storage
    assert (a.offset, b.offset, c.offset, c.nbytes) == (0, 0, 8, 32)
    assert a.storage == read(tmp_path / "x.pt")["a"].storage, "and is known again when the file is opened again"
    assert a.location == "cuda:3"


@each_format
def test_file_within_a_file(tmp_path, legacy):
    contents = {"a": torch.arange(12.0).unflatten(0, (3, 4)), "b": torch.ones(5)}
    inner = save(tmp_path / "inner.pt", contents, legacy=legacy).read_bytes()
    for before, after in ((b"", b"after"), (b"x" * 999, b""), (b"PK\3\4" * 9, b"PK\5\6" * 9)):
        (tmp_path / "outer").write_bytes(before + inner + after)
        assert_same(read_archive(Window(tmp_path / "outer", len(before), len(inner), "inner")), contents)


def test_window_confines(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    with Window(tmp_path / "file", 2, 5, "name").open() as file:
        assert file.read() == b"23456"
        assert file.seek(-2, io.SEEK_END) == 3
        assert file.read(9) == b"56"
        assert file.seek(1) == 1
        assert file.read(2) == b"34"
        assert file.seek(1, io.SEEK_CUR) == 4
        assert file.read() == b"6"
        assert file.seek(50) == 50
        assert file.read() == b""
        with pytest.raises(ValueError, match="cannot seek to -1, before the beginning"):
            file.seek(-6, io.SEEK_END)


# Memory


@each_format
def test_reading_leaves_no_memory_behind(tmp_path, legacy):
    """Piece by piece the process grows by a piece, not by the tensor; a mapped file would count as it is read."""
    tensor = torch.ones(128, 2**19, dtype=torch.bfloat16)
    size = tensor.nbytes
    path = save(tmp_path / "x.pt", {"whole": tensor, "part": tensor[1:]}, legacy=legacy)
    del tensor
    process = psutil.Process()
    before, most, total = process.memory_info().rss, 0, 0
    for stored in read(path).values():
        for piece in stored.pieces(2):
            most = max(most, process.memory_info().rss)
            total += piece.nbytes
    assert total == size + size * 127 // 128
    assert most - before < size // 8


# Damage


def test_bytes_that_changed(tmp_path):
    """A flipped bit in a storage is told when that storage is read, after the last piece."""
    contents = {"good": torch.randn(64, 8), "bad": torch.randn(64, 8)}
    path = save(tmp_path / "x.pt", contents)
    found = read(path)
    path.write_bytes(flipped(path.read_bytes(), found["bad"].source.start + 1000))
    assert torch.equal(found["good"].read(), contents["good"])
    pieces = found["bad"].pieces(10)
    assert torch.equal(next(pieces), contents["bad"][:10])
    for rest in (pieces, found["bad"].pieces(64)):
        with pytest.raises(CheckpointError, match=r"storage 1 of .*x\.pt is damaged: .*CRC-32"):
            list(rest)


@pytest.mark.parametrize("view", ["[:4]", ".T", "[:, :2]"])
def test_bytes_that_changed_beside_a_view(tmp_path, view):
    """The checksum is of a whole storage, so where a tensor is a part of one, all of it is read before: once."""
    matrix = torch.randn(64, 8)
    part = {"[:4]": matrix[:4], ".T": matrix.T, "[:, :2]": matrix[:, :2]}[view]
    path = save(tmp_path / "x.pt", {"view": part})
    found = read(path)["view"]
    with mock.patch.object(StoredTensor, "pieces", autospec=True, side_effect=StoredTensor.pieces) as pieces:
        assert torch.equal(found.read(), part)
        assert torch.equal(found.read(), part)
    assert pieces.call_count == 2 + 1
    path.write_bytes(flipped(path.read_bytes(), found.source.start + matrix.nbytes - 1))
    with pytest.raises(CheckpointError, match="is damaged"):
        next(read(path)["view"].pieces(1))


def test_flipped_bits_are_never_silent(tmp_path):
    """Wherever a bit of a zip archive flips, an error names the file, or the contents are the same."""
    contents = {"a": torch.arange(20.0), "b": {"c": torch.ones(3, dtype=torch.bfloat16)[1:], "d": 7, "e": "text"}}
    path = save(tmp_path / "x.pt", contents)
    whole, chance, refused = path.read_bytes(), random.Random(0), 0
    for position in chance.sample(range(len(whole)), 500):
        path.write_bytes(flipped(whole, position, 1 << chance.randrange(8)))
        try:
            assert_same(read(path), contents)
        except CheckpointError as error:
            assert "x.pt" in str(error)
            refused += 1
    assert refused > 100


@each_format
def test_damage_ends_in_the_one_error(tmp_path, legacy):
    """Bytes that describe the tensors become others, no checksum notices: whatever they mean now, callers can catch."""
    with no_checksums():
        build_release(tmp_path, layers=1, legacy=legacy)
    (path,) = tmp_path.glob("*/*/*.pt")
    whole, chance, refused = path.read_bytes(), random.Random(1), 0
    for _ in range(300):
        damaged = whole
        for _ in range(chance.choice([1, 1, 3, 20])):
            damaged = flipped(damaged, chance.randrange(6000), chance.randrange(1, 256))
        path.write_bytes(damaged)
        try:
            read(path)
        except CheckpointError as error:
            assert path.name in str(error)
            refused += 1
    assert refused > 100


@each_format
def test_cut_off_anywhere(tmp_path, legacy):
    contents = {"a": torch.arange(20.0), "b": {"c": torch.ones(3, dtype=torch.bfloat16), "d": 7}}
    path = save(tmp_path / "x.pt", contents, legacy=legacy)
    whole = path.read_bytes()
    for length in (*range(3, len(whole), 7), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=rf"x\.pt.*\({length:,} bytes here\): copy or download it again"):
            read(path)


@pytest.mark.parametrize(
    ("legacy", "left", "message"),
    [
        (False, 20, "the directory that belongs at its end cannot be read"),  # within the first header
        (False, 3000, "the directory that belongs at its end cannot be read"),  # within a storage
        (False, -10, "the directory that belongs at its end cannot be read"),  # within the directory
        (True, 8, "holds a pickle that cannot be read"),  # within the magic number
        (True, 300, "holds a pickle that cannot be read"),  # within the contents
        (True, -6000, r"storage \d+ of .* should end at byte"),  # within the first storage
        (True, -1, r"storage \d+ of .* should end at byte"),  # within the last
    ],
)
def test_cut_off_says_where(tmp_path, legacy, left, message):
    path = save(tmp_path / "x.pt", {"a": torch.randn(1000), "b": torch.randn(1000)}, legacy=legacy)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=message):
        read(path)


def test_file_that_shrinks_while_it_is_read(tmp_path):
    path = save(tmp_path / "x.pt", {"a": torch.randn(1000, 4)})
    stored = read(path)["a"]
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(CheckpointError, match=r"x\.pt became shorter while it was read"):
        stored.read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "The file is empty"),
        (b"<!DOCTYPE html><html>404</html>", "It is text, such as the error page"),
        (b"\n  <Error><Code>AuthorizationRequired</Code></Error>", "It is text, such as the error page"),
        (b"Not Found\n", "It is text, such as the error page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n", "git lfs pull"),
        (bytes(500), r"truncated or damaged \(500 bytes here\)"),
    ],
    ids=["empty", "html", "xml", "text", "git-lfs", "zeros"],
)
def test_not_a_file_of_torch_save(tmp_path, content, message):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"x\.pt is not a file of torch\.save\. .*{message}"):
        read(tmp_path / "x.pt")


@each_format
@pytest.mark.parametrize("contents", [[1, 2], torch.ones(3), None, torch.nn.ReLU()], ids=lambda x: type(x).__name__)
def test_not_a_dictionary(tmp_path, legacy, contents):
    with pytest.raises(CheckpointError, match=r"x\.pt holds a \w+; a checkpoint of Adept's is a dictionary"):
        read(save(tmp_path / "x.pt", contents, legacy=legacy))


@each_format
def test_big_endian(tmp_path, legacy):
    with mock.patch.object(sys, "byteorder", "big"):
        save(tmp_path / "x.pt", {"a": torch.ones(3)}, legacy=legacy)
    with pytest.raises(CheckpointError, match=r"x\.pt was saved on a big-endian machine"):
        read(tmp_path / "x.pt")


def test_archive_without_checksums(tmp_path):
    """Then there is nothing to compare."""
    contents = {"a": torch.randn(9)}
    with no_checksums():
        save(tmp_path / "x.pt", contents)
    assert_same(read(tmp_path / "x.pt"), contents)


# Archives that torch.save does not write


def test_old_format_that_contradicts_itself(tmp_path):
    path = save(tmp_path / "x.pt", {"a": torch.ones(3)}, legacy=True)
    whole = path.read_bytes()
    count = len(whole) - 3 * 4 - 8
    key = read(path)["a"].storage[1].encode()
    for position, message in (
        (whole.rindex(key), r"x\.pt describes other storages than it lists"),
        (count, r"storage \d+ of .*x\.pt should end at byte"),
    ):
        path.write_bytes(flipped(whole, position))
        with pytest.raises(CheckpointError, match=message):
            read(path)


def repacked(path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], **options) -> Path:
    """An archive's entries written again by another program, changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in change(entries).items():
            archive.writestr(name, data)
    return path


def test_repacked_archive_is_read(tmp_path):
    contents = {"a": torch.randn(9)}
    assert_same(read(repacked(save(tmp_path / "x.pt", contents), lambda entries: entries)), contents)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entries: entries | {"other/data.pkl": b""}, "not one of torch.save: 2 data.pkl"),
        (lambda entries: {"readme": b""}, "not one of torch.save: 0 data.pkl"),
        (lambda entries: entries | {"x/data/0": b"1234"}, "storage 0 of .* should have 36 bytes; there are 4"),
        (
            lambda entries: {name: data for name, data in entries.items() if name != "x/data/0"},
            "storage 0 of .* should have 36 bytes; there are none",
        ),
    ],
)
def test_archive_that_contradicts_itself(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=rf"x\.pt.*{message}|{message}"):
        read(repacked(save(tmp_path / "x.pt", {"a": torch.randn(9)}), change))


def test_compressed_archive(tmp_path):
    path = save(tmp_path / "x.pt", {"a": torch.zeros(999)})
    with pytest.raises(CheckpointError, match=r"x\.pt was compressed after it was saved"):
        read(repacked(path, lambda entries: entries, compression=zipfile.ZIP_DEFLATED))


def test_two_entries_of_one_name(tmp_path):
    path = save(tmp_path / "x.pt", {"a": torch.randn(9)})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x/data/0", bytes(36))
    with pytest.raises(CheckpointError, match=r"x\.pt is refused: it has 2 entries called x/data/0"):
        read(path)
