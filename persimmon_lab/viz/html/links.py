"""The strongest links of one token as a table in HTML: how much, and which part of the score it comes from."""

from collections.abc import Sequence
from dataclasses import dataclass

from persimmon_lab.viz.html.tokens import MUTED, bar_html, escaped, percent


@dataclass(frozen=True)
class Link:
    """From a looking token to another: the attention, and the two parts that the score before the softmax is made of.

    `label` and `position` are those of the token at the far end.
    """

    label: str
    position: int
    attention: float
    rotated: float
    passed: float


def token_html(label: str, position: int) -> str:
    """A token and where it stands."""
    return (
        f'<span style="font-family: monospace; font-weight: bold">{escaped(label)}</span>'
        f'<span style="{MUTED}"> {position:,}</span>'
    )


def links_html(links: Sequence[Link], heading: str, token: tuple[str, int], verb: str, other: int) -> str:
    """A table of links under a heading; the one whose position is `other` is heavier and has a sign.

    `token` is the label and position of the token that they start from, `verb` what it does: "looks at".
    """
    return "".join(
        [
            f'<div style="margin-bottom: 2px; {MUTED}">{escaped(heading)}</div>',
            f'<div style="font-size: 115%">{token_html(*token)} {escaped(verb)}</div>',
            '<table style="table-layout: auto; width: 100%; margin: 6px 0; border-collapse: collapse; font-size: 1em">',
            "<tr>",
            *(cell(f'<span style="{MUTED}">{name}</span>', "left" if not name or name == "attention" else "right",
                   span) for name, span in HEADINGS),
            "</tr>",
            *(link_html(link, chosen=link.position == other) for link in links),
            "</table>",
        ]
    )  # fmt: skip


HEADINGS = (("", 1), ("attention", 2), ("rotated", 1), ("passed", 1), ("score", 1))


def cell(content: str, align: str, span: int = 1, wraps: bool = False) -> str:
    wrap = "overflow-wrap: anywhere" if wraps else "white-space: nowrap"
    style = f"padding: 1px 3px; border: none; {wrap}; text-align: {align}"
    return f'<td colspan="{span}" style="{style}">{content}</td>'


def link_html(link: Link, chosen: bool) -> str:
    """A row: the token, a bar as long as the attention, the attention, and rotated + passed = score."""
    score = f"{link.rotated + link.passed:+.2f}"
    return (
        f'<tr style="background-color: transparent; font-weight: {"bold" if chosen else "normal"}">'
        + cell(token_html(link.label, link.position) + (" ◂" if chosen else ""), "left", wraps=True)
        + cell(f'<div style="width: 30px">{bar_html(link.attention)}</div>', "left")
        + cell(escaped(percent(link.attention)), "right")
        + "".join(
            cell(number.replace("-", "−"), "right") for number in (f"{link.rotated:+.2f}", f"{link.passed:+.2f}", score)
        )
        + "</tr>"
    )
