"""The loss plot of a run as SVG, drawn by hand: training needs no matplotlib, and the card can show it anywhere."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 760, 400, 50, 40, 150, 50
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, safe for all eyes


Lines = dict[str, list[tuple[float, float]]]  # by name: (million tokens seen, value)


def loss_svg(entries: Iterable[Mapping[str, Any]], tokens_per_step: int, title: str) -> str:
    """Loss of single training batches, and of each held-out domain, in nats per token over million tokens seen.

    `entries` are those of a metrics.jsonl: {"step", "loss"} or {"step", "held_out": {domain: loss}}; others are left.
    """
    lines: Lines = {"training": []}
    for entry in entries:
        named = entry.get("held_out") or ({"training": entry["loss"]} if "loss" in entry else {})
        for name, loss in named.items():
            lines.setdefault(name, []).append((entry["step"] * tokens_per_step / 1e6, loss))
    return lines_svg(lines, "nats per token", title)


def skills_svg(entries: Iterable[Mapping[str, Any]], tokens_per_step: int, title: str) -> str:
    """The share of held-out instances of each skill that is right, in per cent over million tokens seen.

    `entries` are those of a metrics.jsonl: {"step", "skills": {name: {"right", "count"}}}; others are left.
    """
    lines: Lines = {}
    for entry in entries:
        for name, score in entry.get("skills", {}).items():
            share = 100 * score["right"] / score["count"]
            lines.setdefault(name, []).append((entry["step"] * tokens_per_step / 1e6, share))
    return lines_svg(lines, "per cent right", title)


def lines_svg(lines: Lines, unit: str, title: str) -> str:
    """Each line under its name at the right. Raises ValueError where there is no point to draw."""
    points = [point for line in lines.values() for point in line]
    if not points:
        raise ValueError("no entries to draw: the run has not logged a step yet")
    right = max(seen for seen, _ in points)
    low, high = min(loss for _, loss in points), max(loss for _, loss in points)

    def place(seen: float | int, loss: float | int) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * seen / right
        down = TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / max(high - low, 1e-9)
        return round(across, 1), round(down, 1)

    drawn = [text(LEFT, 18, title, "start", 14)]
    for tick in ticks(low, high):
        _, down = place(0, tick)
        drawn.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down}" y2="{down}" stroke="#ddd"/>')
        drawn.append(text(LEFT - 6, down + 4, f"{tick:g}", "end"))
    for tick in ticks(0, right):
        drawn.append(text(place(tick, low)[0], HEIGHT - BOTTOM + 16, f"{tick:g}", "middle"))
    drawn.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "million tokens seen", "middle"))
    drawn.append(text(6, TOP - 8, unit, "start"))
    named = [name for name in lines if name != "training"]
    for row, (name, line) in enumerate(lines.items()):
        again, index = divmod(named.index(name), len(COLOURS)) if name in named else (0, -1)
        colour = "#bbb" if index < 0 else COLOURS[index]
        dashes = ' stroke-dasharray="5 3"' if again else ""
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in line))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dashes}/>')
        drawn.append(
            text(WIDTH - RIGHT + 10, TOP + 16 * row, name + (" (dashed)" if again else ""), "start", colour=colour)
        )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *drawn, "</svg>"]) + "\n"


def text(x: float | int, y: float | int, content: str, anchor: str, size: int = 11, colour: str = "#333") -> str:
    """One SVG text element, escaped."""
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{escape(content)}</text>'


def ticks(low: float | int, high: float | int) -> Sequence[float]:
    """At most eight round numbers from `low` to `high`."""
    steps = [mantissa * 10.0**power for power in range(-3, 6) for mantissa in (1, 2, 5)]
    step = next((step for step in steps if (high - low) / step <= 7), steps[-1])
    first = -int(-low // step)
    return [round(index * step, 6) for index in range(first, int(high // step) + 1)]
