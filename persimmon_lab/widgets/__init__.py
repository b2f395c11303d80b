"""Widgets for JupyterLab and Voila: thin shells that wire controls to the figures of `persimmon_lab.viz`."""

from persimmon_lab.widgets.attention import AttentionExplorer
from persimmon_lab.widgets.gain import GainExplorer
from persimmon_lab.widgets.lens import LensExplorer
from persimmon_lab.widgets.memory import MemoryCalculator
from persimmon_lab.widgets.playground import GenerationPlayground
from persimmon_lab.widgets.precision import PrecisionExplorer
from persimmon_lab.widgets.rotary import RotaryExplorer
from persimmon_lab.widgets.tokens import TokenInspector

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
