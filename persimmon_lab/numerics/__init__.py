"""What half precision does to a model, measured.

`formats` says what a number format can hold. `compare` says where runs in several formats part, module by module
(`lockstep` runs them, `borrowing` on one set of weights, `measures` measures, `comparison` is the result); `parity`
whether two models agree, `noise` whether they differ by more than rounding. `islands` finds what float32 must keep,
`stress` makes a small model fail as a large one would. `rotary` and `rotary_effect` are about rounded positions,
`recipes` is about fine-tuning (`observation` and `diagnosis` say what a step did and why it failed). `intervals` says
what a score of so many items is worth.
"""

from persimmon_lab.numerics.borrowing import computing_in
from persimmon_lab.numerics.bounds import largest_score_found, layer_bound, longest_output, score_bound
from persimmon_lab.numerics.compare import compare, in_dtype
from persimmon_lab.numerics.comparison import Comparison
from persimmon_lab.numerics.diagnosis import Failure, diagnose
from persimmon_lab.numerics.formats import FORMATS, NumberFormat, format_of, round_to, spacing
from persimmon_lab.numerics.intervals import PairedTest, paired_test, smallest_difference, wilson
from persimmon_lab.numerics.islands import IslandSearch, keep_in_float32, smallest_island
from persimmon_lab.numerics.lockstep import lockstep
from persimmon_lab.numerics.noise import Noise, noise
from persimmon_lab.numerics.observation import Watch
from persimmon_lab.numerics.parity import Parity, parity
from persimmon_lab.numerics.recipes import RECIPES, Recipe, Run, fine_tune, ladder
from persimmon_lab.numerics.rotary import Collisions, collisions, phase_errors, phase_tables, phases
from persimmon_lab.numerics.rotary_effect import RotaryEffect, effect, swapped_tables
from persimmon_lab.numerics.stress import scale_mlp, scale_residual

__all__ = [
    "Collisions",
    "Comparison",
    "FORMATS",
    "Failure",
    "IslandSearch",
    "Noise",
    "NumberFormat",
    "PairedTest",
    "Parity",
    "RECIPES",
    "Recipe",
    "RotaryEffect",
    "Run",
    "Watch",
    "collisions",
    "compare",
    "computing_in",
    "diagnose",
    "effect",
    "fine_tune",
    "format_of",
    "in_dtype",
    "keep_in_float32",
    "ladder",
    "largest_score_found",
    "layer_bound",
    "lockstep",
    "longest_output",
    "noise",
    "paired_test",
    "parity",
    "phase_errors",
    "phase_tables",
    "phases",
    "round_to",
    "scale_mlp",
    "scale_residual",
    "score_bound",
    "smallest_difference",
    "smallest_island",
    "spacing",
    "swapped_tables",
    "wilson",
]
