"""Where the parameters sit, and what fits where."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from persimmon_lab.viz.agreement import check_curves, check_names
from persimmon_lab.viz.results import Planned
from persimmon_lab.viz.style import Size, figure_grid, legend_outside, new_figure, numbers, series

GB = 1e9
CLOUD_MARKERS = (".", "+", "x", "1")  # for thousands of points on each other


def squarified(
    sizes: Sequence[int | float], x: float, y: float, width: float, height: float
) -> list[tuple[float, float, float, float]]:
    """Rectangles (x, y, width, height) of areas in proportion to `sizes`, as near to squares as rows allow.

    `sizes` in decreasing order. Source: Bruls, Huizing and van Wijk 2000, Squarified treemaps.
    """
    scale = width * height / sum(sizes)
    areas, rectangles = [size * scale for size in sizes], []
    while areas:
        side = min(width, height)

        def worst(row: list[float], side: float = side) -> float:
            total = sum(row)
            return max(max(side**2 * area / total**2, total**2 / (side**2 * area)) for area in row)

        count = 1
        while count < len(areas) and worst(areas[: count + 1]) <= worst(areas[:count]):
            count += 1
        row, areas = areas[:count], areas[count:]
        thickness, offset = sum(row) / side, 0.0
        for area in row:
            length = area / thickness
            tall = width >= height  # the row is a column along the left edge
            rectangles.append((x, y + offset, thickness, length) if tall else (x + offset, y, length, thickness))
            offset += length
        if width >= height:
            x, width = x + thickness, width - thickness
        else:
            y, height = y + thickness, height - thickness
    return rectangles


def parameter_treemap(
    counts: Mapping[str, int],
    repeats: Mapping[str, int] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Parameters by part as areas; `repeats` draws a part as that many equal tiles (one a layer).

    Parts below 1% of the total (the norms) are drawn to scale and not labelled. ValueError where `repeats` has a part
    that `counts` has not.
    """
    repeats = repeats or {}
    check_names("repeated part", repeats, counts)
    total = sum(counts.values())
    parts = sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])
    figure, axes = new_figure(8.5, 4.2, size, ax)
    axes.set_axis_off()
    axes.set_xlim(0, 2)
    axes.set_ylim(1, 0)
    rectangles = squarified([counts[part] for part in parts], 0.0, 0.0, 2.0, 1.0)
    for index, (part, (x, y, width, height)) in enumerate(zip(parts, rectangles, strict=True)):
        colour = series(index).colour
        axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor="white", linewidth=3))
        tiles = repeats.get(part, 1)
        columns = max(1, round((tiles * width / height) ** 0.5)) if height > 0.02 else 1
        while tiles % columns:
            columns -= 1
        for column in range(1, columns):
            axes.plot([x + width * column / columns] * 2, [y, y + height], color="white", linewidth=0.6, alpha=0.6)
        for row in range(1, tiles // columns):
            axes.plot([x, x + width], [y + height * row * columns / tiles] * 2, color="white", linewidth=0.6, alpha=0.6)
        if width * height > 0.02:
            label = f"{part}\n{counts[part] / 1e9:.2f} B  ·  {counts[part] / total:.0%}"
            if total < 1e9:
                label = f"{part}\n{counts[part] / 1e6:.2f} M  ·  {counts[part] / total:.0%}"
            if tiles > 1:
                label += f"\n{tiles} layers"
            axes.text(x + width / 2, y + height / 2, label, ha="center", va="center", color="white", fontsize=11,
                      fontweight="bold", linespacing=1.4)  # fmt: skip
    axes.set_title(title, loc="left")
    return figure


def memory_bars(
    rows: Sequence[tuple[str, int | float, int | float] | tuple[str, Planned]],
    capacities: Mapping[str, float] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Stacked bars of weights and cache in bytes, one per row (label, weights, cache), against what devices hold.

    In place of the two numbers a row may have a memory plan.
    """
    parts: list[tuple[str, Mapping[str, int | float]]] = []
    for label, *held in rows:
        weights, cache = (held[0].weights, held[0].cache) if isinstance(held[0], Planned) else held
        parts.append((label, {"weights": weights, "key/value cache": cache}))
    return stacked_bars(parts, capacities, title, size=size, ax=ax)


def stacked_bars(
    rows: Sequence[tuple[str, Mapping[str, int | float] | Planned]],
    capacities: Mapping[str, float] | None = None,
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Bytes by part as stacked bars, one per row (label, parts), against what devices hold.

    Every row has the same parts, in the same order, or ValueError; a memory plan has weights, cache and activations.
    Capacities far beyond the bars are left out.
    """
    stacks = [(label, _parts_of(parts)) for label, parts in rows]
    for _, parts in stacks:
        check_names("part", parts, stacks[0][1])
        check_names("part", stacks[0][1], parts)
    figure, axes = new_figure(8.5, 0.9 + 0.5 * len(rows), size, ax)
    ends = [0.0] * len(rows)
    bars = range(len(rows))
    for index, part in enumerate(stacks[0][1]):
        sizes = [parts[part] / GB for _, parts in stacks]
        axes.barh(bars, sizes, left=ends, label=part, height=0.62, **series(index).bars)
        ends = [end + size for end, size in zip(ends, sizes)]
    longest = max(ends)
    for bar, end in zip(bars, ends):
        axes.text(end + 0.012 * longest, bar, f"{end:.1f} GB", va="center",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5}, zorder=4)  # fmt: skip
    for name, capacity in (capacities or {}).items():
        if capacity / GB <= 1.15 * longest:
            axes.axvline(capacity / GB, color="0.25", linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
            axes.text(capacity / GB, -0.75, name, ha="center", va="bottom", fontsize=9, color="0.25")
    axes.set_yticks(bars, [label for label, _ in rows])
    axes.set_xlim(0, 1.15 * longest)
    axes.invert_yaxis()
    axes.set_xlabel("GB (10⁹ bytes)")
    axes.set_title(title, loc="left", pad=22 if capacities else 8)
    legend_outside(axes, ax, "outside lower right", ncols=3)
    return figure


def _parts_of(parts: Mapping[str, int | float] | Planned) -> Mapping[str, int | float]:
    if isinstance(parts, Planned):
        return {"weights": parts.weights, "key/value cache": parts.cache, "forward pass": parts.activations}
    return parts


def row_directions(
    cosines: Float[Tensor, "vocab"],
    norms: Float[Tensor, "vocab"],
    groups: Mapping[str, Bool[Tensor, "vocab"]],
    title: str = "",
    *,
    size: Size | None = None,
) -> Figure:
    """Every row of a vocabulary table as a point: along which direction it points, and how long it is.

    `groups` are drawn over each other in their order, each with its count; above, how many rows point where.
    ValueError where norms or a group are not as many as the cosines.
    """
    check_curves("cosine", cosines, {"norms": norms, **groups})
    figure, panels = figure_grid(2, 1, 8.6, 2.4, size, sharex=True, height_ratios=[1, 2.6])
    counts, points = panels[:, 0]
    values, lengths = numbers(cosines), numbers(norms)
    bins = np.linspace(-1, 1, 81)
    for index, (name, members) in enumerate(groups.items()):
        mask, look = members.cpu().numpy(), series(index)
        counts.hist(values[mask], bins, histtype="step", linewidth=1.4, **look.line)
        points.plot(values[mask], lengths[mask], linestyle="none", marker=CLOUD_MARKERS[index % len(CLOUD_MARKERS)],
                    color=look.colour, alpha=0.6, markersize=4 if index else 2.5, rasterized=True,
                    markeredgewidth=0 if index == 0 else 0.8, label=f"{name}: {int(mask.sum()):,}")  # fmt: skip
    counts.set_yscale("log")
    counts.set_ylabel("rows")
    counts.set_title(title, loc="left")
    points.set_xlim(values.min() - 0.05, 1.04)
    points.set_ylim(bottom=0)
    points.set_xlabel("cosine with the direction of rows that never were a target")
    points.set_ylabel("length of the row")
    points.legend(loc="upper left", frameon=False, markerscale=1.6)
    return figure
