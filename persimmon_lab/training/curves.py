"""The loss plot of a run. Apart from the trainer, so that training needs no matplotlib."""

from collections.abc import Iterable
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure


def loss_figure(entries: Iterable[dict], tokens_per_step: int) -> Figure:
    """Training loss, and the held-out loss of each domain, in nats per token over millions of tokens seen."""
    entries = list(entries)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    training = [(entry["step"] * tokens_per_step / 1e6, entry["loss"]) for entry in entries if "loss" in entry]
    axes.plot(*zip(*training), color="0.8", linewidth=1, label="one batch of training")
    held_out = [(entry["step"] * tokens_per_step / 1e6, entry["held_out"]) for entry in entries if "held_out" in entry]
    domains = sorted({domain for _, losses in held_out for domain in losses})
    for domain, marker in zip(domains, "osv^D*xP"):
        axes.plot(
            [seen for seen, _ in held_out], [losses[domain] for _, losses in held_out], f"{marker}-", label=domain
        )
    axes.set(xlabel="million tokens seen", ylabel="nats per token", title="persimmon-mini: training and held-out loss")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def write_loss_figure(path: Path, entries: Iterable[dict], tokens_per_step: int) -> None:
    """`loss_figure` as an SVG file."""
    temporary = path.with_name(path.name + ".partial")
    FigureCanvasSVG(loss_figure(entries, tokens_per_step)).print_svg(temporary)
    temporary.replace(path)
