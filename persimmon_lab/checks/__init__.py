"""What the exercises in the notebooks are marked with, one module per notebook.

`checks.rotary.undo_rotation(answer)` shows "✓ right", "✗ not yet" with what is likely wrong, or "○ not answered yet".
"""

from persimmon_lab.checks import (
    attention,
    bounds,
    collisions,
    conversion,
    heads,
    lens,
    neurons,
    precision,
    rotary,
    shapes,
    tokens,
    tour,
    whole,
)

__all__ = [
    "attention",
    "bounds",
    "collisions",
    "conversion",
    "heads",
    "lens",
    "neurons",
    "precision",
    "rotary",
    "shapes",
    "tokens",
    "tour",
    "whole",
]
