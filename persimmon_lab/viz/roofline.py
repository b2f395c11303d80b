"""The roofline: how fast a machine could run a piece of work, given how much arithmetic it does with every byte.

A piece of work that does `I` operations with each byte it reads can run at `min(bandwidth · I, peak)` operations per
second: below the ridge `peak / bandwidth` it waits for the memory, beyond it for the arithmetic.
Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", 2009.
"""

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, NullFormatter

from persimmon_lab.viz.point_labels import label_points
from persimmon_lab.viz.style import FAINT, INK, MUTED, Size, new_figure, series

MARKER_SIZE = 9.0  # points
PREFIXES = ("", "k", "M", "G", "T", "P")


def roof(intensity: float, bandwidth: float, peak: float) -> float:
    """The most operations per second that work of this many operations per byte can reach."""
    return min(bandwidth * intensity, peak)


def two_digits(value: float) -> str:
    """9.302 -> "9.3", 183.7 -> "180": as a measured number is known, never with an exponent below a million."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.2g}"


def as_rate(value: float, unit: str) -> str:
    """4.68e10, "B/s" -> "47 GB/s"."""
    rounded = float(f"{value:.2g}")
    power = min(max(math.floor(math.log10(rounded) / 3), 0), len(PREFIXES) - 1)
    return f"{two_digits(rounded / 1000**power)} {PREFIXES[power]}{unit}"


def described(name: str, point: tuple[float, float], bandwidth: float, peak: float, separator: str = "\n") -> str:
    intensity, rate = point
    return f"{name}{separator}{rate / roof(intensity, bandwidth, peak):.0%} of the roof"


def plot_roofline(
    points: Mapping[str, tuple[float, float]],
    bandwidth: float,
    peak: float,
    *,
    title: str = "",
    size: Size | None = None,
) -> Figure:
    """Measured work under a machine's roof: operations per byte (across) against operations per second (up), both log.

    Args:
        points: name -> (operations per byte, measured operations per second); each is labelled with its share of the
            roof above it, and a dotted line shows how far it is from it. Where the labels find no room, a key below
            names the points.
        bandwidth: what the memory gives, in bytes per second.
        peak: what a matrix product reaches, in operations per second.

    Raises:
        ValueError: a number that is not positive and finite, which has no place on a logarithmic axis.

    A point may stand above the roof: its data came from a nearer cache than the one that `bandwidth` was measured on.
    """
    given: dict[str, tuple[float, ...]] = {"bandwidth": (bandwidth,), "peak": (peak,), **points}
    for name, values in given.items():
        if not all(math.isfinite(value) and value > 0 for value in values):
            raise ValueError(f"{name} is {values}; a roofline has logarithmic axes, so give positive, finite numbers")
    ridge = peak / bandwidth
    across = [ridge, *(intensity for intensity, _ in points.values())]
    up = [*(rate for _, rate in points.values()), roof(min(across), bandwidth, peak)]
    # The two notes at the foot take a quarter of the width each, left and right of the ridge.
    right = max(across) * 8
    left = min(min(across) / 3, ridge * (ridge / right) ** 0.45)
    right = max(right, ridge * (ridge / left) ** 0.4)
    bottom, top = min(up) / 2.5, max(peak, *up) * 2.5

    figure, axes = new_figure(9.0, 4.8, size)
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    axes.axvspan(left, ridge, color=FAINT, alpha=0.45, linewidth=0, zorder=0)
    axes.plot([left, ridge, right], [bandwidth * left, peak, peak], color=INK, linewidth=2.2, zorder=3, label="_roof",
              solid_joinstyle="miter")  # fmt: skip
    axes.plot([ridge, ridge], [bottom, peak], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1, label="_ridge")
    for index, (name, (intensity, rate)) in enumerate(points.items()):
        look, limit = series(index), roof(intensity, bandwidth, peak)
        axes.plot([intensity] * 2, [rate, limit], color=look.colour, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        axes.plot(intensity, rate, markersize=MARKER_SIZE, markeredgecolor="white", markeredgewidth=0.8,
                  linestyle="none", label=name, zorder=4, **look.points)  # fmt: skip

    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.5g}"))
    axes.yaxis.set_major_formatter(EngFormatter(unit="FLOP/s"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_xlabel("operations for each byte read (FLOP per byte)")
    axes.set_ylabel("operations per second")
    axes.set_title(title, loc="left")
    note: dict[str, Any] = {"fontsize": 9, "color": MUTED, "textcoords": "offset points"}
    axes.annotate(f"arithmetic: {as_rate(peak, 'FLOP/s')}", (right, peak), (-4, 4), ha="right", va="bottom", **note)
    # In the region that nothing can reach, beside the slope at three quarters of its visible height.
    middle = math.exp(0.25 * math.log(bottom) + 0.75 * math.log(peak)) / bandwidth
    memory = f"memory: {as_rate(bandwidth, 'B/s')}"
    if middle > left * (right / left) ** 0.2:
        axes.annotate(memory, (middle, bandwidth * middle), (-10, 0), ha="right", va="center", **note)
    else:
        axes.annotate(memory, (left, peak), (6, 6), ha="left", va="bottom", **note)
    axes.annotate(
        f"waits for the memory  ◂  {two_digits(ridge)}", (ridge, bottom), (-5, 5), ha="right", va="bottom", **note
    )
    axes.annotate("▸  waits for the arithmetic", (ridge, bottom), (5, 5), ha="left", va="bottom", **note)
    labels = {name: described(name, point, bandwidth, peak) for name, point in points.items()}
    gaps = [((x, rate), (x, roof(x, bandwidth, peak))) for x, rate in points.values()]
    walls = [((left, bandwidth * left), (ridge, peak)), ((ridge, peak), (right, peak))]
    lines = [*gaps, ((ridge, bottom), (ridge, peak))]
    if not label_points(axes, points, labels, lines, walls, MARKER_SIZE):
        handles = [line for line in axes.get_lines() if line.get_label() in points]
        names = [described(name, point, bandwidth, peak, ": ") for name, point in points.items()]
        key = figure.legend(handles, names, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
        for text in key.get_texts():
            text.set_parse_math(False)
        figure.set_figheight(figure.get_figheight() + 0.22 * -(-len(points) // 2))
    return figure
