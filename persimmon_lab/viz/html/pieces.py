"""A text as the pieces it is cut into, in HTML: each with its number, its bytes, and how else it could have been cut.

Everything that comes from outside is escaped. Colours only part neighbours, and a gap does so without them; they are
translucent, so that a dark theme shines through. `page_html` styles all inline and so survives in a notebook that
nobody has trusted yet.
"""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from persimmon_lab.viz.agreement import check_marks
from persimmon_lab.viz.html.tokens import CHIP, MUTED, SURPRISE, bar_html, direction, escaped, mark, percent, rgba
from persimmon_lab.viz.signs import plural

COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167))  # Okabe and Ito's blue, orange, green, purple
OPACITY = 0.24
GAP = "display: inline-block; line-height: 1.5; border-radius: 4px; margin: 0 1px; padding: 1px 2px"
BYTE = "font-family: monospace; font-size: 80%; border: 1px dashed; border-radius: 4px; padding: 0 2px; margin: 0 1px"
SPACE = "\u2581"  # sentencepiece's visible space
LINE = "\u21b5"


@dataclass(frozen=True)
class Piece:
    """One token of a text. `name` is what the vocabulary calls it, `data` what it adds to a text, in UTF-8.

    `start` and `end` are characters of the text. A byte is that of `character`, its `byte`-th from 0, of `of_bytes`.
    `score` is its log-probability; of a byte, that of its whole character; a special token has none.
    """

    token_id: int
    name: str
    data: bytes
    start: int
    end: int
    kind: Literal["piece", "byte", "special"] = "piece"
    score: float | None = None
    character: str = ""
    byte: int = 0
    of_bytes: int = 1


@dataclass(frozen=True)
class Cut:
    """A way to cut a stretch of text: the names of its pieces, its log-probability, its share of all ways."""

    pieces: tuple[str, ...]
    score: float
    share: float


@dataclass(frozen=True)
class Stretch:
    """The text around a piece that is cut without regard to the rest: the best cuts of it, and how many there are.

    `used` is the share of all cuts, by their probability, that has the piece where it stands.
    """

    text: str
    ways: int
    used: float
    cuts: tuple[Cut, ...]


def colour(index: int) -> str:
    return rgba(COLOURS[index % len(COLOURS)], OPACITY)


def signed(score: float) -> str:
    """Two decimals, with a minus sign as wide as a digit."""
    return f"{score:.2f}".replace("-", "\u2212")


def hexadecimal(data: bytes) -> str:
    return data.hex(" ").upper()


def name_html(name: str) -> str:
    """A piece of the vocabulary with faint signs for a space and for a line break, which breaks no line here."""
    return mark("␣").join(escaped(part).replace("\n", "") for part in name.split(SPACE))


def piece_html(piece: Piece, style: str | None = None) -> str:
    """One `<span class="piece">`; its tooltip says the numbers. With `style` what it needs to look like one is inline.

    A byte shows itself, the first one after its character.
    """
    facts = [piece.name.replace("\n", LINE), f"id {piece.token_id}"]
    if piece.kind == "byte":
        facts.append(f"byte {piece.byte + 1} of {piece.of_bytes} of {piece.character!r}")
        inner = f'<span class="hex" style="{BYTE}">{piece.data.hex().upper()}</span>'
        inner = (mark(piece.character) if piece.byte == 0 and piece.character.isprintable() else "") + inner
    elif piece.kind == "special":
        facts.append("special token")
        inner = mark(piece.name, CHIP)
    else:
        facts += [] if piece.score is None else [signed(piece.score)]
        inner = name_html(piece.name)
    styled = "" if style is None else f' style="{GAP}; {style}"'
    title = html.escape(" · ".join(facts))
    # A line of text ends after its line break, not within the piece, which is one box.
    after = "<br>" if piece.name == "\n" else ""
    return f'<span class="piece {piece.kind}"{styled} title="{title}">{inner}</span>{after}'


def cut_html(cut: Cut, chosen: bool) -> str:
    """A table row: the pieces, each a box, the log-probability, a bar as long as the share of all ways, and it."""
    cell = "padding: 2px 4px; border: none; text-align"
    boxes = "".join(
        f'<span style="{GAP}; background-color: {colour(index)}">{name_html(name)}</span>'
        for index, name in enumerate(cut.pieces)
    )
    return (
        f'<tr style="background-color: transparent; font-weight: {"bold" if chosen else "normal"}">'
        f'<td style="{cell}: left; font-family: monospace">{boxes}{" ◂" if chosen else ""}</td>'
        f'<td style="{cell}: right; white-space: nowrap">{signed(cut.score)}</td>'
        f'<td style="{cell}: left; width: 22%">{bar_html(cut.share)}</td>'
        f'<td style="{cell}: right; white-space: nowrap">{escaped(percent(cut.share))}</td></tr>'
    )


