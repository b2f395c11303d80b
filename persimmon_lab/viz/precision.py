"""What half precision does to a model: the error ladder, the margin to the format's end, predictions, islands.

Every figure takes its title from the caller, who knows which model made the numbers and whether it was stressed.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_labels, check_marks, check_names
from persimmon_lab.viz.formats import as_power
from persimmon_lab.viz.results import Grown, Predicted, columns_in, rows_in
from persimmon_lab.viz.signs import readable
from persimmon_lab.viz.style import (
    CATEGORICAL,
    FAINT,
    INK,
    LINE_STYLES,
    MUTED,
    RULES,
    Size,
    legend_outside,
    new_figure,
    numbers,
    series,
)

BLUE, ORANGE = CATEGORICAL[:2]
HEIGHT = 4.0  # inches, of the figure of tokens
Span = tuple[float, float]  # of a logarithmic axis
Lines = Mapping[str, Iterable[float]] | Any  # numbers by name: a pandas table is one, by its columns
NEGLIGIBLE = 1e-12  # nats, below which a KL is drawn as this


def draw_ladder(
    axes: Axes,
    errors: Mapping[str, Sequence[float]],
    half_steps: Mapping[str, float],
    rows: Sequence[str],
    span: Span | None = None,
) -> None:
    """Relative errors by row, logarithmic, from where to where `span` says or as far as they reach; a candidate that
    is not finite has a cross at the top."""
    check_curves("row", rows, errors)
    finite = [error for line in errors.values() for error in line if 0 < error < math.inf] + [*half_steps.values()]
    low, high = span or (min(finite, default=1e-8) / 3, max(finite, default=1.0) * 8)
    for index, (name, line) in enumerate(errors.items()):
        values, look = numbers(line), series(index)
        axes.plot(np.where(np.isfinite(values) & (values > 0), values, np.nan), label=name, linewidth=2,
                  marker=look.marker, markersize=6, **look.line)  # fmt: skip
        lost = np.flatnonzero(~np.isfinite(values))
        if len(lost):
            axes.plot(lost, np.full(len(lost), high / 2), linestyle="none", color=look.colour, marker="X",
                      markersize=9, markeredgecolor="white", label=f"{name}: not finite")  # fmt: skip
    for name, step in half_steps.items():
        axes.axhline(step, color=MUTED, linewidth=0.9, linestyle=LINE_STYLES[2], zorder=1)
        _say_beside(axes, f"½ step of\n{name}", step)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    _label_rows(axes, rows)
    axes.set_ylabel("relative error")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)


def _say_beside(axes: Axes, text: str, height: float) -> None:
    """Right of the axes, where no curve comes."""
    axes.annotate(text, (1, height), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                  va="center", fontsize=8.5, color=INK, linespacing=0.95)  # fmt: skip


def _label_rows(axes: Axes, rows: Sequence[str]) -> None:
    every = math.ceil(len(rows) / 20)
    axes.minorticks_off()  # nobody reads the ticks between powers of ten, and they take half the time of a drawing
    axes.set_xticks(range(0, len(rows), every), rows[::every])
    axes.set_xlim(-0.4, len(rows) - 0.6)


def error_ladder(
    errors: Lines | Grown,
    half_steps: Mapping[str, float] | None = None,
    rows: Sequence[str] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """How the error of each candidate grows along the depth, one row of the ladder per layer.

    `errors` are numbers by name, a table with a column for each, or what `compare` gave. `half_steps` are relative
    errors to compare with, by format: half its epsilon is the most that one rounding costs. `rows` names the layers
    where they are not 0, 1, 2, … ValueError where there are not as many rows as errors.
    """
    lines = columns_in(errors)
    figure, axes = new_figure(9.0, 3.8, size, ax)
    draw_ladder(axes, lines, half_steps or {}, _rows_of(errors, lines, rows))
    axes.set_xlabel("layer")
    legend_outside(axes, ax, ncols=4)
    axes.set_title(title, loc="left")
    return figure


def _rows_of(source: Any, lines: Mapping[str, Sequence[float]], rows: Sequence[str] | None) -> Sequence[str]:
    """The names of the rows as they are given, or as the table has them, or 0, 1, 2, …"""
    if rows is not None:
        return rows
    return rows_in(source) or [str(layer) for layer in range(len(next(iter(lines.values()))))]


def draw_margin(
    axes: Axes,
    largest: Mapping[str, Sequence[float]],
    limits: Mapping[str, float],
    rows: Sequence[str],
    lost: Mapping[str, Collection[int]] | None = None,
    span: Span | None = None,
) -> None:
    """Largest magnitudes by row and operation, logarithmic, below the ends of the formats that are near enough.

    `lost` are the rows of each operation to cross out, by default those beyond the lowest end.
    """
    check_curves("row", rows, largest)
    check_names("operation", lost or (), largest)
    for crossed in (lost or {}).values():
        check_marks(crossed, row=len(rows))
    values = [value for line in largest.values() for value in line if 0 < value < math.inf]
    low, high = span or (min(values, default=1.0) / 3, max(values, default=1.0) * 10)
    near = {name: limit for name, limit in limits.items() if limit < high * 1e6}
    high = max([high, *(limit * 100 for limit in near.values())])
    lowest = min([*near.values(), math.inf])
    if lost is None:
        lost = {name: [row for row, value in enumerate(line) if value > lowest] for name, line in largest.items()}
    for index, (name, line) in enumerate(largest.items()):
        look, heights = series(index), numbers(line)
        axes.plot(heights, marker=look.marker, markersize=6, linewidth=2, label=name, **look.line)
        crossed = list(lost.get(name, ()))
        axes.plot(crossed, heights[crossed], linestyle="none", marker="X", markersize=11, color=look.colour,
                  markeredgecolor="black")  # fmt: skip
    for name, limit in near.items():
        axes.axhline(limit, color=INK, linewidth=1.2)
        axes.axhspan(limit, high, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
        _say_beside(axes, f"{name}\nends at {as_power(limit)}", limit)
    for name, limit in limits.items():
        if name not in near:
            _say_beside(axes, f"{name}\nends far above,\nat {as_power(limit)} ↑", high / (high / low) ** 0.07)
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    _label_rows(axes, rows)
    axes.set_ylabel("largest magnitude")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)


def overflow_margin(
    largest: Lines,
    limits: Mapping[str, float],
    rows: Sequence[str] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The largest number that each operation makes in each layer, and where formats end; beyond an end, a cross.

    `largest` are numbers by name, or a table with a column for each: `comparison.by_layer("float16", "largest")`.
    ValueError where there are not as many rows as numbers.
    """
    lines = columns_in(largest)
    figure, axes = new_figure(9.0, 3.8, size, ax)
    draw_margin(axes, lines, limits, _rows_of(largest, lines, rows))
    axes.set_xlabel("layer")
    legend_outside(axes, ax, ncols=4)
    axes.set_title(title, loc="left")
    return figure


