"""From archives to arrays of tokens: documents by domain, a held-out part by document, the tokenizer, uint16 files.

The held-out part was chosen first, by whole chat, play, book or module (held_out_works.json lists the hashes of their
names), so nothing cut from a held-out document can reach the tokenizer or the training.
"""

import hashlib
import io
import json
import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from importlib.resources import files
from itertools import count
from pathlib import Path

import numpy as np
import sentencepiece
from tqdm import tqdm

from persimmon_lab.atomic import write_atomically
from persimmon_lab.tokenizer.sentencepiece_model import round_scores
from persimmon_lab.training.bars import bar_is_off
from persimmon_lab.training.batches import UNTAUGHT
from persimmon_lab.training.drills import Stream
from persimmon_lab.training.listening import listening
from persimmon_lab.training.readers import READERS, Document, dialogue
from persimmon_lab.training.skills import SKILLS
from persimmon_lab.training.sources import SOURCES, fetch
from persimmon_lab.training.templates import a_conversation, a_story

END = "|ENDOFTEXT|"
VOCABULARY = 4096
# How often a skill is drawn, where that is not 1: a skill with more to be known, or to be worked out, comes more often.
OFTEN = {"facts": 5, "sums": 5, "words": 4, "sequences": 3, "not knowing": 2, "names remembered": 2, "brackets": 2}
SEED = 20
CUT_FROM_CHATS = ("exchanges", "openings", "listening")  # they repeat "chat"

# What the documents are made by, in this package.
MADE_BY = (
    "cleaning.py", "corpus.py", "everyday/feelings.toml", "everyday/moods.toml", "held_out_works.json", "listening.py",
    "readers.py", "sources.py",
)  # fmt: skip

# The works of each domain that nothing is trained on, frozen: more text never changes what is measured.
HELD_OUT = json.loads(files(__package__).joinpath("held_out_works.json").read_text(encoding="utf-8"))


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


def work_hash(work: str) -> str:
    """What held_out_works.json knows a work by."""
    return hashlib.sha256(work.encode()).hexdigest()[:16]


def split(documents: list[Document], held_out: Collection[str]) -> tuple[list[Document], list[Document]]:
    """(training, held out): the held-out works are those whose `work_hash` is listed."""
    works = {work for work in {d.work for d in documents} if work_hash(work) in held_out}
    return [d for d in documents if d.work not in works], [d for d in documents if d.work in works]


def first_editions(documents: list[Document]) -> list[Document]:
    """Each work once: a second translation beside the first would flatter whatever can copy."""
    editions: dict[str, str] = {}
    return [d for d in documents if editions.setdefault(d.work, d.edition) == d.edition]


