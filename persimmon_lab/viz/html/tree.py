"""A tree of texts in HTML: a row for each branch, indented below the one that it left."""

from collections.abc import Sequence
from dataclasses import dataclass

from persimmon_lab.viz.html.tokens import MUTED, escaped, percent, rgba

SHOWN = 120  # characters of a text
CHOSEN = (30, 136, 200)


@dataclass(frozen=True)
class Row:
    """One branch: how deep it hangs, the words before its fork, the token put in there with its probability, the text
    that follows, and how it was made."""

    number: int
    depth: int
    before: str
    forced: str | None
    probability: float | None
    text: str
    made: str
    name: str = ""
    selected: bool = False


def tree_html(rows: Sequence[Row]) -> str:
    """A row for each branch, in the order given."""
    return f'<div class="branches" role="tree" aria-label="Branches">{"".join(map(row_html, rows))}</div>'


def row_html(row: Row) -> str:
    """`data-number` says which branch it is, for a page that lets it be chosen."""
    background = f"background-color: {rgba(CHOSEN, 0.16)}; " if row.selected else ""
    edge = rgba(CHOSEN, 1.0) if row.selected else "transparent"
    indent = f"padding: 3px 8px 3px {8 + 22 * row.depth}px"
    corner = f'<span style="{MUTED}; margin-left: -14px">└ </span>' if row.depth else ""
    name = f"<b>{escaped(row.name)}</b> " if row.name else ""
    before = f'<span style="{MUTED}">{escaped(one_line(row.before))}</span>' if row.before else ""
    forced = ""
    if row.forced is not None:
        said = "" if row.probability is None else escaped(percent(row.probability))
        forced = (
            f'<span style="border: 1px solid {rgba(CHOSEN, 0.9)}; border-radius: 4px; padding: 0 4px; margin: 0 2px; '
            f'background-color: {rgba(CHOSEN, 0.16)}">{escaped(one_line(row.forced))} '
            f'<span style="font-size: 85%">{said}</span></span>'
        )
    text = escaped(one_line(row.text)[:SHOWN])
    return (
        f'<div class="branch" role="treeitem" aria-level="{row.depth + 1}" aria-selected="{str(row.selected).lower()}" '
        f'data-number="{row.number}" style="{background}border-left: 3px solid {edge}; {indent}; display: flex; '
        f'gap: 8px; align-items: baseline">'
        f'<span style="flex: none">{corner}{row.number}</span>'
        '<span class="words" style="flex: 1; min-width: 0; overflow: clip; text-overflow: ellipsis; white-space: pre">'
        f"{name}{before}{forced}{text}</span>"
        f'<span class="made" style="flex: none; font-size: 85%; {MUTED}">{escaped(row.made)}</span></div>'
    )


def one_line(text: str) -> str:
    return text.replace("\n", "↵")
