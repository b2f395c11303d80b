"""What fits where, how fast it can be, and making it fit.

`fitting.offload` needs accelerate, so it is imported by its own name.
"""

from persimmon_lab.fitting.choosing import Choice, choose, first_layers, load_what_fits
from persimmon_lab.fitting.memory import MemoryPlan, memory_plan, parameter_counts, streamed_bytes, weight_bytes
from persimmon_lab.fitting.roofline import bytes_per_step, flops, intensity, measure_bandwidth, measure_matrix_rate
from persimmon_lab.fitting.vocabulary_rows import alignment, drop_rows, never_produced

__all__ = [
    "Choice",
    "MemoryPlan",
    "alignment",
    "bytes_per_step",
    "choose",
    "drop_rows",
    "first_layers",
    "flops",
    "intensity",
    "load_what_fits",
    "measure_bandwidth",
    "measure_matrix_rate",
    "memory_plan",
    "never_produced",
    "parameter_counts",
    "streamed_bytes",
    "weight_bytes",
]
