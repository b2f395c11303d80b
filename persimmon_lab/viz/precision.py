"""What half precision does to a model: the error ladder, the margin to the format's end, predictions, islands.

Every figure takes its title from the caller, who knows which model made the numbers and whether it was stressed.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.formats import as_power
from persimmon_lab.viz.rotary import MARKERS, numbers
from persimmon_lab.viz.style import CATEGORICAL, FAINT, INK, LINE_STYLES, MUTED, RULES, new_figure

BLUE, ORANGE = CATEGORICAL[:2]
HEIGHT = 4.0  # inches, of the figure of tokens
Span = tuple[float, float]  # of a logarithmic axis
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
    finite = [each for line in errors.values() for each in line if 0 < each < math.inf] + [*half_steps.values()]
    low, high = span or (min(finite, default=1e-8) / 3, max(finite, default=1.0) * 8)
    for index, (name, line) in enumerate(errors.items()):
        values = np.array(line, dtype=float)
        style = {"color": CATEGORICAL[index], "marker": MARKERS[index], "markersize": 6}
        axes.plot(np.where(np.isfinite(values) & (values > 0), values, np.nan), label=name, linewidth=2,
                  linestyle=LINE_STYLES[index], **style)  # fmt: skip
        lost = np.flatnonzero(~np.isfinite(values))
        if len(lost):
            axes.plot(lost, np.full(len(lost), high / 2), linestyle="none", color=CATEGORICAL[index], marker="X",
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
    errors: Mapping[str, Sequence[float]],
    half_steps: Mapping[str, float] | None = None,
    rows: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """How the error of each candidate grows along the depth, one row of the ladder per layer.

    `half_steps` are relative errors to compare with, by format: half its epsilon is the most that one rounding costs.
    `rows` names the layers where they are not 0, 1, 2, …
    """
    figure, axes = new_figure(9.0, 3.8)
    depth = len(next(iter(errors.values())))
    draw_ladder(axes, errors, half_steps or {}, rows or [str(layer) for layer in range(depth)])
    axes.set_xlabel("layer")
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    axes.set_title(title, loc="left")
    return figure


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
    values = [each for line in largest.values() for each in line if 0 < each < math.inf]
    low, high = span or (min(values) / 3, max(values) * 10)
    near = {name: limit for name, limit in limits.items() if limit < high * 1e6}
    high = max([high, *(limit * 100 for limit in near.values())])
    lowest = min([*near.values(), math.inf])
    if lost is None:
        lost = {name: [row for row, each in enumerate(line) if each > lowest] for name, line in largest.items()}
    for index, (name, line) in enumerate(largest.items()):
        colour, heights = CATEGORICAL[index], np.array(line, dtype=float)
        axes.plot(heights, color=colour, linestyle=LINE_STYLES[index], marker=MARKERS[index], markersize=6, linewidth=2,
                  label=name)  # fmt: skip
        crossed = list(lost.get(name, ()))
        axes.plot(crossed, heights[crossed], linestyle="none", marker="X", markersize=11, color=colour,
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
    largest: Mapping[str, Sequence[float]],
    limits: Mapping[str, float],
    rows: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """The largest number that each operation makes in each layer, and where formats end; beyond an end, a cross."""
    figure, axes = new_figure(9.0, 3.8)
    depth = len(next(iter(largest.values())))
    draw_margin(axes, largest, limits, rows or [str(layer) for layer in range(depth)])
    axes.set_xlabel("layer")
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    axes.set_title(title, loc="left")
    return figure


def kl_by_position(kl: Mapping[str, Float[Tensor, "position"]], title: str = "") -> Figure:
    """How far each candidate's predictions lie from the reference's, position by position, and their mean, dashed.

    Positions where the logits are not finite have a cross at the top.
    """
    figure, axes = new_figure(9.0, 3.4)
    finite = [each for line in kl.values() for each in line.tolist() if each < math.inf]
    high = max([*finite, 10 * NEGLIGIBLE]) * 5
    for index, (name, line) in enumerate(kl.items()):
        values, colour = numbers(line), CATEGORICAL[index]
        drawn = np.where(np.isfinite(values), np.maximum(values, NEGLIGIBLE), np.nan)
        axes.plot(drawn, color=colour, linestyle="none", marker=MARKERS[index], markersize=5, alpha=0.8, label=name)
        lost = np.flatnonzero(~np.isfinite(values))
        if len(lost):
            axes.plot(lost, np.full(len(lost), high / 2), linestyle="none", color=colour, marker="X", markersize=7,
                      label=f"{name}: not finite")  # fmt: skip
        else:
            axes.axhline(max(values.mean(), NEGLIGIBLE), color=colour, linewidth=1.4, linestyle=LINE_STYLES[1])
    axes.set_yscale("log")
    axes.set_ylim(min([*(max(each, NEGLIGIBLE) for each in finite), high / 10]) / 2, high)
    axes.set_xlabel("position")
    axes.set_ylabel("KL(reference || candidate), nats")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    axes.set_title(title, loc="left")
    return figure


def flipped_tokens(
    tokens: Sequence[str],
    kl: Float[Tensor, "position"],
    flips: Mapping[int, tuple[str, str]],
    title: str = "",
) -> Figure:
    """The text as it was read, the KL after each token as a bar, and where another token became the likeliest.

    `flips` has, by position, the likeliest token of the reference and of the candidate; their bars are hatched.
    """
    values = np.maximum(np.nan_to_num(numbers(kl), posinf=np.nan), NEGLIGIBLE)
    figure, axes = new_figure(max(4.0, 0.9 + 0.19 * len(tokens)), HEIGHT)
    flipped = np.isin(np.arange(len(tokens)), list(flips))
    low, high = np.nanmin(values) / 2, np.nanmax(values)
    for chosen, style in ((~flipped, {"color": "0.72"}), (flipped, {"color": ORANGE, "hatch": "////"})):
        places = np.flatnonzero(chosen)
        axes.bar(places, values[places] - low, bottom=low, width=0.8, edgecolor="white", linewidth=0, **style)
    for position, (reference, candidate) in flips.items():
        axes.annotate(f"{reference} → {candidate}", (position, values[position]), (0, 4), textcoords="offset points",
                      rotation=90, ha="center", va="bottom", fontsize=8.5, family="monospace",
                      parse_math=False)  # fmt: skip
    axes.set_yscale("log")
    # Room above the bars for what stands there, in the share of the axes that it will take.
    letters = max((len(f"{one} → {other}") for one, other in flips.values()), default=0)
    axes.set_ylim(low, low * (high / low) ** (1 / (1 - min(0.7, 0.05 + 0.08 * letters / (HEIGHT - 1.4)))))
    axes.set_xlim(-0.6, len(tokens) - 0.4)
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8, family="monospace", parse_math=False)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("KL after this token, nats")
    axes.set_title(title, loc="left")
    return figure


def island_search(
    modules: Sequence[str], steps: Sequence[tuple[str, Collection[str], float, bool]], title: str = ""
) -> Figure:
    """Every model that was tried, top to bottom: what was done, which modules were float32, and the mean KL it left.

    A step is (what was done, the modules kept in float32, KL in nats, whether that is good enough).
    """
    wide = max(5.0, 2.6 + 0.24 * len(modules))
    figure, axes = new_figure(min(wide, 12.0), 1.9 + 0.23 * len(steps))
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
    for each in (axes, right):
        each.tick_params(length=0)
        for spine in each.spines.values():
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
