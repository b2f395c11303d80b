"""What the exercises in the notebooks are marked with, one module or two for each notebook.

`checks.rotary.undo_rotation(answer)` shows "✓ right", "✗ not yet" with what is likely wrong, or "○ not answered yet".
"""

from persimmon_lab.checks import (
    attention,
    bounds,
    choosing,
    collisions,
    conversion,
    copying,
    heads,
    lens,
    naming,
    neurons,
    precision,
    prediction,
    remembering,
    remembering_caches,
    rotary,
    sampler,
    shapes,
    speed,
    tokens,
    tour,
    whole,
)

__all__ = [
    "attention",
    "bounds",
    "choosing",
    "collisions",
    "conversion",
    "copying",
    "heads",
    "lens",
    "naming",
    "neurons",
    "precision",
    "prediction",
    "remembering",
    "remembering_caches",
    "rotary",
    "sampler",
    "shapes",
    "speed",
    "tokens",
    "tour",
    "whole",
]
