"""A still picture of the lens explorer: the cells around the chosen one, its best tokens, and the way there."""

from collections.abc import Sequence

from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.viz.agreement import check_labels, check_marks
from persimmon_lab.viz.html.lens_cell import Cell, short_rank
from persimmon_lab.viz.lens import NAMES, ROW, cells_for, draw_lens_grid
from persimmon_lab.viz.signs import stream_names, visible
from persimmon_lab.viz.style import CATEGORICAL, INK, RULES, SEQUENTIAL, ColourMap

CHARACTERS = 16  # of a token beside its bar
BELOW = 2.4  # inches for what stands below the grid


def explorer(
    best: Sequence[Sequence[str]],
    probabilities: Float[Tensor, "stream position"],
    read: Sequence[str],
    following: Sequence[str | None],
    chosen: tuple[int, int],
    cell: Cell,
    title: str = "",
    warning: str = "",
    *,
    cmap: ColourMap = SEQUENTIAL,
) -> Figure:
    """`lens_grid` with a ring around the `chosen` (stream, position), and that cell's numbers below it.

    Left the best tokens, the following one with a sign; right the following token's probability in every state of the
    stream, with its ranks below. A `warning` stands on top. What is NaN is left out, and a rank of 0 is none.
    ValueError where the numbers are not of the same states and positions.
    """
    if cell.following is not None:
        check_labels("probability", cell.probabilities, state=len(best), rank=len(cell.ranks))
        check_marks([cell.stream], state=len(best))
    with rc_context(RULES):
        figure = Figure(figsize=(9, 1.5 + ROW * len(best) + BELOW), layout="constrained")
        parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.3 + ROW * len(best), BELOW))
        above, below = parts[:, 0]
        grid = above.subplots()
        left, right = below.subplots(1, 2, width_ratios=(1, 1.4))
    if warning:
        figure.suptitle(warning, x=0.01, ha="left", fontsize=10, parse_math=False)
    image = draw_lens_grid(grid, best, probabilities, read, following, cells_for(len(read))[1], chosen, cmap)
    above.colorbar(image, ax=grid, label="probability of the best token", shrink=0.9, pad=0.015, aspect=24)

    rows = range(len(cell.likeliest))
    is_right = [piece == cell.following for piece, _ in cell.likeliest]
    left.barh(rows, [share for _, share in cell.likeliest], height=0.7,
              color=[CATEGORICAL[1] if right_one else CATEGORICAL[0] for right_one in is_right])  # fmt: skip
    names = [
        visible(piece, CHARACTERS) + (" ◂" if right_one else "")
        for (piece, _), right_one in zip(cell.likeliest, is_right)
    ]
    left.set_yticks(rows, names, **NAMES | {"fontsize": 8})
    for row, (_, share) in zip(rows, cell.likeliest):
        left.annotate(f"{100 * share:.1f} %", (share, row), (3, 0), textcoords="offset points", va="center",
                      fontsize=8, color=INK)  # fmt: skip
    left.invert_yaxis()
    left.set_xlim(0, 1.28 * max((share for _, share in cell.likeliest), default=1.0))
    left.set_xticks([])
    left.tick_params(length=0)
    left.spines[["left", "bottom"]].set_visible(False)
    if not cell.likeliest:
        left.text(0.5, 0.5, "The numbers are not finite here.", ha="center", transform=left.transAxes)
    left.set_title(title, loc="left", fontsize=10, parse_math=False)

    states = range(len(cell.probabilities))
    if cell.following is None:
        right.text(0.5, 0.5, "The text ends here: nothing follows.", ha="center", transform=right.transAxes)
        right.set_axis_off()
        return figure
    right.plot(states, cell.probabilities, color=CATEGORICAL[0], marker="o", markersize=4)
    right.plot(cell.stream, cell.probabilities[cell.stream], color=CATEGORICAL[1], marker="o", markersize=9,
               markeredgecolor="black", linestyle="none")  # fmt: skip
    every = -(-len(states) // 12)
    short = [name.replace("embedding", "emb.").replace("layer ", "") for name in stream_names(len(states))]
    right.set_xticks(states[::every], [f"{short[i]}\n{short_rank(cell.ranks[i])}" for i in states[::every]])
    right.set_ylim(-0.04, 1.06)
    right.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
    right.set_xlabel("layer, and the token's rank there", fontsize=9)
    right.set_title(f"what follows, {visible(cell.following, CHARACTERS)}, layer by layer", loc="left", fontsize=10,
                    parse_math=False)  # fmt: skip
    return figure
