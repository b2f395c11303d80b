"""The rotary explorer: what position, theta, partial rotation, scaling and precision do to clocks and scores."""

import dataclasses
import math
from collections.abc import Sequence

import ipywidgets
import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.rotary import apply_rotary, dynamic_theta, rotary_tables
from persimmon_lab.viz.rotary import explorer
from persimmon_lab.widgets.panels.panel import Panel

OFFSETS = 128  # how far back the curve of scores looks
DOTS_PER_INCH = 150
THETAS = tuple(digit * 10.0**power for power in range(1, 6) for digit in (1, 2, 5)) + (1e6,)


def clock_angles(position: int, config: PersimmonConfig, length: int) -> Float[Tensor, "pair"]:
    """The angle of every pair's hand, between -pi and pi, read off the tables that the model uses."""
    cos, sin = rotary_tables(torch.tensor([[position]]), config, length, torch.float32)
    return torch.atan2(sin, cos)[0, 0, : config.rotary_dim // 2]


def scores_of_equal_vectors(
    position: int, offsets: Int[Tensor, "offset"], config: PersimmonConfig
) -> Float[Tensor, "offset"]:
    """Scores of a query at `position` with equal keys before it, all of length 1 and even over the channels.

    Each rotated pair adds the cosine of its angle between the two, the passed channels a constant. NaN where there is
    no key: before position 0.
    """
    cos, sin = rotary_tables(rearrange(position - offsets, "o -> 1 o"), config, position + 1, torch.float32)
    vectors = torch.full((1, 1, len(offsets), config.head_dim), 1 / math.sqrt(config.head_dim))
    rotated = rearrange(apply_rotary(vectors, cos, sin), "1 1 offset channel -> offset channel")
    scores = einsum(rotated[0], rotated, "channel, offset channel -> offset")
    return torch.where(offsets <= position, scores, math.nan)


def told(position: int, config: PersimmonConfig) -> tuple[str, ...]:
    """What the settings do to this position, in sentences."""
    rotated = config.rotary_dim
    length = position + 1
    trained = config.max_position_embeddings
    sentences = [
        f"{rotated} of a head's {config.head_dim} channels rotate, {config.head_dim - rotated} pass; "
        f"theta is {config.rope_theta:,.0f}."
    ]
    scaling = config.rope_scaling or {}
    kind: str | None = scaling.get("type")
    factor: float = scaling.get("factor", 1.0)
    if kind == "linear":
        sentences.append(f"Linear scaling by {factor:g}: position {position:,} is read as {position / factor:,.6g}.")
    elif kind == "dynamic" and length <= trained:
        sentences.append(
            f"Dynamic scaling by {factor:g}: an input of {length:,} is within the {trained:,} positions of training, "
            "so theta stays."
        )
    elif kind == "dynamic":
        theta = dynamic_theta(config.rope_theta, rotated, factor, length, trained)
        sentences.append(
            f"Dynamic scaling by {factor:g}: an input of {length:,} is beyond the {trained:,} positions of training, "
            f"so theta becomes {theta:,.0f}."
        )
    if config.rope_precision == "adept":
        # The scaled position is what is rounded.
        exact = position / factor if kind == "linear" else position
        held = float(torch.tensor(exact, dtype=torch.float32).bfloat16())
        sentences.append(f"bfloat16 holds {exact:,.6g} as {held:,.6g}; dashed hands are where exact ones stand.")
    return tuple(sentences)


def render(position: int, config: PersimmonConfig, note: str = "") -> Figure:
    """What the explorer shows: the clocks at one position and the scores of its query, for an input that ends there.

    `note` is written above the scores.
    """
    figure = _render(position, config)
    if note:
        scores = figure.axes[1]
        scores.set_ylim(-0.5, 1.6)
        scores.text(0.012, 0.97, note, va="top", fontsize=9, transform=scores.transAxes)
    return figure


def _render(position: int, config: PersimmonConfig) -> Figure:
    exact = dataclasses.replace(config, rope_precision="float32")
    length = position + 1
    offsets = torch.arange(OFFSETS + 1)
    wavelengths = 2 * math.pi / clock_angles(1, exact, length)
    pairs = config.rotary_dim // 2
    clocks = f"{pairs} clock{'s' if pairs > 1 else ''}"
    title = f"Position {position:,}: {clocks}, and the positions that each takes for one turn"
    curves = {"float32": scores_of_equal_vectors(position, offsets, exact)}
    if config.rope_precision == "float32":
        return explorer(clock_angles(position, exact, length), wavelengths, offsets, curves, title=title)
    curves = {"bfloat16 phases": scores_of_equal_vectors(position, offsets, config)} | curves
    phases = clock_angles(position, config, length)
    return explorer(phases, wavelengths, offsets, curves, clock_angles(position, exact, length), title)


class RotaryExplorer(Panel):
    """Move position, theta, rotated part, scaling and precision, and watch the clocks and the scores move.

    Starts from `config` (Persimmon-8B's by default), whose head width and trained length it keeps; `explorer.config`
    is the one it shows now.
    """

    dots_per_inch = DOTS_PER_INCH

    def __init__(self, config: PersimmonConfig | None = None, position: int = 300) -> None:
        self.start = config = config or PersimmonConfig.persimmon_8b()
        scaling = config.rope_scaling or {"type": "none", "factor": 4.0}
        widths = {part: int(part * config.head_dim) for part in {0.25, 0.5, 0.75, 1.0, config.partial_rotary_factor}}
        self.position = ipywidgets.IntSlider(position, 0, 4 * config.max_position_embeddings, description="position")
        self.theta = ipywidgets.SelectionSlider(
            options=[(f"{theta:,.0f}", theta) for theta in sorted({*THETAS, config.rope_theta})],
            value=config.rope_theta,
            description="theta",
        )
        self.rotated_part = ipywidgets.ToggleButtons(
            options=sorted(part for part, width in widths.items() if width and width % 2 == 0),
            value=config.partial_rotary_factor,
            description="rotated part",
            style={"button_width": "52px"},
        )
        self.scaling = ipywidgets.ToggleButtons(
            options=("none", "linear", "dynamic"),
            value=scaling["type"],
            description="scaling",
            style={"button_width": "80px"},
        )
        factor = scaling["factor"]
        self.factor = ipywidgets.FloatSlider(
            factor, min=min(1.5, factor), max=max(16.0, factor), step=0.5, description="factor"
        )
        self.bfloat16 = ipywidgets.Checkbox(
            config.rope_precision == "adept", description="phases in bfloat16, as Adept's code has them", indent=False
        )
        super().__init__((self.position, self.theta, self.rotated_part, self.scaling, self.factor, self.bfloat16))

    @property
    def config(self) -> PersimmonConfig:
        """The start's configuration with what the controls say."""
        scaled = self.scaling.value != "none"
        return dataclasses.replace(
            self.start,
            rope_theta=self.theta.value,
            partial_rotary_factor=self.rotated_part.value,
            rope_scaling={"type": self.scaling.value, "factor": self.factor.value} if scaled else None,
            rope_precision="adept" if self.bfloat16.value else "float32",
        )

    def static(self) -> Figure:
        """The present choice as one figure, for pages without a kernel: the words stand in it. ValueError where no
        model can have it."""
        return render(self.position.value, self.config, "\n".join(told(self.position.value, self.config)))

    def draw(self, _change: object = None) -> None:
        """Show the present choice; one that no model can have leaves the picture and is told instead."""
        self.factor.disabled = self.scaling.value == "none"
        super().draw()

    def _figure(self) -> Figure:
        return render(self.position.value, self.config)

    def _words(self) -> Sequence[str]:
        return told(self.position.value, self.config)

    def __repr__(self) -> str:
        return f"RotaryExplorer(position={self.position.value}, theta={self.theta.value:.0f})"
