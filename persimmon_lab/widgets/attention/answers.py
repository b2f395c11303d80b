"""What the page of the attention explorer asks for, and what it is sent: never more than it can draw.

Each answer is a few words and some tensors, which travel as bytes. A picture of a head has at most 128 x 128 cells of
one byte, whatever the length of the text; a row has four bytes a token.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from einops import reduce

from persimmon_lab.widgets.attention.reading import PICTURE, THUMBNAIL, Reading, in_blocks, in_bytes, label
from persimmon_lab.widgets.explorer import Answer, Content

FAINT = 0.5  # the power that lifts faint attention


@dataclass(frozen=True)
class Order:
    """A score that the heads are sorted by: what it measures, its unit, and whether little of it is remarkable."""

    meaning: str
    unit: str = "%"
    lowest_first: bool = False


LINK = Order("attention between the chosen token and the other end (underlined)")
ORDERS = {
    "layer": LINK,
    "this link": LINK,
    "focus": Order("entropy, in bits, of where the chosen token looks; 0 is one key alone", "bits", lowest_first=True),
    "previous token": Order("mean attention to the token just before"),
    "induction": Order("mean attention to what followed an earlier token like the looking one"),
    "same token": Order("mean attention to the same token, earlier"),
    "first token": Order("mean attention to the first token"),
}


def answer_whole(reading: Reading) -> Answer:
    """The tokens (name, begins a word, ends a line) and every head small."""
    layers, heads, _ = reading.shape
    pictures = in_bytes(reading.thumbnails, 1.0, FAINT)
    tokens = [(label(token), token.piece.startswith("▁"), token.text.endswith("\n")) for token in reading.tokens]
    return {"tokens": tokens, "layers": layers, "heads": heads, "size": pictures.shape[-1]}, [pictures]


def answer_row(reading: Reading, layer: int, head: int, view: str, token: int, direction: str) -> Answer:
    """What one head's token sees, or who sees it; in the views of scores the attention as well.

    `limit` is what a score's colour is relative to.
    """
    views = ("pattern",) if view == "pattern" else (view, "pattern")
    rows = [reading.row(layer, head, one, token, direction) for one in views]
    return {"limit": colour_limit(reading, layer, head, view)}, rows


def answer_head(reading: Reading, layer: int, head: int, view: str) -> Answer:
    """One head's picture; a cell stands for `block` x `block` positions."""
    picture = in_blocks(reading.matrix(layer, head, view), PICTURE)
    limit, block = colour_limit(reading, layer, head, view), -(-reading.shape[2] // PICTURE)
    content = {"size": len(picture), "block": block, "limit": limit}
    return content, [in_bytes(picture, limit, FAINT if view == "pattern" else 1.0)]


def colour_limit(reading: Reading, layer: int, head: int, view: str) -> float:
    return 1.0 if view == "pattern" else reading.largest(layer, head)


def answer_heads(reading: Reading, token: int, other: int, direction: str, order: str) -> Answer:
    """For every head its score in this order, and a strip: what the chosen token sees, in blocks of positions."""
    rows = reading.rows(token, direction)
    if ORDERS[order] is LINK:
        scores = rows[..., other]
    else:
        scores = reading.entropy(token) if order == "focus" else reading.means[order]
    block = -(-rows.shape[-1] // THUMBNAIL)
    padded = F.pad(rows, (0, -rows.shape[-1] % block))
    strips = reduce(padded, "layer head (place block) -> layer head place", "max", block=block)
    about = ORDERS[order]
    words = {"meaning": about.meaning, "unit": about.unit, "lowest_first": about.lowest_first}
    return words, [scores.float(), in_bytes(strips, 1.0, FAINT)]


def strongest_in_block(
    reading: Reading, layer: int, head: int, view: str, query: int, key: int, block: int
) -> tuple[int, int]:
    """The query and key of the largest number in a block that begins at these, by size."""
    values = reading.matrix(layer, head, view)[query : query + block, key : key + block].abs()
    row, column = divmod(int(values.argmax()), values.shape[1])
    return query + row, key + column


ANSWERS: dict[str, Callable[..., Answer]] = {
    "whole": answer_whole,
    "row": answer_row,
    "head": answer_head,
    "heads": answer_heads,
}


def answer(reading: Reading, question: Content) -> Answer:
    """Answer a question from the page by its `type`, the other entries being its arguments; `key` is sent back."""
    arguments = {name: value for name, value in question.items() if name not in ("type", "key")}
    content, tensors = ANSWERS[question["type"]](reading, **arguments)
    return question | content, tensors
