"""The archives: pinned by hash, read without unpacking."""

import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from persimmon_lab.training import sources
from persimmon_lab.training.sources import SOURCES, Source, fetch, members, sha256_of, verify


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "some-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some/b.txt", "second \u2019")
        archive.writestr("some/a.txt", "first")
        archive.writestr("some/__init__.py", "raise SystemExit('imported')")
    return path


def test_every_source_is_pinned_to_a_version_and_a_whole_hash():
    for name, source in SOURCES.items():
        assert source.requirement.startswith(f"{name}==")
        assert len(source.sha256) == 64 and int(source.sha256, 16)
        assert source.licence


def test_an_archive_that_is_there_is_not_downloaded_again(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources.subprocess, "run", lambda *a, **k: pytest.fail("pip was called"))
    source = Source("some==1.0", wheel.name, sha256_of(wheel), "MIT")
    assert fetch(source, wheel.parent) == wheel


def test_a_corrupted_download_is_refused(wheel: Path):
    source = Source("some==1.0", wheel.name, sha256_of(wheel), "MIT")
    content = bytearray(wheel.read_bytes())
    content[40] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(ValueError, match=rf"not the pinned some==1.0.*expected {source.sha256}"):
        fetch(source, wheel.parent)
    with pytest.raises(ValueError, match="delete it"):
        verify(wheel, source)


def test_pip_is_asked_for_exactly_the_pinned_hash(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "downloads"
    seen = {}

    def pip(command: list[str], check: bool):
        seen["command"] = command
        seen["requirements"] = Path(command[-1]).read_text()
        (folder / wheel.name).write_bytes(wheel.read_bytes())

    monkeypatch.setattr(sources.subprocess, "run", pip)
    source = Source("some==1.0", wheel.name, sha256_of(wheel), "MIT")
    assert fetch(source, folder) == folder / wheel.name
    assert seen["requirements"] == f"some==1.0 --hash=sha256:{source.sha256}\n"
    assert {"--no-deps", "--require-hashes"} <= set(seen["command"])
    (folder / wheel.name).unlink()
    with pytest.raises(ValueError, match="not the pinned"):
        fetch(replace(source, sha256="0" * 64), folder)


def test_members_come_sorted_and_by_suffix(wheel: Path):
    assert list(members(wheel, ".txt")) == [("some/a.txt", "first"), ("some/b.txt", "second \u2019")]


def test_links_in_a_tar_are_not_followed(tmp_path: Path):
    (tmp_path / "secret.txt").write_text("secret")
    path = tmp_path / "some-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("some/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.txt")
        archive.addfile(link)
        plain = tarfile.TarInfo("../plain.txt")
        plain.size = 5
        archive.addfile(plain, io.BytesIO(b"plain"))
    assert list(members(path, ".txt")) == [("../plain.txt", "plain")]
    assert {p.name for p in tmp_path.iterdir()} == {"secret.txt", "some-1.0.tar.gz"}


def test_a_member_that_unpacks_too_large_is_refused(wheel: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "LARGEST_MEMBER", 6)
    with pytest.raises(ValueError, match=r"some/b.txt .* unpacks to 10 bytes, more than the 6"):
        list(members(wheel, ".txt"))
