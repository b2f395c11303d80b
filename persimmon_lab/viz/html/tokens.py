"""Text as the tokens it is made of, in HTML: each coloured by its probability, and what else it could have been.

Everything that comes from outside is escaped: a token may be `<script>`. Whatever matters is styled inline and with
translucent colours, so that a notebook nobody has trusted yet, which loses its style sheets, looks the same, and a dark
theme shines through.
"""

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from persimmon_lab.viz.agreement import check_marks
from persimmon_lab.viz.signs import JOINERS, character_name

SURPRISE = (213, 94, 0)  # vermillion of Okabe and Ito's palette: tells apart from every grey, in every kind of vision
BAR = (30, 136, 200)  # its blue, lighter, so that it shows on black as well as on white
OPACITY_PER_BIT = 0.075
STRONGEST = 0.7  # more would make the text on it hard to read in one of the two themes
LEGEND = (1.0, 0.5, 0.1, 0.01, 0.001)

MUTED = "opacity: 0.8"  # text that stands back: with less it would fall below a contrast of 4.5 where all of it is pale
# A name in the place of a token; its letters do not say from which side a line is read.
CHIP = "font-size: 75%; border: 1px solid; border-radius: 4px; padding: 0 3px; margin: 0 2px; unicode-bidi: isolate"
SHOWN = "print-color-adjust: exact; forced-color-adjust: none"  # its colour is the message, on paper as well
WRITTEN = "white-space: pre-wrap; unicode-bidi: plaintext"  # a text, each line from its own side
VISIBLE = {"\n": "↵\n", "\t": "⇥\t"}
KEPT = f"{JOINERS}\u3000"  # joiners, which emoji and Persian are written with, and a space as wide as a character


@dataclass(frozen=True)
class Token:
    """A token as a reader sees it.

    `text` is what it adds to the text: nothing for a special token or for the first bytes of a character. `piece` is
    its name in the vocabulary, `token_id` its number there. One that the model wrote, or that a reader put in the place
    of one, also has the probability it had, its rank (1 is the most probable), the entropy of the whole distribution in
    bits, and (piece, probability) of the most probable ones.
    """

    text: str
    piece: str
    probability: float | None = None
    rank: int = 0
    entropy_bits: float = 0.0
    alternatives: tuple[tuple[str, float], ...] = ()
    token_id: int | None = None


def tint(probability: float) -> str:
    """A translucent colour: nothing for a certain token, stronger with each bit of surprise, -log2(probability)."""
    bits = -math.log2(max(probability, 2.0**-64))
    return rgba(SURPRISE, min(OPACITY_PER_BIT * bits, STRONGEST))


def rgba(colour: tuple[int, int, int], opacity: float) -> str:
    return f"rgba({colour[0]}, {colour[1]}, {colour[2]}, {opacity:.3f})"


def percent(probability: float) -> str:
    """One decimal, two below 1 %, and never 0 % or 100 % for what is only nearly so."""
    if probability == 1:
        return "100 %"
    if probability >= 0.9995:
        return "> 99.9 %"
    if probability < 0.0001:
        return "< 0.01 %"
    return f"{100 * probability:.{1 if probability >= 0.01 else 2}f} %"


def escaped(text: str) -> str:
    """Text as HTML that shows every character: line breaks and tabs with a mark, those without ink by their name."""
    if text.isprintable():
        return html.escape(text)
    # A joiner joins what stands around it; alone nobody would see it.
    kept = KEPT if text.strip(JOINERS) else ""
    return "".join(
        html.escape(character)
        if character.isprintable() or character in kept
        else mark(VISIBLE[character][0]) + VISIBLE[character][1]
        if character in VISIBLE
        else mark(character_name(character), CHIP)
        for character in text
    )


def direction(text: str) -> str:
    """The side from which a text is read: that of its first letter, "ltr" where it has none."""
    strong = (kind for kind in map(unicodedata.bidirectional, text) if kind in ("L", "R", "AL"))
    return "ltr" if next(strong, "L") == "L" else "rtl"


