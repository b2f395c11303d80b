"""One cell of the logit lens in HTML: its best tokens, the following token's rank, and how that came about."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from persimmon_lab.viz.agreement import check_labels, check_marks
from persimmon_lab.viz.html.tokens import BAR, MUTED, SURPRISE, alternative_html, escaped, percent, piece_html, rgba
from persimmon_lab.viz.signs import stream_names, visible

CURVE = (260, 84)  # pixels of the plot; names of layers and ranks stand below it
LEFT, TOP, BELOW = 42.0, 8.0, 34.0
NAMED = 10  # layers at most that have room for their name and their rank


@dataclass(frozen=True)
class Cell:
    """What one state of the residual stream says next.

    `likeliest` are (piece, probability), best first; none where the model's numbers are not finite. `following` is the
    piece that follows in the text, None at its end; `probabilities` and `ranks` are those of it in every state of the
    stream at this position, the embedding first, NaN and 0 where it has none; `stream` is which of them the cell is.
    """

    read: str
    position: int
    place: str
    likeliest: tuple[tuple[str, float], ...]
    following: str | None
    probabilities: tuple[float, ...]
    ranks: tuple[int, ...]
    stream: int


def cell_html(cell: Cell, vocab_size: int) -> str:
    """Where it is, its best tokens with bars, and the following token's rank and probability with its curve."""
    rows = [(rank, *row) for rank, row in enumerate(cell.likeliest, start=1)]
    parts = [
        f'<div style="{MUTED}">{escaped(cell.place)}</div>',
        f'<div style="font-size: 115%">after <b>{piece_html(cell.read)}</b>'
        f'<span style="{MUTED}"> {cell.position:,}</span></div>',
    ]
    if not cell.likeliest:
        parts.append("<div>The numbers are not finite here (NaN or infinite): no token is the likeliest.</div>")
    if cell.following is None:
        parts.append(f'<div style="{MUTED}">The text ends here: nothing follows.</div>')
    elif cell.likeliest:
        rank, probability = cell.ranks[cell.stream], cell.probabilities[cell.stream]
        parts.append(
            f'<div><span style="{MUTED}">follows</span> <b>{piece_html(cell.following)}</b>'
            f'<span style="{MUTED}">: rank</span> {rank:,} <span style="{MUTED}">of {vocab_size:,}, '
            f"</span>{escaped(percent(probability))}</div>"
        )
    parts += [
        '<table style="table-layout: auto; width: 100%; margin: 6px 0; border-collapse: collapse; font-size: 1em">',
        *(alternative_html(*row, chosen=row[1] == cell.following) for row in rows),
        "</table>",
    ]
    if cell.following is not None:
        parts.append(curve_svg(cell.following, cell.probabilities, cell.ranks, cell.stream))
    return "".join(parts)


def curve_svg(piece: str, probabilities: Sequence[float], ranks: Sequence[int], chosen: int) -> str:
    """A piece's probability over the states of the stream as an SVG, with its ranks below; a ring at the chosen one."""
    check_labels("rank", ranks, probability=len(probabilities))
    check_marks([chosen], state=len(probabilities))
    width, height = CURVE
    count = len(probabilities)
    step = width / max(count - 1, 1)
    points = [
        (LEFT + step * index, TOP + height * (1 - (0.0 if math.isnan(value) else value)))
        for index, value in enumerate(probabilities)
    ]
    finite = [point for point, value in zip(points, probabilities) if not math.isnan(value)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in finite)
    ends = [x for x, _ in finite] or [LEFT]
    area = f"{ends[0]},{TOP + height} {path} {ends[-1]:.1f},{TOP + height}"
    names = [name.replace("embedding", "emb").replace("layer ", "") for name in stream_names(count)]
    every = -(-count // NAMED)
    told = ", ".join(
        f"{name} not finite" if math.isnan(value) else f"{name} {percent(value)} rank {rank:,}"
        for name, value, rank in zip(stream_names(count), probabilities, ranks, strict=True)
    )

    def word(
        x: float, y: float, text: str, anchor: str = "middle", opacity: float = 0.8, weight: str = "normal"
    ) -> str:
        return (
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="10" fill="currentColor" '
            f'fill-opacity="{opacity}" font-weight="{weight}">{html.escape(text)}</text>'
        )

    lines = "".join(
        f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{TOP + height * (1 - value):.1f}" '
        f'y2="{TOP + height * (1 - value):.1f}" stroke="currentColor" stroke-opacity="{0.4 if value == 0 else 0.12}"/>'
        + word(LEFT - 5, TOP + height * (1 - value) + 3.5, f"{100 * value:.0f} %", "end")
        for value in (0, 0.5, 1)
    )
    dots = "".join(
        f'<circle class="at" cx="{x:.1f}" cy="{y:.1f}" r="{5 if index == chosen else 2.6}" '
        f'fill="{rgba(SURPRISE if index == chosen else BAR, 1.0)}" '
        f'stroke="currentColor" stroke-width="{1.5 if index == chosen else 0}"/>'
        for index, (x, y) in enumerate(points)
        if not math.isnan(probabilities[index])
    )
    below = "".join(
        word(x, TOP + height + 14, names[index], opacity=1.0 if index == chosen else 0.8)
        + word(x, TOP + height + 28, short_rank(ranks[index]), opacity=1.0 if index == chosen else 0.8,
               weight="bold" if index == chosen else "normal")
        for index, (x, _) in enumerate(points)
        if index % every == 0
    )  # fmt: skip
    return (
        f'<div style="margin-top: 8px"><b>{piece_html(piece)}</b>'
        f'<span style="{MUTED}">, layer by layer</span></div>'
        f'<svg role="img" aria-label="{html.escape(f"probability of {visible(piece)}: {told}")}" '
        'style="display: block; width: 100%; max-width: 360px" '
        f'viewBox="0 0 {LEFT + width + 14} {TOP + height + BELOW}">{lines}'
        f'<polygon points="{area}" fill="{rgba(BAR, 0.18)}"/>'
        f'<polyline points="{path}" fill="none" stroke="{rgba(BAR, 1.0)}" stroke-width="2"/>{dots}{below}'
        f"{word(0.0, TOP + height + 28, 'rank', 'start')}</svg>"
    )


def short_rank(rank: int) -> str:
    """As much as fits below a dot: 812, 3.4k, 26k; "NaN" for the rank 0 of what has none."""
    if rank == 0:
        return "NaN"
    if rank < 1000:
        return str(rank)
    return f"{rank / 1000:.1f}k" if rank < 9950 else f"{rank / 1000:.0f}k"
