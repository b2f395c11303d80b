"""A still picture of the attention explorer: every head small, and the links of one token in the chosen head."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from persimmon_lab.viz.agreement import check_marks
from persimmon_lab.viz.attention import draw_arcs
from persimmon_lab.viz.style import CATEGORICAL, INK, RULES, SEQUENTIAL, ColourMap, numbers

GAP = 0.12  # between thumbnails, as a share of one


def explorer(
    thumbnails: Float[Tensor, "layer head row column"],
    pattern: Float[Tensor, "query key"],
    tokens: Sequence[str],
    chosen: tuple[int, int],
    token: int,
    direction: str = "from",
    threshold: float = 0.05,
    marks: Mapping[tuple[int, int], str] | None = None,
    title: str = "",
    *,
    cmap: ColourMap = SEQUENTIAL,
) -> Figure:
    """Thumbnails on the left, the chosen head's frame thick and those of the marked ones thin; arcs on the right.

    The arcs are those "from" the token, or those "to" it. ValueError where tokens and pattern differ in length, or a
    head or token is none of them.
    """
    marks = marks or {}
    layers, heads = thumbnails.shape[:2]
    check_marks([chosen, *marks], layer=layers, head=heads)
    with rc_context(RULES):
        figure = Figure(figsize=(9, 4.2))
        left = figure.add_axes((0.04, 0.1, 0.36, 0.76))
        right = figure.add_axes((0.43, 0.27, 0.565, 0.59))
    left.set_xlim(0, heads)
    left.set_ylim(layers, 0)
    left.set_aspect("equal", anchor="NW")
    for layer, head in np.ndindex(layers, heads):
        extent = (head + GAP / 2, head + 1 - GAP / 2, layer + 1 - GAP / 2, layer + GAP / 2)
        # A square root lifts faint patterns enough to be seen at this size.
        cell = np.sqrt(numbers(thumbnails[layer, head]))
        left.imshow(cell, cmap=cmap, vmin=0, vmax=1, extent=extent, aspect="auto", interpolation="nearest")
        is_chosen, is_marked = (layer, head) == chosen, (layer, head) in marks
        corner = (extent[0], extent[3])
        left.add_patch(Rectangle(corner, 1 - GAP, 1 - GAP, fill=False, zorder=3,
                                 edgecolor=CATEGORICAL[1] if is_chosen else INK if is_marked else "0.85",
                                 linewidth=2.6 if is_chosen else 1.4 if is_marked else 0.5))  # fmt: skip
    left.set_xlim(0, heads)
    left.set_ylim(layers, 0)
    left.set_xticks(np.arange(heads) + 0.5, [str(head) for head in range(heads)])
    left.set_yticks(np.arange(layers) + 0.5, [str(layer) for layer in range(layers)])
    left.tick_params(length=0)
    left.set_xlabel("head")
    left.set_ylabel("layer")
    left.spines[:].set_visible(False)
    end = {"query" if direction == "from" else "key": token}
    draw_arcs(right, pattern, tokens, 5.0, **end, threshold=threshold)
    right.set_title(title, loc="left")
    named = [f"{layer}·{head} {name}" for (layer, head), name in sorted(marks.items())]
    if named:
        figure.text(0.04, 0.985, "framed: " + ", ".join(named), va="top", fontsize=9, parse_math=False)
    return figure
