"""Widgets for JupyterLab and Voila: thin shells that wire controls to the figures of `persimmon_lab.viz`."""

from persimmon_lab.widgets.attention.widget import AttentionExplorer
from persimmon_lab.widgets.lens.widget import LensExplorer
from persimmon_lab.widgets.panels.gain import GainExplorer
from persimmon_lab.widgets.panels.memory import MemoryCalculator
from persimmon_lab.widgets.panels.precision import PrecisionExplorer
from persimmon_lab.widgets.panels.rotary import RotaryExplorer
from persimmon_lab.widgets.playground.widget import GenerationPlayground
from persimmon_lab.widgets.tokens.widget import TokenInspector

__all__ = [
    "AttentionExplorer",
    "GainExplorer",
    "GenerationPlayground",
    "LensExplorer",
    "MemoryCalculator",
    "PrecisionExplorer",
    "RotaryExplorer",
    "TokenInspector",
]
