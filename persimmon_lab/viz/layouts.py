"""Whose channels lie where along a fused axis: query, key and value, head by head or one after the other."""

from collections.abc import Mapping, Sequence
from math import prod

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from persimmon_lab.viz.agreement import check_names
from persimmon_lab.viz.style import CATEGORICAL, INK, MUTED, Size, new_figure

KINDS = ("query", "key", "value")
COLOURS = dict(zip(KINDS, CATEGORICAL))
HATCHES = {"query": "", "key": "//////", "value": "......"}  # closer than those of bars: a stripe may be narrow
PLAIN = "0.9"
THREE = "three"  # the axis of query, key and value


def parts(axis: str) -> list[str]:
    """The names in an axis: "(head channel)" is head and channel."""
    return axis.strip("()").split()


def stripes(lengths: Mapping[str, int]) -> list[dict[str, int]]:
    """The stretches of a fused axis along which only its last name runs, each by its index on the names before.

    {"head": 2, "three": 3, "channel": 32} makes six: head 0 three 0, head 0 three 1, ...
    """
    *outer, _ = lengths
    stretches: list[dict[str, int]] = [{}]
    for name in outer:
        stretches = [stretch | {name: index} for stretch in stretches for index in range(lengths[name])]
    return stretches


def draw_block(
    axes: Axes, left: float, top: float, width: float, height: float, kind: str, colour: str = PLAIN
) -> None:
    """A rectangle in the colour and hatch of its kind."""
    axes.add_patch(Rectangle((left, top), width, height, facecolor=COLOURS.get(kind, colour), edgecolor="white",
                             linewidth=0, hatch=HATCHES.get(kind), zorder=3))  # fmt: skip


def draw_fused(axes: Axes, left: float, top: float, width: float, height: float, lengths: Mapping[str, int]) -> None:
    """A fused axis in its stripes, with a dark line where its first name goes on to the next index."""
    along = stripes(lengths)
    step, in_first = width / len(along), len(along) // next(iter(lengths.values()))
    for index, stripe in enumerate(along):
        x = left + index * step
        draw_block(axes, x, top, step, height, KINDS[stripe[THREE]] if THREE in stripe else "")
        if index and index % in_first == 0:
            axes.plot([x, x], [top, top + height], color=INK, linewidth=1.2, zorder=4)
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=INK, linewidth=0.8, zorder=4))


def fused_layouts(
    layouts: Sequence[str],
    lengths: Mapping[str, int],
    title: str = "",
    *,
    size: Size | None = None,
    ax: Axes | None = None,
) -> Figure:
    """One fused axis read in several ways, such as "(head three channel)": under each stripe, whose channels it holds.

    q3 is the query of head 3. Raises ValueError for a layout without `head`, `three` and a last name to run along, and
    for a name that has no length.
    """
    for layout in layouts:
        if sorted(parts(layout)[:-1]) != ["head", THREE]:
            raise ValueError(f"the layout {layout!r} should name head and three, in either order, and then channel")
        check_names("axis", parts(layout), lengths)
    figure, axes = new_figure(9.0, 0.6 + 1.1 * len(layouts), size, ax)
    total = prod(lengths.values())
    for row, layout in enumerate(layouts):
        named = {name: lengths[name] for name in parts(layout)}
        draw_fused(axes, 0.0, float(row), float(total), 0.4, named)
        axes.text(0, row - 0.07, layout, fontsize=10, family="monospace", va="bottom", color=INK)
        step = total / len(stripes(named))
        for index, stripe in enumerate(stripes(named)):
            whose = f"{KINDS[stripe[THREE]][0]}{stripe['head']}"
            axes.text((index + 0.5) * step, row + 0.47, whose, fontsize=8, ha="center", va="top", color=INK)
    for kind in KINDS:
        draw_block(axes, 0.0, -9.0, 1.0, 1.0, kind)  # outside, for the legend
    axes.legend(axes.patches[-3:], KINDS, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98))
    axes.set_xlim(-1, total + 1)
    axes.set_ylim(len(layouts) - 0.2, -0.5)
    axes.set_xticks([0, total // 3, 2 * total // 3, total])
    axes.tick_params(axis="x", colors=MUTED)
    axes.set_xlabel("channel of the fused projection")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(title, loc="left")
    return figure
