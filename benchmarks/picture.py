"""Decoding beside the peers in one picture: a row a dtype, a panel a batch, a bar a contender, the limit as a line."""

from pathlib import Path

from matplotlib.axes import Axes

from benchmarks.cases import limit_rate
from benchmarks.sizes import HERE
from persimmon_lab.viz.style import FAINT, INK, MUTED, figure_grid, series

SPEED = HERE.parent / "docs" / "pictures" / "speed.png"
SDPA = "transformers 5 sdpa"
BARS = ("transformers 4.37.2", "transformers 5 eager", SDPA, "ours", "ours int8")  # from the top
OURS = {"ours": series(0), "ours int8": series(6)}


def draw_decoding(cases: list[dict], path: Path = SPEED, size: str = "M") -> bool:
    """Tokens a second of all rows together; False where no decoding of this size was measured."""
    decoding = {
        (case["dtype"], case["arguments"]["batch"]): case for case in cases
        if (case["size"], case["kind"]) == (size, "decode") and case.get("rates")
    }  # fmt: skip
    if not decoding:
        return False
    dtypes = sorted({dtype for dtype, _ in decoding})
    batches = sorted({batch for _, batch in decoding})
    figure, grid = figure_grid(len(dtypes), len(batches), 3.3, 2.1, sharey="row")
    for row, dtype in zip(grid, dtypes, strict=True):
        for axes, batch in zip(row, batches, strict=True):
            if case := decoding.get((dtype, batch)):
                panel(axes, case)
            else:
                axes.set_axis_off()
    figure.suptitle(
        f"Tokens a second, size {size}; dashed: the most that memory and arithmetic allow at this dtype",
        x=0.01,
        ha="left",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return True


def panel(axes: Axes, case: dict) -> None:
    """A bar for each contender that has a rate, our gain in the title, the limit as a line."""
    rates = {name: case["rates"][name] for name in BARS if name in case["rates"]}
    for place, (name, rate) in enumerate(rates.items()):
        look = OURS[name].bars if name in OURS else {"color": FAINT}
        axes.barh(place, rate, height=0.7, **look)
        axes.text(rate, place, f" {rate:,.0f}", va="center", fontsize=8, color=INK)
    most = max(rates.values())
    if case.get("limits"):
        limit = limit_rate(case, case["limits"])
        axes.axvline(limit, color=MUTED, linestyle="--", linewidth=1, zorder=0)
        most = max(most, limit)
    axes.set_yticks(range(len(rates)), list(rates))
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.set_xlim(0, 1.2 * most)
    ratio = case["ratios"].get(SDPA)
    gain = "" if ratio is None else f": {ratio:.2f} × 5 sdpa"
    axes.set_title(f"{case['dtype']}, batch {case['arguments']['batch']}{gain}", loc="left", fontsize=10)
