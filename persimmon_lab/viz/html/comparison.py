"""Two texts side by side in HTML, with the token at which they part."""

from collections.abc import Sequence
from itertools import zip_longest

from persimmon_lab.viz.html.tokens import MUTED, WRITTEN, Token, escaped, percent, piece_html, token_html
from persimmon_lab.viz.signs import counted


def first_difference(one: Sequence[Token], other: Sequence[Token]) -> int | None:
    """The index of the first token that differs, or that only one of them has; None where there is none."""
    for index, (mine, theirs) in enumerate(zip_longest(one, other)):
        if mine is None or theirs is None or mine.token_id != theirs.token_id:
            return index
    return None


def comparison_html(names: tuple[str, str], texts: tuple[Sequence[Token], Sequence[Token]]) -> str:
    """A column for each text, headed A and B: what they share is faint, the first token that differs is framed."""
    parting = first_difference(*texts)
    columns = "".join(column_html(*column, parting) for column in zip("AB", names, texts, strict=True))
    return (
        f'<div class="comparison" style="font-size: 14px; border: 1px solid rgba(128, 128, 128, 0.5); '
        f'border-radius: 6px; padding: 8px 14px; print-color-adjust: exact">{said_html(texts, parting)}'
        '<div style="display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 20px; margin-top: 6px">'
        f"{columns}</div></div>"
    )


def said_html(texts: tuple[Sequence[Token], Sequence[Token]], parting: int | None) -> str:
    if parting is None:
        return f"<div>A and B write the same {counted(len(texts[0]), 'token')}.</div>"
    ways = " · ".join(
        f"{letter} takes {_taken_html(text[parting])}" if parting < len(text) else f"{letter} ends"
        for letter, text in zip("AB", texts, strict=True)
    )
    agree = {0: "No tokens agree", 1: "The first token agrees"}.get(parting, f"The first {parting:,} tokens agree")
    return f"<div>{agree}; then {ways}</div>"


def _taken_html(token: Token) -> str:
    """A token with its probability, where it has one."""
    said = "" if token.probability is None else f" ({escaped(percent(token.probability))})"
    return piece_html(token.piece) + said


def column_html(letter: str, name: str, tokens: Sequence[Token], parting: int | None) -> str:
    shared = len(tokens) if parting is None else parting
    faint = "".join(map(token_html, tokens[:shared]))
    own = "".join(token_html(token, outlined=index == 0) for index, token in enumerate(tokens[shared:]))
    return (
        f'<div><div style="border-bottom: 1px solid rgba(128, 128, 128, 0.5); margin-bottom: 4px"><b>{letter}</b> '
        f'<span style="{MUTED}">{escaped(name)}</span></div>'
        f'<div style="{WRITTEN}; overflow-wrap: anywhere; line-height: 1.8">'
        f'<span style="{MUTED}">{faint}</span>{own}</div></div>'
    )
