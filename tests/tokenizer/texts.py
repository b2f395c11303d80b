"""The small tokenizer that the tests share, and texts to try tokenizers with."""

from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

from persimmon_lab.tokenizer import PersimmonTokenizer

FOLDER = Path(__file__).parents[1] / "fixtures" / "tokenizer"
TOKENIZER = PersimmonTokenizer.from_pretrained(FOLDER)
SPECIAL = ["|ENDOFTEXT|", "<s>", "</s>", "<unk>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

MADE_TO_BREAK = [
    *("\n", "\n\n", " ", "   ", "\t", "\r\n", "\u2581", "\u2581\u2581", " \u2581"),
    *("\x00", "\x01", "\x1b[31m", "\x7f", "\x85", "\u200b", "\u200e", "\u202e", "\ufeff", "\u2028", "\u3000"),
    *("e\u0301", "\u0301", "o\u0308\u0323", "h\u0353\u0358", "\u0e01\u0e33", "\u1100\u1161\u11a8"),
    *("\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627", "\u202eabc\u202c"),
    *("\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1ef\U0001f1f5", "\u2764\ufe0f", "\U0010ffff"),
    *("|", "|END", "OFTEXT|", "<0x", "0A>", "<s", "/s>"),
]
WORDS = (FOLDER / "text.txt").read_text(encoding="utf-8").split(" ")
RUNS = st.builds(str.__mul__, st.sampled_from("a_ \n|e\u67ff\u2581\U0001f431"), st.integers(1, 80))

# No lone surrogates: they are no text. Special tokens come in on request, as they do in the tokenizer.
texts = st.lists(st.text() | st.sampled_from(MADE_TO_BREAK) | st.sampled_from(WORDS) | RUNS, max_size=8).map("".join)
texts_with_special_tokens = st.lists(st.sampled_from([*SPECIAL, *BYTES[:20]]) | texts, max_size=8).map("".join)
id_lists = st.lists(st.integers(0, TOKENIZER.vocab_size - 1) | st.integers(0, 300), max_size=20)

thorough = settings(max_examples=100, deadline=None, derandomize=True)
