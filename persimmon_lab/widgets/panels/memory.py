"""A calculator for what a Persimmon needs in memory."""

import ipywidgets
import torch
from matplotlib.figure import Figure

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.fitting.memory import memory_plan
from persimmon_lab.viz.budget import memory_bars
from persimmon_lab.widgets.panels.panel import Panel

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


class MemoryCalculator(Panel):
    """Choose bytes per weight, context and number of conversations; see the total beside what devices hold."""

    dots_per_inch = 100

    def __init__(self, config: PersimmonConfig, dtype: torch.dtype = torch.bfloat16) -> None:
        self.config = config
        style = {"description_width": "9em"}
        longest = config.max_position_embeddings
        contexts = [2**power for power in range(8, 24) if 2**power < longest] + [longest]
        self.dtype = ipywidgets.Dropdown(options=BYTES, value=dtype, description="weights in", style=style)
        self.context = ipywidgets.SelectionSlider(
            options=[(f"{context:,}", context) for context in contexts],
            value=longest,
            description="tokens each",
            continuous_update=False,
            style=style,
        )
        self.batch = ipywidgets.IntSlider(
            value=1, min=1, max=32, description="conversations", continuous_update=False, style=style
        )
        super().__init__((self.dtype, self.context, self.batch))

    def _figure(self) -> Figure:
        return render(self.config, self.dtype.value, self.context.value, self.batch.value)

    def __repr__(self) -> str:
        return f"MemoryCalculator({self.batch.value} × {self.context.value:,} tokens, {self.dtype.label})"
