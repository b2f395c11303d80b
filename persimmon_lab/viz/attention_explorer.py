"""A still picture of the attention explorer: every head small, and the links of one token in the chosen head."""

from collections.abc import Mapping, Sequence

import numpy as np
from einops import rearrange
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from persimmon_lab.viz.agreement import check_marks
from persimmon_lab.viz.attention import draw_arcs
from persimmon_lab.viz.style import CATEGORICAL, INK, RULES, SEQUENTIAL, ColourMap, numbers

GAP = 0.12  # between thumbnails, as a share of one
CROWDED = 16  # layers or heads; where there are more, not each has room for its number


def mosaic(thumbnails: Float[np.ndarray, "layer head row column"]) -> tuple[Float[np.ndarray, "down across"], float]:
    """All thumbnails as one picture, NaN between them, and how much of a head's place that is on each side.

    A square root lifts faint patterns enough to be seen at this size. One picture, since matplotlib takes seconds for
    the 2,304 of the 8B.
    """
    size = max(thumbnails.shape[-2:])
    edge = max(1, round(size * GAP / 2 / (1 - GAP)))
    framed = np.pad(np.sqrt(thumbnails), ((0, 0), (0, 0), (edge, edge), (edge, edge)), constant_values=np.nan)
    return rearrange(framed, "layer head row column -> (layer row) (head column)"), edge / (size + 2 * edge)


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
        left = figure.add_axes((0.055, 0.1, 0.345, 0.76))
        right = figure.add_axes((0.43, 0.27, 0.565, 0.59))
    left.set_aspect("equal", anchor="NW")
    picture, gap = mosaic(numbers(thumbnails))
    extent = (0, heads, layers, 0)
    left.imshow(picture, cmap=cmap, vmin=0, vmax=1, extent=extent, aspect="auto", interpolation="nearest")
    crowd = min(1.0, CROWDED / max(layers, heads))  # of lines: thin where there are many
    for layer, head in np.ndindex(layers, heads):
        is_chosen, is_marked = (layer, head) == chosen, (layer, head) in marks
        left.add_patch(Rectangle((head + gap, layer + gap), 1 - 2 * gap, 1 - 2 * gap, fill=False, zorder=3,
                                 edgecolor=CATEGORICAL[1] if is_chosen else INK if is_marked else "0.85",
                                 linewidth=2.6 if is_chosen else 1.4 if is_marked else 0.5 * crowd))  # fmt: skip
    left.set_xlim(0, heads)
    left.set_ylim(layers, 0)
    across, down = (range(0, count, -(-count // CROWDED)) for count in (heads, layers))
    left.set_xticks([head + 0.5 for head in across], [str(head) for head in across])
    left.set_yticks([layer + 0.5 for layer in down], [str(layer) for layer in down])
    left.tick_params(length=0)
    left.set_xlabel("head")
    left.set_ylabel("layer")
    left.spines[:].set_visible(False)
    end = {"query" if direction == "from" else "key": token}
    draw_arcs(right, pattern, tokens, 5.0, **end, threshold=threshold)
    right.set_title(title, loc="left", parse_math=False)
    named = [f"{layer}·{head} {name}" for (layer, head), name in sorted(marks.items())]
    if named:
        figure.text(0.04, 0.985, "framed: " + ", ".join(named), va="top", fontsize=9, parse_math=False)
    return figure