def mark(label: str, style: str = MUTED) -> str:
    """A sign that stands for something, and is not part of the text."""
    return f'<span class="mark" style="{style}">{html.escape(label)}</span>'


def token_html(token: Token, outlined: bool = False) -> str:
    """One `<span class="token">`; its tooltip says the numbers."""
    inner = escaped(token.text)
    if token.text == "":
        inner = mark("·") if token.piece.startswith("<0x") else mark(token.piece, CHIP)
    if token.probability is None:
        return f'<span class="token" style="{MUTED}" title="{html.escape(token.piece)}">{inner}</span>'
    numbers = (percent(token.probability), f"rank {token.rank:,}", f"entropy {token.entropy_bits:.1f} bits")
    title = " · ".join([token.piece, *numbers])
    style = f"background-color: {tint(token.probability)}; border-radius: 3px"
    if outlined:
        style += f"; outline: 2px solid {rgba(BAR, 0.9)}"
    return f'<span class="token" style="{style}" title="{html.escape(title)}">{inner}</span>'


def tokens_html(tokens: Sequence[Token]) -> str:
    """The tokens side by side."""
    return "".join(map(token_html, tokens))


def legend_html() -> str:
    """The colours of `tint`, from certain to surprising."""
    swatches = "".join(
        f'<span style="background-color: {tint(probability)}; border-radius: 3px; padding: 1px 6px; margin-left: 4px">'
        f"{100 * probability:g} %</span>"
        for probability in LEGEND
    )
    said = "before temperature, top-k and top-p"
    return f'<span style="font-size: 85%">the model’s probability {swatches} &ensp;{said}</span>'


def alternative_html(rank: int, piece: str, probability: float, chosen: bool) -> str:
    """A table row: rank, piece, a bar as long as the probability, and the probability; heavier for the chosen one."""
    cell = "padding: 1px 4px; border: none; white-space: nowrap; text-align"
    return (
        f'<tr style="background-color: transparent; font-weight: {"bold" if chosen else "normal"}">'
        f'<td style="{cell}: right"><span style="{MUTED}">{rank:,}</span></td>'
        f'<td style="{cell}: left">{piece_html(piece)}{" ◂" if chosen else ""}</td>'
        f'<td style="{cell}: left; width: 40%">{bar_html(probability)}</td>'
        f'<td style="{cell}: right">{escaped(percent(probability))}</td></tr>'
    )


def bar_html(share: float) -> str:
    """A bar as long as the share of what it stands in."""
    style = f"width: {100 * share:.1f}%; min-width: 1px; height: 9px; background-color: {rgba(BAR, 0.9)}"
    return f'<div style="{style}; {SHOWN}"></div>'


def piece_html(piece: str) -> str:
    """A piece of the vocabulary in fixed width, with sentencepiece's sign for a space as a faint one."""
    return f'<span style="font-family: monospace">{mark("␣").join(map(escaped, piece.split("▁")))}</span>'


def page_html(prompt: Sequence[Token], tokens: Sequence[Token], details: str, inspect: int | None = None) -> str:
    """Prompt and tokens, with a frame around the one at `inspect`, its `details` in HTML beside them, and the legend.

    A page for where nothing can be clicked. ValueError where there is no token at `inspect`.
    """
    check_marks([] if inspect is None else [inspect], token=len(tokens))
    text = tokens_html(prompt) + "".join(
        token_html(token, outlined=index == inspect) for index, token in enumerate(tokens)
    )
    return (
        '<div style="display: flex; flex-wrap: wrap; gap: 8px 32px; max-width: 72em; font-size: 14px; '
        'print-color-adjust: exact">'
        f'<div style="flex: 1 1 26em; {WRITTEN}; line-height: 1.8">{text}</div>'
        f'<div style="flex: 0 1 27em; min-width: 0">{details}</div>'
        f'<div style="flex: 1 0 100%">{legend_html()}</div></div>'
    )
