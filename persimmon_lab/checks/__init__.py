"""What the exercises in the notebooks are marked with, a module or two for each notebook.

`checks.nb03_rotary.undo_rotation(answer)` shows "✓ right", "✗ not yet" with what is likely wrong, or "○ not answered
yet".
"""

from persimmon_lab.checks import (
    nb00_tour,
    nb01_tokens,
    nb02_shapes,
    nb03_rotary,
    nb04_collisions,
    nb05_attention,
    nb05_bounds,
    nb06_neurons,
    nb06_prediction,
    nb07_copying,
    nb07_whole,
    nb08_caches,
    nb08_remembering,
    nb09_choosing,
    nb09_sampler,
    nb10_conversion,
    nb11_precision,
    nb12_heads,
    nb12_naming,
    nb13_lens,
    nb14_speed,
    nb15_teaching,
    nb17_evaluation,
    nb18_pictures,
)

__all__ = [
    "nb00_tour",
    "nb01_tokens",
    "nb02_shapes",
    "nb03_rotary",
    "nb04_collisions",
    "nb05_attention",
    "nb05_bounds",
    "nb06_neurons",
    "nb06_prediction",
    "nb07_copying",
    "nb07_whole",
    "nb08_caches",
    "nb08_remembering",
    "nb09_choosing",
    "nb09_sampler",
    "nb10_conversion",
    "nb11_precision",
    "nb12_heads",
    "nb12_naming",
    "nb13_lens",
    "nb14_speed",
    "nb15_teaching",
    "nb17_evaluation",
    "nb18_pictures",
]
