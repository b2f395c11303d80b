"""What the model expects next."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from persimmon_lab.viz.agreement import check_labels
from persimmon_lab.viz.signs import readable
from persimmon_lab.viz.style import CATEGORICAL, Size, figure_grid


def next_token_bars(
    steps: Sequence[tuple[str, Sequence[str], Sequence[float]]], title: str = "", *, size: Size | None = None
) -> Figure:
    """The likeliest next tokens after each of several prompts: (prompt, tokens, probabilities) a panel, best first.

    ValueError where a prompt has not as many tokens as probabilities.
    """
    for _, tokens, probabilities in steps:
        check_labels("token", tokens, probability=len(probabilities))
    count = max(len(tokens) for _, tokens, _ in steps)
    figure, axes = figure_grid(1, len(steps), 8.6 / len(steps), 0.6 + 0.24 * count, size)
    for panel, (prompt, tokens, probabilities) in zip(axes[0], steps, strict=True):
        positions, widest = range(len(tokens)), max(probabilities)
        colours = [CATEGORICAL[0]] + ["0.72"] * (len(tokens) - 1)
        panel.barh(positions, probabilities, color=colours, height=0.72)
        for position, probability in zip(positions, probabilities, strict=True):
            panel.text(probability + 0.02 * widest, position, f"{probability:.1%}", va="center", fontsize=8.5)
        panel.set_yticks(positions, map(readable, tokens), family="monospace", fontsize=9.5, parse_math=False)
        panel.set_xlim(0, 1.3 * widest)
        panel.set_xticks([])
        panel.invert_yaxis()
        panel.tick_params(length=0)
        for spine in panel.spines.values():
            spine.set_visible(False)
        panel.set_title(readable(prompt), fontsize=9.5, family="monospace", loc="left", parse_math=False)
    figure.suptitle(title, x=0.01, ha="left")
    return figure
