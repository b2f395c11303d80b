"""Files and folders that are there whole or not at all."""

import resource
import signal
import subprocess
import sys
import threading

import pytest
import torch

from persimmon_lab import PersimmonConfig
from persimmon_lab.atomic import alone, filling, place_for, replacing, write_atomically
from persimmon_lab.generation_config import GenerationConfig
from persimmon_lab.mini import load_mini
from tests.models import tiny


def test_a_file_gets_its_content_and_nothing_else_is_left(tmp_path):
    write_atomically(tmp_path / "a.txt", b"one")
    write_atomically(tmp_path / "a.txt", b"two")
    assert (tmp_path / "a.txt").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_file_and_no_trace(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"half of the new")
        1 / 0  # noqa: B018
    assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"old")
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_bytes(b"new")
        assert (tmp_path / "a.txt").read_bytes() == b"old"
    assert (tmp_path / "a.txt").read_bytes() == b"new"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.is_dir() or path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("empty", [False, True], ids=["new", "empty"])
def test_a_folder_gets_its_name_when_it_is_full(tmp_path, empty):
    folder = tmp_path / "new"
    if empty:
        folder.mkdir()
    with filling(folder) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a.txt").write_bytes(b"one")
        assert contents(folder) == {}
    assert contents(tmp_path) == {"new": True, "new/inner": True, "new/inner/a.txt": b"one"}


def test_a_folder_that_fails_leaves_no_trace(tmp_path):
    with pytest.raises(ZeroDivisionError), filling(tmp_path / "new") as temporary:
        (temporary / "a.txt").write_bytes(b"half")
        1 / 0  # noqa: B018
    assert contents(tmp_path) == {}


def test_a_folder_that_holds_something_stays(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.txt").write_bytes(b"old")
    with pytest.raises(OSError, match="not empty"), filling(tmp_path / "old") as temporary:
        (temporary / "a.txt").write_bytes(b"new")
    assert contents(tmp_path) == {"old": True, "old/a.txt": b"old"}


def test_what_a_killed_process_left_is_not_taken_over(tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "a.txt").write_bytes(b"half")
    with filling(tmp_path / "new", tmp_path / "half") as temporary:
        assert temporary == tmp_path / "half"
        (temporary / "b.txt").write_bytes(b"whole")
    assert contents(tmp_path) == {"new": True, "new/b.txt": b"whole"}


@pytest.mark.parametrize("make", [replacing, filling])
def test_the_disk_has_it_all_before_it_has_its_name(tmp_path, monkeypatch, make):
    names = []
    monkeypatch.setattr("os.fsync", lambda file: names.append((tmp_path / "new").exists()))
    with make(tmp_path / "new") as temporary:
        path = temporary / "a.txt" if make is filling else temporary
        path.write_bytes(b"one")
    assert names == [False]


def savers():
    return {
        "model": tiny().save_pretrained,
        "config": PersimmonConfig.tiny().save_pretrained,
        "config_file": PersimmonConfig.tiny().to_json_file,
        "generation": GenerationConfig().save_pretrained,
        "generation_file": GenerationConfig().to_json_file,
        "tokenizer": load_mini()[1].save_pretrained,
        "vocabulary": load_mini()[1].save_vocabulary,
    }


@pytest.mark.parametrize("name", ["model", "config", "config_file", "generation", "generation_file", "tokenizer",
                                  "vocabulary"])  # fmt: skip
@pytest.mark.parametrize("given", ["", "  "])
def test_no_name_is_not_the_current_folder(tmp_path, monkeypatch, name, given):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"(save_directory|json_file_path) is empty; name a folder"):
        savers()[name](given)
    assert list(tmp_path.iterdir()) == []


def test_a_place_is_a_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place_for("~/x") == tmp_path / "x"
    assert place_for(tmp_path) == tmp_path
    assert str(place_for(".")) == "."
    with pytest.raises(TypeError, match="out is a NoneType; give the path"):
        place_for(None, "out")


# Two at once


def test_the_second_to_fill_a_folder_is_refused_and_the_first_one_finishes(tmp_path):
    with filling(tmp_path / "new") as temporary:
        (temporary / "a.txt").write_bytes(b"first")
        with (
            pytest.raises(OSError, match="another process or thread is writing to .*new; wait"),
            filling(tmp_path / "new"),
        ):
            pass
    assert contents(tmp_path) == {"new": True, "new/a.txt": b"first"}


def test_a_folder_that_holds_something_is_refused_before_the_work(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.txt").write_bytes(b"one")
    begun = []
    with pytest.raises(OSError, match="old is not empty"), filling(tmp_path / "old"):
        begun.append(True)
    assert not begun


def test_writers_of_one_file_take_turns(tmp_path):
    """With one temporary name for all, one of them would rename what another had begun."""
    path, errors = tmp_path / "a.bin", []

    def write(letter):
        try:
            for _ in range(20):
                with replacing(path) as temporary, temporary.open("wb") as file:
                    for _ in range(50):
                        file.write(letter * 1000)
                assert len(set(path.read_bytes())) == 1
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(path.read_bytes()) == 50_000
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_mark_goes_with_the_process_that_held_it(tmp_path):
    code = f"""
import pathlib, os, signal
from persimmon_lab.atomic import filling
with filling(pathlib.Path({str(tmp_path / "new")!r})) as temporary:
    (temporary / "half.txt").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code])
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".new.unfinished"]
    with filling(tmp_path / "new") as temporary:
        (temporary / "a.txt").write_bytes(b"one")
    assert contents(tmp_path) == {"new": True, "new/a.txt": b"one"}


def test_alone_is_alone(tmp_path):
    with alone(tmp_path), pytest.raises(OSError, match="another process or thread"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(content.numpy().tobytes())])
def test_a_full_disk_is_told_by_the_name_of_the_file(tmp_path, save):
    """torch.save names a line of C++ instead."""
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with (
            pytest.raises(OSError, match="could not write .*a.pt .* bytes free on its disk"),
            replacing(path) as temporary,
        ):
            save(torch.zeros(10_000), temporary)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
    assert path.read_bytes() == b"old"


def test_a_link_and_the_permissions_of_a_file_stay(tmp_path):
    real, link = tmp_path / "real.md", tmp_path / "link.md"
    real.write_text("before")
    real.chmod(0o600)
    link.symlink_to(real.name)
    write_atomically(link, b"after")
    assert link.is_symlink() and real.read_text() == "after" and real.stat().st_mode & 0o777 == 0o600
    assert sorted(tmp_path.iterdir()) == [link, real]
