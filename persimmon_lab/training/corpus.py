"""From archives to arrays of tokens: documents by domain, a held-out part by document, the tokenizer, uint16 files.

The held-out part is chosen first, by whole chat, play, book or module, so nothing cut from a held-out document can
reach the tokenizer or the training.
"""

import hashlib
import io
import json
import math
import os
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import sentencepiece
from tqdm import tqdm

from persimmon_lab.tokenizer.sentencepiece_model import round_scores
from persimmon_lab.training.readers import READERS, Document, dialogue
from persimmon_lab.training.sources import SOURCES, fetch

END = "|ENDOFTEXT|"
VOCABULARY = 4096
SEED = 20

HELD_OUT_SHARE = {"chat": 0.03, "questions": 0.03, "verse": 0.06, "scripture": 0.05, "code": 0.05}


def windows(document: Document, generator: random.Random) -> Iterator[Document]:
    """Stretches of a dialogue, one to three exchanges, that start with the human and end with an answer.

    They teach when to stop. Either speaker may become the human: every turn but the first is an answer somewhere.
    """
    said = [turn.partition(": ")[2] for turn in document.text.split("\n\n")]
    start = 0
    while start + 2 <= len(said):
        exchanges = generator.choice((1, 1, 2, 3))
        piece = said[start : start + 2 * exchanges]
        yield Document(document.work, dialogue(piece[: len(piece) // 2 * 2]))
        start += generator.choice((1, 1, 2, 3))


GREETING = re.compile(
    r"human: (hello|hi|hey|good (morning|afternoon|evening)|greetings|howdy|how('s| is| are)|what's up)\b",
    re.IGNORECASE,
)


def openings(document: Document) -> Iterator[Document]:
    """The first exchange, and the first two, of a chat that begins with a greeting."""
    said = document.text.split("\n\n")
    if GREETING.match(document.text):
        for turns in {2, min(4, len(said) // 2 * 2)}:
            yield Document(document.work, "\n\n".join(said[:turns]))


def without_duplicates(documents: Iterable[Document]) -> list[Document]:
    """Drop documents whose words, whatever their case and punctuation, were seen before."""
    seen: dict[str, Document] = {}
    for document in documents:
        seen.setdefault(" ".join(re.findall(r"\w+", document.text.lower())), document)
    return list(seen.values())


def split(documents: list[Document], share: float) -> tuple[list[Document], list[Document]]:
    """(training, held out): the held-out works are the ceil(share x works) with the smallest hash of their name."""
    works = sorted({d.work for d in documents}, key=lambda work: hashlib.sha256(work.encode()).hexdigest())
    held_out = set(works[: math.ceil(share * len(works))])
    return [d for d in documents if d.work not in held_out], [d for d in documents if d.work in held_out]


def first_editions(documents: list[Document]) -> list[Document]:
    """Each work once: a second translation beside the first would flatter whatever can copy."""
    editions: dict[str, str] = {}
    return [d for d in documents if editions.setdefault(d.work, d.edition) == d.edition]


def read_documents(downloads: Path) -> tuple[dict[str, list[Document]], dict[str, list[Document]]]:
    """(training, held out) documents of each domain, from the pinned archives in `downloads`, fetched where missing.

    The training side also gets "exchanges" and "openings", windows of its chats. A window whose text also stands in
    a held-out chat is dropped ("Hello! How are you?" is said more than once), and so is any duplicate.
    """
    training, held_out = {}, {}
    for domain, readers in READERS.items():
        found = [d for name, reader in readers for d in reader(fetch(SOURCES[name], downloads))]
        training[domain], private = split(without_duplicates(found), HELD_OUT_SHARE[domain])
        held_out[domain] = first_editions(private)
    generator = random.Random(SEED)
    pieces = {
        "exchanges": [window for chat in training["chat"] for window in windows(chat, generator)],
        "openings": [window for chat in training["chat"] for window in openings(chat)],
    }
    private = "\n\n\n".join(d.text for d in held_out["chat"] + held_out["questions"])
    for domain, cut in pieces.items():
        training[domain] = [w for w in without_duplicates(cut) if w.text not in private]
    return training, held_out


def paragraphs(text: str, most: int = 4000) -> Iterator[str]:
    """The text in parts of whole lines, of about `most` characters: sentencepiece drops what is longer than 65,536."""
    part: list[str] = []
    size = 0
    for line in text.split("\n"):
        part.append(line)
        size += len(line) + 1
        if size >= most:
            yield "\n".join(part)
            part, size = [], 0
    if size:
        yield "\n".join(part)


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> bytes:
    """A sentencepiece Unigram model with byte fallback, as the bytes of its file.

    One thread and no sampling: the same text gives the same pieces. The newline is a piece of its own, and a word
    after it has no space before it, so text goes in by the paragraph: line by line, sentencepiece would put a space
    before every line and learn pieces that no text contains. Spaces are kept, and have pieces by the run, since they
    are Python's grammar; every printable ASCII character is one.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(part for text in texts for part in paragraphs(text)),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocabulary,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=0.9995,
        required_chars="".join(map(chr, range(ord("!"), ord("~") + 1))),
        user_defined_symbols=[END, "\n"],
        max_sentence_length=65536,
        num_threads=1,
        minloglevel=2,
    )
    return round_scores(model.getvalue())  # so that sentencepiece and tokenizers break ties alike


def tokenizer_sample(training: dict[str, list[Document]], seed: int = SEED) -> Iterator[str]:
    """About as many bytes of each domain as the model will see of it, so that chats get the pieces they need."""
    budgets = {"chat": 3_500_000, "questions": 100_000, "verse": 1_700_000, "scripture": 700_000, "code": 1_700_000}
    for domain, budget in budgets.items():
        documents = sorted(training[domain], key=lambda d: (d.work, d.text))
        random.Random(seed).shuffle(documents)
        for document in documents:
            if budget <= 0:
                break
            yield document.text[:budget]
            budget -= len(document.text)


def encode(documents: list[Document], processor: sentencepiece.SentencePieceProcessor, seed: int | None) -> np.ndarray:
    """All documents in one uint16 stream, END before the first and after each.

    Shuffled when a seed is given: neighbouring windows of one chat overlap and would teach copying across END.
    """
    order = list(documents)
    if seed is not None:
        random.Random(seed).shuffle(order)
    end = processor.piece_to_id(END)
    stream = [np.array([end], dtype=np.uint16)]
    for document in order:
        stream.append(np.array([*processor.encode(document.text), end], dtype=np.uint16))
    return np.concatenate(stream)


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name, flush to the disk, rename: a reader sees the old file or the new, never a half."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def prepare(workdir: Path, *, vocabulary: int = VOCABULARY, progress: bool | None = None) -> Path:
    """Make `workdir`/corpus: tokenizer.model, train/DOMAIN.bin, held_out/DOMAIN.{bin,txt} and summary.json.

    summary.json is written last; where it exists the work is done and nothing is repeated.
    """
    folder = workdir / "corpus"
    if (folder / "summary.json").exists():
        return folder
    for part in ("train", "held_out"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    training, held_out = read_documents(workdir / "downloads")
    write_atomically(folder / "tokenizer.model", train_tokenizer(tokenizer_sample(training), vocabulary))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    summary = {}
    jobs = [
        (part, domain, documents)
        for part, domains in (("train", training), ("held_out", held_out))
        for domain, documents in domains.items()
    ]
    for part, domain, documents in tqdm(jobs, desc="encode", disable=None if progress is None else not progress):
        stream = encode(documents, processor, SEED if part == "train" else None)
        write_atomically(folder / part / f"{domain}.bin", stream.tobytes())
        if part == "held_out":
            write_atomically(folder / part / f"{domain}.txt", "\n\n".join(d.text for d in documents).encode())
        summary[f"{part}/{domain}"] = {
            "documents": len(documents),
            "bytes": sum(len(d.text.encode()) for d in documents),
            "tokens": len(stream),
        }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2).encode())
    return folder