def facts_of(piece: Piece, used: float | None) -> list[tuple[str, str]]:
    """What there is to say of a piece, in pairs of HTML: a word and a value."""
    facts = [("id", f"{piece.token_id:,}")]
    if piece.kind == "special":
        where = "put before the text" if piece.start == piece.end else f"characters {piece.start}\u2013{piece.end}"
        return [*facts, ("stands for", "no text: a special token"), ("where", where)]
    facts.append(("bytes", f'<span style="font-family: monospace">{hexadecimal(piece.data)}</span>'))
    if piece.kind == "byte":
        facts.append(("byte", f"{piece.byte + 1} of {piece.of_bytes} of {escaped(piece.character)}"))
    covers = "the space before the text" if piece.start == piece.end else f"characters {piece.start}\u2013{piece.end}"
    facts.append(("covers", covers))
    if piece.score is not None:
        rare = f"one in {math.exp(-piece.score):,.0f}" if piece.score < 0 else "certain"
        said = "of the unknown character, once" if piece.kind == "byte" else rare
        facts.append(("log-probability", f"{signed(piece.score)} \u2002{said}"))
    if used is not None:
        facts.append(("used by", f"{escaped(percent(used))} of all cuts"))
    return facts


def details_html(piece: Piece, stretch: Stretch | None) -> str:
    """One piece and, if its text is cut by probability, the ways to cut the stretch it stands in."""
    used = None if stretch is None else stretch.used
    rows = "".join(
        f'<div style="display: flex; gap: 8px"><span style="{MUTED}; flex: 0 0 8.5em">{name}</span>'
        f"<span>{value}</span></div>"
        for name, value in facts_of(piece, used)
    )
    name = mark(piece.name, CHIP) if piece.kind == "special" else name_html(piece.name)
    title = f'<div style="font: 150% monospace; margin-bottom: 6px">{name}</div>'
    if stretch is None:
        return title + rows
    said = "one way to cut it" if stretch.ways == 1 else f"{number(stretch.ways)} ways to cut it"
    shown = "" if stretch.ways <= len(stretch.cuts) else f", the best {len(stretch.cuts)}"
    chosen = max(range(len(stretch.cuts)), key=lambda index: stretch.cuts[index].score)
    table = "".join(cut_html(cut, index == chosen) for index, cut in enumerate(stretch.cuts))
    return (
        f'{title}{rows}<div style="margin: 10px 0 2px"><span style="font-family: monospace">'
        f'{name_html(stretch.text)}</span> <span style="{MUTED}">{said}{shown}</span></div>'
        '<table style="table-layout: auto; width: 100%; margin: 0; border-collapse: collapse; font-size: 1em">'
        f"{table}</table>"
    )


def number(count: int) -> str:
    """1234 as "1,234", a longer one as "3.2 × 10⁷⁸": a count of cuts has hundreds of digits, more than a float."""
    digits = str(count)
    if len(digits) <= 6:
        return f"{count:,}"
    power = str(len(digits) - 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits[0]}.{digits[1]} × 10{power}"


def counts_html(text: str, pieces: Sequence[Piece], ways: int, share: float) -> str:
    """Characters, bytes, tokens, bytes a token (special ones apart), and how this cut stands among all."""
    size = len(text.encode("utf-8"))
    special = sum(piece.kind == "special" for piece in pieces)
    ordinary = len(pieces) - special
    counts = {"character": len(text), "byte": size, "token": len(pieces)}
    parts = [f"<b>{count:,}</b> {noun if count == 1 else plural(noun)}" for noun, count in counts.items()]
    parts[-1] += f" ({special} special)" if special else ""
    if ordinary:
        covered = size - sum(len(piece.data) for piece in pieces if piece.kind == "special" and piece.start < piece.end)
        parts.append(f"<b>{covered / ordinary:.2f}</b> bytes per token")
        best = "the only cut" if ways == 1 else f"the best of {number(ways)} cuts"
        parts.append(f"{best} has {escaped(percent(share))} of the probability")
    return " · ".join(parts)


def page_html(
    pieces: Sequence[Piece], counts: str, inspect: int | None = None, stretch: Stretch | None = None, most: int = 600
) -> str:
    """Pieces, counts and the details of the piece at `inspect`, for where nothing can be clicked.

    No more than `most` pieces are shown; how many are left out is said. ValueError where there is no piece at
    `inspect`.
    """
    check_marks([] if inspect is None else [inspect], piece=len(pieces))
    shown = "".join(
        piece_html(piece, f"background-color: {colour(index)}" + (OUTLINE if index == inspect else ""))
        for index, piece in enumerate(pieces[:most])
    )
    if len(pieces) > most:
        shown += mark(f" … and {len(pieces) - most:,} more")
    details = "" if inspect is None else details_html(pieces[inspect], stretch)
    # Each piece is a box, and what is written in boxes says nothing of the line that they stand in.
    read = b"".join(piece.data for piece in pieces[:most] if piece.kind != "special").decode(errors="replace")
    return (
        '<div style="display: flex; flex-wrap: wrap; gap: 8px 32px; max-width: 72em; font-size: 14px; '
        'print-color-adjust: exact">'
        f'<div style="flex: 1 0 100%; font-size: 90%">{counts}</div>'
        f'<div dir="{direction(read)}" style="flex: 1 1 26em; white-space: pre-wrap; line-height: 2.0; '
        f'overflow-wrap: anywhere">{shown}</div><div style="flex: 0 1 25em; min-width: 0">{details}</div></div>'
    )


OUTLINE = f"; outline: 2px solid {rgba(SURPRISE, 0.9)}"