def read_documents(downloads: Path) -> tuple[dict[str, list[Document]], dict[str, list[Document]]]:
    """(training, held out) documents of each domain, from the pinned archives in `downloads`, fetched where missing.

    The training side also gets "exchanges" and "openings", windows of its chats, and "listening", exchanges made of
    what was said in them. A window whose text also stands in
    a held-out chat is dropped ("Hello! How are you?" is said more than once), and so is any duplicate.
    """
    training: dict[str, list[Document]] = {}
    held_out: dict[str, list[Document]] = {}
    for domain, readers in READERS.items():
        documents = [d for name, reader in readers for d in reader(fetch(SOURCES[name], downloads))]
        training[domain], held_back = split(without_duplicates(documents), HELD_OUT[domain])
        held_out[domain] = first_editions(held_back)
    generator = random.Random(SEED)
    pieces = {
        "exchanges": [window for chat in training["chat"] for window in windows(chat, generator)],
        "openings": [window for chat in training["chat"] for window in openings(chat)],
        "listening": list(listening(training["chat"], np.random.default_rng(SEED))),
    }
    never_read = "\n\n\n".join(d.text for d in held_out["chat"] + held_out["questions"])
    for domain, cut in pieces.items():
        training[domain] = [w for w in without_duplicates(cut) if w.text not in never_read]
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


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY, exact: bool = True) -> bytes:
    """A sentencepiece Unigram model with byte fallback, as the bytes of its file; unless `exact`, with fewer pieces
    where the text has no more to give.

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
        hard_vocab_limit=exact,
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


def tokenizer_sample(training: Mapping[str, list[Document]], size: float = 1.0, seed: int = SEED) -> Iterator[str]:
    """About as many bytes of each domain as the model will see of it, so that chats get the pieces they need: 9 million
    characters, or `size` of that."""
    budgets = {"chat": 2_500_000, "questions": 100_000, "verse": 1_700_000, "scripture": 1_000_000, "code": 1_700_000}
    for domain, budget in budgets.items():
        documents = sorted(training[domain], key=lambda d: (d.work, d.text))
        random.Random(seed).shuffle(documents)
        yield from first_characters((document.text for document in documents), round(size * budget))
    generator = np.random.default_rng(seed)
    for draw, budget in ((a_conversation, 1_600_000), (a_story, 600_000), (a_lesson, 1_000_000)):
        yield from first_characters((draw(generator) for _ in count()), round(size * budget))


def first_characters(texts: Iterable[str], budget: int) -> Iterator[str]:
    """The texts until `budget` characters are spent."""
    for text in texts:
        yield text[:budget]
        budget -= len(text)
        if budget <= 0:
            return


def a_lesson(generator: np.random.Generator) -> str:
    """One instance of a skill that is not held out, some skills more often than others."""
    names = sorted(SKILLS)
    often = np.array([OFTEN.get(name, 1.0) for name in names])
    name = names[int(generator.choice(len(names), p=often / often.sum()))]
    return SKILLS[name].draw(generator, held_out=False).text


def encode_one(text: str, processor: sentencepiece.SentencePieceProcessor, marked: bool) -> Stream:
    """The tokens of a document and END after it. With `marked` it is a dialogue whose human turns are read and not
    announced: the line break after each answer but the last is UNTAUGHT, so that after an answer only END is learned.
    """
    tokens = np.array([*processor.encode(text), processor.piece_to_id(END)], dtype=np.uint16)
    if marked and text.startswith("human: "):
        newline = processor.piece_to_id("\n")
        breaks = np.flatnonzero((tokens[:-1] == newline) & (tokens[1:] == newline))
        tokens[breaks[1::2]] |= UNTAUGHT  # they come in turns: before adept, before human
    return tokens


def encode(
    documents: list[Document],
    processor: sentencepiece.SentencePieceProcessor,
    seed: int | None,
    marked: bool = False,
) -> Stream:
    """All documents in one uint16 stream, END before the first and after each; `marked` as in `encode_one`.

    Shuffled when a seed is given: neighbouring windows of one chat overlap and would teach copying across END.
    """
    order = list(documents)
    if seed is not None:
        random.Random(seed).shuffle(order)
    end = np.array([processor.piece_to_id(END)], dtype=np.uint16)
    return np.concatenate([end, *(encode_one(document.text, processor, marked) for document in order)])


def made_by() -> str:
    """Another text for each state of the code and the lists that the documents are made by."""
    here = files(__package__)
    return hashlib.sha256(b"".join(here.joinpath(name).read_bytes() for name in MADE_BY)).hexdigest()


def check_same_text(folder: Path, tokenizer: Path | None) -> None:
    """Raises ValueError for a corpus that other code made, or that has another tokenizer than this file."""
    origin = folder / "made_by"
    reason = None
    if not origin.exists() or origin.read_text(encoding="utf-8") != made_by():
        reason = "was made by another state of persimmon_lab/training, and its text may be another"
    elif tokenizer is not None and tokenizer.read_bytes() != (folder / "tokenizer.model").read_bytes():
        reason = f"has another tokenizer than {tokenizer}"
    if reason is not None:
        raise ValueError(
            f"{folder} {reason}: go on with the commit that the run began with (named in {folder.parent / 'commit'}), "
            "give a new --workdir, or delete that folder to have the text made anew"
        )


def prepare(
    workdir: Path,
    *,
    vocabulary: int = VOCABULARY,
    size: float = 1.0,
    tokenizer: Path | None = None,
    progress: bool | None = None,
) -> Path:
    """Make `workdir`/corpus: tokenizer.model, train/DOMAIN.bin, held_out/DOMAIN.{bin,txt} and summary.json.

    The tokenizer is trained on `size` of its usual text; or it is `tokenizer`, the file that belongs to weights which
    are trained further.

    summary.json is written last; where it exists the work is done and nothing is repeated. Raises ValueError where it
    was done by other code or with another tokenizer.
    """
    folder = workdir / "corpus"
    if (folder / "summary.json").exists():
        check_same_text(folder, tokenizer)
        return folder
    for part in ("train", "held_out"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    training, held_out = read_documents(workdir / "downloads")
    pieces = tokenizer.read_bytes() if tokenizer else train_tokenizer(tokenizer_sample(training, size), vocabulary)
    write_atomically(folder / "tokenizer.model", pieces)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    summary = {}
    jobs = [
        (part, domain, documents)
        for part, domains in (("train", training), ("held_out", held_out))
        for domain, documents in domains.items()
    ]
    for part, domain, documents in tqdm(jobs, desc="encode", disable=bar_is_off(progress)):
        stream = encode(documents, processor, SEED if part == "train" else None, marked=domain in CUT_FROM_CHATS)
        write_atomically(folder / part / f"{domain}.bin", stream.tobytes())
        if part == "held_out":
            write_atomically(folder / part / f"{domain}.txt", "\n\n".join(d.text for d in documents).encode())
        summary[f"{part}/{domain}"] = {
            "documents": len(documents),
            "bytes": sum(len(d.text.encode()) for d in documents),
            "tokens": len(stream),
        }
    write_atomically(folder / "made_by", made_by().encode())
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2).encode())
    return folder
