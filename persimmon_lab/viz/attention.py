"""Where attention looks: one head large, or every head small."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.style import SEQUENTIAL, figure_grid, new_figure


def attention_head(
    pattern: Float[Tensor, "query key"], tokens: Sequence[str], title: str = "", highlight: int | None = None
) -> Figure:
    """One head's pattern: row = the token that looks, column = where it looks, dark = strongly.

    `highlight` outlines one row.
    """
    size = 0.9 + 0.24 * len(tokens)
    figure, axes = new_figure(size + 0.9, size)
    image = axes.imshow(pattern.float().cpu().numpy(), cmap=SEQUENTIAL, vmin=0, vmax=1)
    axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8.5, family="monospace")
    axes.set_yticks(range(len(tokens)), tokens, fontsize=8.5, family="monospace")
    axes.tick_params(length=0)
    axes.set_xlabel("looked at (key)")
    axes.set_ylabel("looking (query)")
    axes.set_title(title, loc="left")
    for spine in axes.spines.values():
        spine.set_visible(False)
    if highlight is not None:
        axes.axhspan(highlight - 0.5, highlight + 0.5, fill=False, edgecolor="black", linewidth=1.4)
    figure.colorbar(image, ax=axes, label="attention", shrink=0.7, pad=0.02)
    return figure


def attention_grid(
    patterns: Float[Tensor, "layer head query key"],
    title: str = "",
    marks: Mapping[tuple[int, int], str] | None = None,
) -> Figure:
    """Every head as a thumbnail, layers downwards, heads across; `marks` frames and names some of them."""
    layers, heads = patterns.shape[:2]
    figure, axes = figure_grid(layers, heads, cell_width=0.95, cell_height=0.95)
    for layer in range(layers):
        for head in range(heads):
            cell = axes[layer][head]
            # A square root lifts faint patterns enough to be seen at this size.
            cell.imshow(np.sqrt(patterns[layer, head].float().cpu().numpy()), cmap=SEQUENTIAL, vmin=0, vmax=1)
            cell.set_xticks([])
            cell.set_yticks([])
            mark = (marks or {}).get((layer, head))
            for spine in cell.spines.values():
                spine.set_visible(True)
                spine.set_edgecolor("black" if mark else "0.85")
                spine.set_linewidth(1.8 if mark else 0.6)
            if mark:
                # The future is empty, so there is room for a name.
                cell.text(0.97, 0.94, mark, transform=cell.transAxes, ha="right", va="top", fontsize=7)
            if head == 0:
                cell.set_ylabel(f"layer {layer}", fontsize=8.5)
            if layer == layers - 1:
                cell.set_xlabel(f"head {head}", fontsize=8.5)
    figure.suptitle(title, x=0.01, ha="left")
    return figure