def kl_by_position(
    kl: Mapping[str, Float[Tensor, "position"] | Predicted] | Grown,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """How far each candidate's predictions lie from the reference's, position by position, and their mean, dashed.

    Positions where the logits are not finite have a cross at the top. What `compare` gave for one text will do.
    """
    lines = {name: numbers(_kl_of(line)) for name, line in (kl.predictions if isinstance(kl, Grown) else kl).items()}
    figure, axes = new_figure(9.0, 3.4, size, ax)
    finite = [value for line in lines.values() for value in line.tolist() if value < math.inf]
    high = max([*finite, 10 * NEGLIGIBLE]) * 5
    for index, (name, values) in enumerate(lines.items()):
        look, colour = series(index), series(index).colour
        drawn = np.where(np.isfinite(values), np.maximum(values, NEGLIGIBLE), np.nan)
        axes.plot(drawn, linestyle="none", markersize=5, alpha=0.8, label=name, **look.points)
        lost = np.flatnonzero(~np.isfinite(values))
        if len(lost):
            axes.plot(lost, np.full(len(lost), high / 2), linestyle="none", color=colour, marker="X", markersize=7,
                      label=f"{name}: not finite")  # fmt: skip
        else:
            axes.axhline(max(values.mean(), NEGLIGIBLE), color=colour, linewidth=1.4, linestyle=LINE_STYLES[1])
    axes.set_yscale("log")
    axes.set_ylim(min([*(max(value, NEGLIGIBLE) for value in finite), high / 10]) / 2, high)
    axes.set_xlabel("position")
    axes.set_ylabel("KL(reference || candidate), nats")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    legend_outside(axes, ax, ncols=4)
    axes.set_title(title, loc="left")
    return figure


def _kl_of(line: Float[Tensor, "position"] | Predicted) -> Float[Tensor, "position"]:
    if isinstance(line, Tensor):
        return line
    if len(line.kl) != 1:
        raise ValueError(f"there are predictions for {len(line.kl)} texts; draw one of them: predictions.kl[0]")
    return line.kl[0]


def flipped_tokens(
    tokens: Sequence[str],
    kl: Float[Tensor, "position"],
    flips: Mapping[int, tuple[str, str]],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The text as it was read, the KL after each token as a bar, and where another token became the likeliest.

    `flips` has, by position, the likeliest token of the reference and of the candidate; their bars are hatched.
    ValueError where there are not as many tokens as numbers, or a flip at no position.
    """
    check_labels("token", tokens, position=len(kl))
    check_marks(flips, position=len(kl))
    values = np.maximum(np.nan_to_num(numbers(kl), posinf=np.nan), NEGLIGIBLE)
    figure, axes = new_figure(max(4.0, 0.9 + 0.19 * len(tokens)), HEIGHT, size, ax)
    flipped = np.isin(np.arange(len(tokens)), list(flips))
    low, high = np.nanmin(values) / 2, np.nanmax(values)
    for chosen, colour, hatch in ((~flipped, "0.72", ""), (flipped, ORANGE, "////")):
        bars = np.flatnonzero(chosen)
        axes.bar(bars, values[bars] - low, bottom=low, width=0.8, edgecolor="white", linewidth=0, color=colour,
                 hatch=hatch)  # fmt: skip
    named = {position: " → ".join(map(readable, pair)) for position, pair in flips.items()}
    for position, name in named.items():
        axes.annotate(name, (position, values[position]), (0, 4), textcoords="offset points", rotation=90, ha="center",
                      va="bottom", fontsize=8.5, family="monospace", parse_math=False)  # fmt: skip
    axes.set_yscale("log")
    # Room above the bars for what stands there, in the share of the axes that it will take.
    letters = max(map(len, named.values()), default=0)
    axes.set_ylim(low, low * (high / low) ** (1 / (1 - min(0.7, 0.05 + 0.08 * letters / (HEIGHT - 1.4)))))
    axes.set_xlim(-0.6, len(tokens) - 0.4)
    words = [readable(token) for token in tokens]
    axes.set_xticks(range(len(tokens)), words, rotation=90, fontsize=8, family="monospace", parse_math=False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("KL after this token, nats")
    axes.set_title(title, loc="left")
    return figure


def island_search(
    modules: Sequence[str],
    steps: Sequence[tuple[str, Collection[str], float, bool]],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Every model that was tried, top to bottom: what was done, which modules were float32, and the mean KL it left.

    A step is (what was done, the modules kept in float32, KL in nats, whether that is good enough). ValueError for a
    step with a module that is none of them.
    """
    for _, islands, _, _ in steps:
        check_names("island", islands, modules)
    wide = max(5.0, 2.6 + 0.24 * len(modules))
    figure, axes = new_figure(min(wide, 12.0), 1.9 + 0.23 * len(steps), size, ax)
    for row, (_, islands, _, good) in enumerate(steps):
        colours = [BLUE if module in islands else "white" for module in modules]
        axes.scatter(range(len(modules)), [row] * len(modules), s=52, marker="s", color=colours, edgecolor="0.7",
                     linewidth=0.8)  # fmt: skip
        if good:
            axes.axhspan(row - 0.5, row + 0.5, color=FAINT, alpha=0.7, linewidth=0, zorder=0)
    axes.set_xlim(-0.7, len(modules) - 0.3)
    axes.set_ylim(len(steps) - 0.4, -0.6)
    axes.set_xticks(range(len(modules)), modules, rotation=90, fontsize=8.5)
    axes.set_yticks(range(len(steps)), [action for action, *_ in steps], fontsize=9)
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    kls = [("✓ " if good else "") + ("not finite" if kl == math.inf else f"KL {kl:.1g}") for *_, kl, good in steps]
    right.set_yticks(range(len(steps)), kls, fontsize=9)
    for frame in (axes, right):
        frame.tick_params(length=0)
        for spine in frame.spines.values():
            spine.set_visible(False)
    axes.set_title(title, loc="left")
    return figure


def explorer(
    errors: Mapping[str, Sequence[float]],
    largest: Mapping[str, Sequence[float]],
    half_steps: Mapping[str, float],
    limits: Mapping[str, float],
    rows: Sequence[str],
    lost: Mapping[str, Collection[int]],
    spans: tuple[Span, Span],
    title: str = "",
    note: str = "",
) -> Figure:
    """The error ladder beside the overflow margin, each from where to where its span says, and sentences below.

    Drawn again on every move of a slider: at fixed places, which is several times faster than a layout that has to be
    found, and on fixed scales, so that it is the curves that move.
    """
    with rc_context(RULES):
        height = 5.0 if note else 4.5
        figure = Figure(figsize=(9, height))
        left, right = (figure.add_axes((x, 1 - 3.45 / height, width, 2.95 / height))
                       for x, width in ((0.075, 0.335), (0.565, 0.31)))  # fmt: skip
    draw_ladder(left, errors, half_steps, rows, spans[0])
    draw_margin(right, largest, limits, rows, lost, spans[1])
    for axes in (left, right):
        axes.set_xlabel("layer")
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9)
    figure.text(0.01, 0.985, title, va="top", fontsize=11)
    figure.text(0.01, 0.015, note, va="bottom", fontsize=9, color=INK)
    return figure
