"""What the exercises in the notebooks are marked with, one module per notebook.

`checks.rotary.undo_rotation(answer)` shows "✓ right", "✗ not yet" with what is likely wrong, or "○ not answered yet".
"""

from persimmon_lab.checks import collisions, conversion, precision, rotary, tour

__all__ = ["collisions", "conversion", "precision", "rotary", "tour"]
