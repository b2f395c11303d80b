"""The next-token distribution in HTML: the most probable tokens, what is left of them after temperature and filters.

Blue is what can be drawn, hatched grey what is cut; an outline is the model's own probability. All of it is styled
inline with translucent colours, and everything from outside is escaped.
"""

import html
import math
from dataclasses import dataclass

from persimmon_lab.viz.html.tokens import BAR, MUTED, SHOWN, escaped, percent, piece_html, rgba
from persimmon_lab.viz.signs import counted, visible

FLOOR = 5  # powers of ten that a logarithmic bar spans
BARS = "4em"  # wide at least, however many numbers stand beside them
CUT = "repeating-linear-gradient(135deg, rgba(128,128,128,.55) 0 2px, rgba(128,128,128,.15) 2px 5px)"
GREY = "rgba(128, 128, 128, 0.8)"
CELL = "padding: 1px 4px; border: none; white-space: nowrap; text-align"


@dataclass(frozen=True)
class Candidate:
    """One token: the model's `probability`, that at the temperature (`tempered`), the one it is `drawn` with, and the
    tempered mass of it and all above."""

    token_id: int
    piece: str
    rank: int
    probability: float
    tempered: float
    drawn: float
    kept: bool
    so_far: float


@dataclass(frozen=True)
class Nucleus:
    """A distribution as settings shape it: `cuts` are (filter, tokens left after it); `mass` is what the kept tokens
    had together after the temperature, before the filters."""

    candidates: tuple[Candidate, ...]
    chosen: int | None
    vocab_size: int
    entropy_bits: float
    temperature: float
    cuts: tuple[tuple[str, int], ...]
    kept: int
    mass: float

    @property
    def tempered(self) -> bool:
        """Whether the probabilities at the temperature, which are those added up, are others than the model's."""
        return self.temperature not in (0, 1)


def sentence(nucleus: Nucleus) -> str:
    """What the settings keep, in plain words."""
    vocab = counted(nucleus.vocab_size, "token")
    if nucleus.temperature == 0:
        return f"Temperature 0 always takes the most probable of {vocab}."
    at = "" if nucleus.temperature == 1 else f"At temperature {nucleus.temperature:g} "
    if not nucleus.cuts:
        said = f"nothing is cut: any of {vocab} can be drawn."
    else:
        (name, left), *more = nucleus.cuts
        said = f"{name} keeps {left:,} of {vocab}"
        said += "".join(f", {name} {left:,} of these" for name, left in more)
        said += f": {percent(nucleus.mass)} of the mass."
    return at + said if at else said[0].upper() + said[1:]


def length(probability: float, log: bool) -> float:
    """How long a bar is, from 0 to 1."""
    if not log:
        return probability
    return max(0.0, 1 + math.log10(max(probability, 1e-30)) / FLOOR)


def nucleus_html(nucleus: Nucleus, log: bool = False) -> str:
    """The chosen token with its numbers, the mass as a strip, a sentence, and a row for each of the best tokens."""
    rows, cut = [], False
    for candidate in nucleus.candidates:
        first_cut = not candidate.kept and not cut
        cut = cut or first_cut
        rows.append(row_html(candidate, candidate.token_id == nucleus.chosen, first_cut, log, nucleus.tempered))
    return (
        heading_html(nucleus)
        + strip_html(nucleus)
        + f'<div class="sentence" style="margin: 6px 0 4px; min-height: 3em">{escaped(sentence(nucleus))}</div>'
        + '<table style="table-layout: auto; width: 100%; margin: 0; border-collapse: collapse; font-size: 1em">'
        + header_html(nucleus)
        + "".join(rows)
        + "</table>"
        + rest_html(nucleus)
    )


def heading_html(nucleus: Nucleus) -> str:
    chosen = next((candidate for candidate in nucleus.candidates if candidate.token_id == nucleus.chosen), None)
    entropy = f"entropy {nucleus.entropy_bits:.2f} of {math.log2(nucleus.vocab_size):.1f} bits"
    if chosen is None:
        return f"<div>{entropy}</div>"
    return (
        f'<div style="font-size: 120%">{piece_html(chosen.piece)}</div>'
        f'<div style="{MUTED}; margin-bottom: 6px">probability {escaped(percent(chosen.probability))} · '
        f"rank {chosen.rank:,} of {nucleus.vocab_size:,}<br>{entropy}</div>"
    )


