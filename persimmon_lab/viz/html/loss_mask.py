"""The mask of a loss, on the tokens: which ones are taught, and which are only read."""

import html
from collections.abc import Sequence

from persimmon_lab.viz.agreement import check_labels
from persimmon_lab.viz.html.tokens import BAR, CHIP, MUTED, SHOWN, WRITTEN, Token, escaped, mark, rgba
from persimmon_lab.viz.signs import counted

TAUGHT = f"background-color: {rgba(BAR, 0.3)}; text-decoration: underline; border-radius: 3px; {SHOWN}"


def loss_mask_html(tokens: Sequence[Token], taught: Sequence[str | None], *, left_out: int = 0) -> str:
    """The tokens as a text, with those underlined in whose place the model learns to say something.

    `taught` has the piece that is learned there, which after an answer is the end token and not the token itself, and
    None where the token is only read. `left_out` counts the tokens after them that no longer fit, which are told and
    not shown. ValueError where the two are not equally long.
    """
    check_labels("piece", taught, token=len(tokens))
    count = sum(piece is not None for piece in taught)
    said = f"{count} of {len(tokens)} tokens are taught, the others only read"
    if left_out:
        said += f"; {counted(left_out, 'more token')} did not fit and {'is' if left_out == 1 else 'are'} left out"
    return (
        f'<div role="group" aria-label="{said}"><div style="{WRITTEN}; line-height: 1.8">'
        + "".join(map(_token_html, tokens, taught))
        + f'</div><div style="font-size: 85%"><span style="{TAUGHT}">taught</span> '
        f'<span style="{MUTED}">only read</span> &ensp;{said}</div></div>'
    )


def _token_html(token: Token, piece: str | None) -> str:
    """A token with its part in the tooltip, and the piece that is learned in its place where that is another one."""
    inner = escaped(token.text) if token.text else mark(token.piece, CHIP)
    title = f"{token.piece} · " + ("only read" if piece is None else f"taught: {piece}")
    if piece is not None and piece != token.piece:
        inner = mark(piece, CHIP) + inner
    return f'<span style="{MUTED if piece is None else TAUGHT}" title="{html.escape(title)}">{inner}</span>'
