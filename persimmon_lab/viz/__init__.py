"""Figures and HTML from plain tensors, numbers and strings, or from the package's own results. Nothing here knows the
model.

    from persimmon_lab.viz import attention_head, lens_grid

Every figure returns its matplotlib Figure; `style` says what `size=`, `ax=` and `cmap=` mean. Figures that are HTML are
in `viz.html`, the lattice of a text in `viz.lattice`, and an `explorer`, a widget's still picture, beside its figures.
"""

from persimmon_lab.viz.attention import attention_arcs, attention_grid, attention_head
from persimmon_lab.viz.beams import Candidate, beam_tree
from persimmon_lab.viz.budget import memory_bars, parameter_treemap, row_directions, stacked_bars
from persimmon_lab.viz.cache import bytes_written, cache_growth, drift, loss_by_position, work_grid
from persimmon_lab.viz.choosing import (
    entropy_by_temperature,
    kept_along,
    kept_sets,
    likelihood_and_variety,
    probability_along,
)
from persimmon_lab.viz.collisions import by_position, by_start, loss_by_band, phase_errors, staircase
from persimmon_lab.viz.divergence import gradient_sizes, loss_by_step, lost_shares
from persimmon_lab.viz.forest import forest_plot
from persimmon_lab.viz.formats import ranges, spacings
from persimmon_lab.viz.heads import ablation_scatter, effect_map, null_strips, path_bars, score_maps
from persimmon_lab.viz.layouts import fused_layouts
from persimmon_lab.viz.lens import lens_grid
from persimmon_lab.viz.neurons import activation_functions, against_the_ceiling, raster, rows_needed, sparsity_by_layer
from persimmon_lab.viz.parity import parity_ladder
from persimmon_lab.viz.patching import attribution_bars, head_effects, patch_heatmap
from persimmon_lab.viz.pictures import patches_in_a_row, picture_rows, weights_on_picture
from persimmon_lab.viz.precision import error_ladder, flipped_tokens, island_search, kl_by_position, overflow_margin
from persimmon_lab.viz.predictions import next_token_bars
from persimmon_lab.viz.roofline import plot_roofline
from persimmon_lab.viz.rotary import (
    clocks,
    frequency_by_position,
    scaling_compared,
    score_by_offset,
    score_split,
    voices,
)
from persimmon_lab.viz.scores import bound_by_layer, collapse, entropy_under_gain, score_histograms
from persimmon_lab.viz.shapes import Stop, shape_flow
from persimmon_lab.viz.style import Series, new_figure, series
from persimmon_lab.viz.training import gradient_flow, loss_curves, residual_norms, stability, stripes

__all__ = [
    "Candidate",
    "Series",
    "Stop",
    "ablation_scatter",
    "activation_functions",
    "against_the_ceiling",
    "attention_arcs",
    "attention_grid",
    "attention_head",
    "attribution_bars",
    "beam_tree",
    "bound_by_layer",
    "by_position",
    "by_start",
    "bytes_written",
    "cache_growth",
    "clocks",
    "collapse",
    "drift",
    "effect_map",
    "entropy_by_temperature",
    "entropy_under_gain",
    "error_ladder",
    "flipped_tokens",
    "forest_plot",
    "frequency_by_position",
    "fused_layouts",
    "gradient_flow",
    "gradient_sizes",
    "head_effects",
    "island_search",
    "kept_along",
    "kept_sets",
    "kl_by_position",
    "lens_grid",
    "likelihood_and_variety",
    "loss_by_band",
    "loss_by_position",
    "loss_by_step",
    "loss_curves",
    "lost_shares",
    "memory_bars",
    "new_figure",
    "next_token_bars",
    "null_strips",
    "overflow_margin",
    "parameter_treemap",
    "parity_ladder",
    "patch_heatmap",
    "patches_in_a_row",
    "path_bars",
    "phase_errors",
    "picture_rows",
    "plot_roofline",
    "probability_along",
    "ranges",
    "raster",
    "residual_norms",
    "row_directions",
    "rows_needed",
    "scaling_compared",
    "score_by_offset",
    "score_histograms",
    "score_maps",
    "score_split",
    "series",
    "shape_flow",
    "spacings",
    "sparsity_by_layer",
    "stability",
    "stacked_bars",
    "staircase",
    "stripes",
    "voices",
    "weights_on_picture",
    "work_grid",
]