def strip_html(nucleus: Nucleus) -> str:
    """All of the mass after the temperature as one bar, a part for each of the best tokens; the rest at the end."""
    parts, before = [], 0.0
    best = [candidate for index, candidate in enumerate(nucleus.candidates, start=1) if candidate.rank == index]
    for candidate in best:
        fill = rgba(BAR, 0.9) if candidate.kept else CUT
        parts.append((candidate.so_far - before, fill, candidate.piece))
        before = candidate.so_far
    kept_below = max(0.0, nucleus.mass - sum(width for width, fill, _ in parts if fill != CUT))
    parts += [(kept_below, rgba(BAR, 0.45), "further tokens that are kept")]
    parts += [(max(0.0, 1 - before - kept_below), CUT, "further tokens that are cut")]
    drawn = "".join(
        f'<div style="width: {100 * width:.2f}%; background: {fill}; box-shadow: inset -1px 0 {GREY}" '
        f'title="{html.escape(f"{visible(name)} {percent(width)}")}"></div>'
        for width, fill, name in parts
        if width >= 0.0005
    )
    return (
        '<div class="strip" style="display: flex; height: 14px; border-radius: 3px; overflow: hidden; '
        f'outline: 1px solid {GREY}; {SHOWN}">{drawn}</div>'
    )


def header_html(nucleus: Nucleus) -> str:
    names = [("right", ""), ("left", "token"), ("left", ""), ("right", "model")]
    names += [("right", f"at {nucleus.temperature:g}")] if nucleus.tempered else []
    names += [("right", "sum"), ("right", "drawn")]  # the sum beside what it adds
    cells = "".join(f'<td style="{CELL}: {align}; font-size: 85%; {MUTED}">{name}</td>' for align, name in names)
    return f'<tr class="names" style="background-color: transparent">{cells}</tr>'


def row_html(candidate: Candidate, chosen: bool, first_cut: bool, log: bool, tempered: bool) -> str:
    """Rank, piece, bars, and the probability: as the model gave it, at the temperature where that makes it another,
    added up so far, and as it is drawn with."""
    faded = "" if candidate.kept else f"{MUTED}; "
    line = f"border-top: 2px dashed {GREY}" if first_cut else ""
    mine = f"width: {100 * length(candidate.drawn, log):.1f}%; background: {rgba(BAR, 0.9)}"
    model = f"width: {100 * length(candidate.probability, log):.1f}%"
    hatch = "" if candidate.kept else f"background: {CUT}; "
    bars = (
        f'<div style="position: relative; height: 11px; min-width: {BARS}; {SHOWN}">'
        f'<div style="position: absolute; left: 0; top: 0; height: 11px; border-radius: 2px; {mine}"></div>'
        f'<div style="position: absolute; left: 0; top: 0; height: 9px; min-width: 1px; border: 1px solid {GREY}; '
        f'border-radius: 2px; {hatch}{model}"></div></div>'
    )
    shares = [candidate.probability, *([candidate.tempered] if tempered else []), candidate.so_far]
    numbers = [escaped(percent(share)) for share in shares]
    numbers.append(escaped(percent(candidate.drawn)) if candidate.kept else "cut")
    return (
        f'<tr data-token="{candidate.token_id}" class="{"kept" if candidate.kept else "cut"}" '
        f'style="background-color: transparent; {line}; font-weight: {"bold" if chosen else "normal"}">'
        f'<td style="{faded}{CELL}: right">{candidate.rank:,}</td>'
        f'<td style="{faded}{CELL}: left">{piece_html(candidate.piece)}{" ◂" if chosen else ""}</td>'
        f'<td style="{CELL}: left; width: 34%">{bars}</td>'
        + "".join(f'<td style="{faded}{CELL}: right; font-size: 90%">{number}</td>' for number in numbers)
        + "</tr>"
    )


def rest_html(nucleus: Nucleus) -> str:
    """How many tokens are below the rows."""
    kept = nucleus.kept - sum(candidate.kept for candidate in nucleus.candidates)
    cut = nucleus.vocab_size - len(nucleus.candidates) - kept
    said = [f"{count:,} more {name}" for count, name in ((kept, "kept"), (cut, "cut")) if count]
    return f'<div style="{MUTED}; font-size: 90%; margin-top: 3px">{" · ".join(said)}</div>'
