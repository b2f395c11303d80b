"""The loss mask that a reader sees is the one that training uses."""

import html
import re

import pytest

from persimmon_lab.finetuning import conversation, encode, pack
from persimmon_lab.finetuning.shown import show_loss_mask
from persimmon_lab.mini import load_mini

CHAT = conversation("Is it <b>late</b>?", "Yes, it is\nlate.", "Good\nnight!", "Sleep well.")


@pytest.fixture(scope="module")
def tokenizer():
    return load_mini()[1]


def seen(page):
    """(piece, what is learned in its place or None) of each token, and the spans' underlining."""
    spans = re.findall(r'<span style="([^"]*)" title="([^"]*)">', page)
    parted = [html.unescape(title).rpartition(" · ") for _, title in spans]
    assert all(("underline" in style) == (said != "only read") for (style, _), (*_, said) in zip(spans, parted))
    return [(piece, None if said == "only read" else said.removeprefix("taught: ")) for piece, _, said in parted]


@pytest.mark.parametrize("max_length", [None, 30], ids=["whole", "cut"])
def test_what_is_shown_as_taught_are_the_labels_of_training(tokenizer, max_length):
    encoded = encode(CHAT, tokenizer, max_length or 1000)
    labels = pack([encoded], 1000).labels[0].tolist()
    page = show_loss_mask(CHAT, tokenizer, max_length)
    name = tokenizer.convert_ids_to_tokens
    expected = [(name(i), None if label == -100 else name(label)) for i, label in zip(encoded.input_ids, labels)]
    assert seen(page) == expected
    assert (encoded.cut > 0) == (max_length is not None)
    told = re.search(r'aria-label="([^"]*)"', page)[1]
    assert told.startswith(f"{encoded.target_count} of {len(expected)} tokens are taught, the others only read")
    assert ("did not fit" in told) == (max_length is not None)
    if encoded.cut:
        assert told.endswith(f"; {encoded.cut} more tokens did not fit and are left out")


def test_the_answers_and_their_ends_are_taught_and_no_question(tokenizer):
    taught = [piece for _, piece in seen(show_loss_mask(CHAT, tokenizer)) if piece is not None]
    answers = "".join(taught).replace("▁", " ").replace("<0x0A>", "\n").split(tokenizer.eos_token)
    assert [answer.strip() for answer in answers] == ["Yes, it is\nlate.", "Sleep well.", ""]


def test_nothing_is_taken_for_html(tokenizer):
    page = show_loss_mask(CHAT, tokenizer)
    assert "<b>" not in page
    assert set(re.findall(r"<(\w+)", page)) == {"div", "span"}
