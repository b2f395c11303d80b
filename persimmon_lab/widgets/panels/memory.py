"""A calculator for what a Persimmon needs in memory."""

from typing import Any

import ipywidgets
import torch
from matplotlib.figure import Figure

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.fitting.memory import memory_plan
from persimmon_lab.viz.budget import memory_bars
from persimmon_lab.widgets.pictures import as_png, png_data

BYTES = {
    "float32 (4 bytes)": torch.float32,
    "bfloat16 or float16 (2 bytes)": torch.bfloat16,
    "int8 (1 byte)": torch.int8,
}
DEVICES = {"16 GB": 16e9, "24 GB": 24e9, "48 GB": 48e9, "80 GB": 80e9, "141 GB": 141e9}


def render(config: PersimmonConfig, dtype: torch.dtype, context: int, batch: int) -> Figure:
    """The bars for one choice: weights in `dtype`, the cache in two bytes unless the weights have four."""
    cache_dtype = torch.float32 if dtype is torch.float32 else torch.bfloat16
    weights = memory_plan(config, dtype, batch, context).weights
    cache = memory_plan(config, cache_dtype, batch, context).cache
    rows = [("weights alone", weights, 0), (f"{batch} × {context:,} tokens", weights, cache)]
    return memory_bars(rows, DEVICES)


class MemoryCalculator(ipywidgets.VBox):
    """Choose bytes per weight, context and number of conversations; see the total beside what devices hold."""

    def __init__(self, config: PersimmonConfig, dtype: torch.dtype = torch.bfloat16) -> None:
        self.config = config
        wide = {"style": {"description_width": "9em"}, "layout": {"width": "34em"}, "continuous_update": False}
        longest = config.max_position_embeddings
        contexts = [2**power for power in range(8, 24) if 2**power < longest] + [longest]
        self.dtype = ipywidgets.Dropdown(
            options=BYTES, value=dtype, description="weights in", style=wide["style"], layout=wide["layout"]
        )
        self.context = ipywidgets.SelectionSlider(
            options=[(f"{context:,}", context) for context in contexts],
            value=longest,
            description="tokens each",
            **wide,
        )
        self.batch = ipywidgets.IntSlider(value=1, min=1, max=32, description="conversations", **wide)
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        for control in (self.dtype, self.context, self.batch):
            control.observe(self._draw, "value")
        super().__init__([self.dtype, self.context, self.batch, self.picture])
        self._draw()

    def static(self) -> Figure:
        """The present choice as a figure, for pages without a kernel."""
        return render(self.config, self.dtype.value, self.context.value, self.batch.value)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """The widget, and beside it the picture that a page without a kernel shows."""
        return super()._repr_mimebundle_(**options) | png_data(self.picture.value)

    def _draw(self, change: object = None) -> None:
        self.picture.value = as_png(self.static(), dots_per_inch=100)
        self.picture.alt_text = f"memory for {self.batch.value} conversations of {self.context.value} tokens"

    def __repr__(self) -> str:
        return f"MemoryCalculator({self.batch.value} × {self.context.value:,} tokens, {self.dtype.label})"
