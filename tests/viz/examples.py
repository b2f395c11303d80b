"""A small call of every figure, and which of its arguments have to agree with which others.

A figure that is missing here fails tests/viz/test_agreement.py: give it an example, and say in `counted` which
arguments have one entry for each of something, and in `marks` which ones point at something that must be there.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from persimmon_lab.viz.beams import Candidate
from persimmon_lab.viz.html.lens_cell import Cell
from persimmon_lab.viz.html.pieces import Piece
from persimmon_lab.viz.html.tokens import Token
from persimmon_lab.viz.shapes import Stop


@dataclass(frozen=True)
class Example:
    arguments: dict[str, Any]
    counted: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    free: tuple[str, ...] = field(default=())  # named like a label, and none


def drawn_at_random(*shape: int) -> torch.Tensor:
    return 0.1 + 0.8 * torch.rand(*shape, generator=torch.Generator().manual_seed(0))


WORDS = ["a", "<b>", "$c"]
PATTERN = drawn_at_random(3, 3).tril()
PATTERNS = drawn_at_random(2, 4, 3, 3)
HEADS = drawn_at_random(2, 4)
THREE = drawn_at_random(3)
TWO_LINES = {"one": drawn_at_random(3), "other": drawn_at_random(3) / 2}
LENS = {
    "best": [["x", "y", "z"], ["x", "y", "q"]],
    "probabilities": drawn_at_random(2, 3),
    "read": WORDS,
    "following": ["<b>", "$c", None],
}
CELL = Cell("a", 0, "layer 0", (("x", 0.5), ("y", 0.25)), "x", (0.1, 0.5), (9, 1), stream=1)
STOPS = [
    [Stop("in", ("position", "hidden"), (3, 8), on_stream=True)],
    [Stop("fused", ("position", "(head three channel)"), (3, 24), ("in",))],
    [Stop("query", ("batch", "head", "position", "channel"), (1, 2, 3, 4), ("fused",), kind="query")],
]
STEPS = [
    [Candidate(0, "x", -1.0, True), Candidate(0, "y", -2.0, True), Candidate(0, "z", -3.0, False)],
    [Candidate(1, "x", -2.5, True), Candidate(0, "y", -3.0, False)],
]
MEASURED = SimpleNamespace(share=0.5, low=0.3, high=0.7, chance=0.25, five_gram=0.2, ceiling=1.0)
RUNS = {"float32": [3.0, 2.0, 1.0], "float16": [3.0, float("nan"), float("nan")]}

EXAMPLES = {
    "attention.attention_head": Example(
        {"pattern": PATTERN, "tokens": WORDS, "highlight": 1}, ("tokens",), ("highlight",)
    ),
    "attention.attention_grid": Example({"patterns": PATTERNS, "marks": {(1, 2): "this"}}, (), ("marks",)),
    "attention.attention_arcs": Example({"pattern": PATTERN, "tokens": WORDS, "query": 2}, ("tokens",), ("query",)),
    "attention_explorer.explorer": Example(
        {
            "thumbnails": PATTERNS,
            "pattern": PATTERN,
            "tokens": WORDS,
            "chosen": (1, 2),
            "token": 2,
            "marks": {(0, 0): "b"},
        },
        ("tokens",),
        ("chosen", "token", "marks"),
    ),
    "beams.beam_tree": Example({"steps": STEPS}),
    "budget.parameter_treemap": Example({"counts": {"mlp": 9, "head": 3}, "repeats": {"mlp": 3}}, (), ("repeats",)),
    "budget.memory_bars": Example(
        {"rows": [("8B", 18e9, 4e9), ("mini", 1e9, 0)], "capacities": {"24 GB": 24e9}}, free=("rows",)
    ),
    "budget.stacked_bars": Example({"rows": [("8B", {"weights": 18e9})]}, free=("rows",)),
    "budget.row_directions": Example(
        {"cosines": THREE, "norms": THREE, "groups": {"all": torch.tensor([True, False, True])}}, ("cosines", "groups")
    ),
    "cache.work_grid": Example({"times": {"cache": torch.ones(3, 3, dtype=torch.int64)}, "prompt": 2}, (), ("prompt",)),
    "cache.bytes_written": Example({"positions": torch.arange(1, 4), "written": TWO_LINES}, ("positions", "written")),
    "cache.cache_growth": Example(
        {"positions": torch.arange(1, 4), "held": TWO_LINES, "weights": 0.5}, ("positions", "held")
    ),
    "cache.drift": Example(
        {"angles": drawn_at_random(3, 2), "scores": {"one": (torch.arange(1, 4), THREE)}, "trained_length": 2},
        ("scores",),
    ),
    "cache.loss_by_position": Example(
        {"starts": torch.arange(1, 4), "losses": TWO_LINES, "trained_length": 2}, ("starts", "losses")
    ),
    "choosing.kept_sets": Example(
        {"distributions": {"flat": (drawn_at_random(9), WORDS)}, "kept": {"top-k": [5], "top-p": [1]}}, ("kept",)
    ),
    "choosing.kept_along": Example(
        {"tokens": WORDS, "counts": {"top-p": torch.tensor([1, 20, 3])}}, ("tokens", "counts")
    ),
    "choosing.entropy_by_temperature": Example(
        {"temperatures": torch.tensor([0.5, 1, 2]), "entropies": TWO_LINES, "most": 3.0}, ("temperatures", "entropies")
    ),
    "choosing.probability_along": Example({"texts": TWO_LINES}),
    "choosing.likelihood_and_variety": Example({"points": {"greedy": (-1.0, 0.5)}, "real": (-2.0, 0.9)}),
    "collisions.staircase": Example(
        {
            "distinct_so_far": {name: line.long() for name, line in TWO_LINES.items()},
            "rounded": torch.arange(3.0),
            "zooms": [(0, 2)],
        },
        ("distinct_so_far",),
        ("zooms",),
    ),
    "collisions.phase_errors": Example(
        {"errors": {"one": drawn_at_random(9, 2)}, "pairs": {1: "pair 1"}}, (), ("pairs",)
    ),
    "collisions.by_position": Example({"curves": TWO_LINES, "width": 8, "label": "KL", "cliff": 9}, ("curves",)),
    "collisions.by_start": Example({"starts": [0, 1, 2], "curves": TWO_LINES, "label": "KL"}, ("starts", "curves")),
    "collisions.loss_by_band": Example(
        {"losses": TWO_LINES, "width": 8, "reference": "one"}, ("losses",), ("reference",)
    ),
    "divergence.loss_by_step": Example(
        {"losses": RUNS, "reference": "float32", "endings": {"float16": "overflow"}}, (), ("reference", "endings")
    ),
    "divergence.lost_shares": Example(
        {"shares": {"one": {"vanished": 0.5}, "two": {"vanished": 0.1}}}, free=("shares",)
    ),
    "divergence.gradient_sizes": Example(
        {"gradients": {"one": THREE}, "floors": {"low": 0.2}, "ceilings": {"high": 0.8}}
    ),
    "finetuning.confusion_matrix": Example(
        {"confusion": torch.tensor([[3, 1], [0, 4]]), "labels": ["cat", "$dog"]}, ("labels",)
    ),
    "finetuning.moved_by_layer": Example({"moved": {"mlp": [0.1, 0.2], "dense": [0.3, 0.0]}}, ("moved",)),
    "forest.forest_plot": Example(
        {"scores": {"one": [MEASURED] * 3, "$other": [MEASURED] * 3}, "rows": WORDS}, ("scores", "rows")
    ),
    "formats.ranges": Example({"formats": {"half": (1e-8, 1e-5, 6e4)}, "marks": {"here": 1.0}}, free=("marks",)),
    "formats.spacings": Example(
        {"magnitudes": torch.tensor([1.0, 2, 4]), "steps": TWO_LINES, "marks": {"here": 2.0}},
        ("magnitudes", "steps"),
        free=("marks",),
    ),
    "heads.score_maps": Example({"scores": {"one": HEADS}, "marks": {"one": [(1, 2)]}}, (), ("marks",)),
    "heads.effect_map": Example({"effects": HEADS, "marks": [(1, 2)]}, (), ("marks",)),
    "heads.null_strips": Example(
        {"scores": {"one": HEADS}, "nulls": {"one": drawn_at_random(5, 2, 4) / 2}}, (), ("nulls",)
    ),
    "heads.ablation_scatter": Example(
        {"elsewhere": HEADS, "repeated": HEADS, "groups": {"one": [(1, 2)]}, "named": {(1, 2): (9, 0)}},
        ("elsewhere",),
        ("groups", "named"),
    ),
    "heads.path_bars": Example({"stripes": {"6.3": {"clean": 0.5, "cut": 0.1}, "6.4": {"clean": 0.4, "cut": 0.2}}}),
    "lattice.lattice": Example(
        {"text": "ab", "arcs": [(0, 1, -1.0), (1, 2, -1.5), (0, 2, -2.0)], "best": {2}, "shares": [0.4, 0.4, 0.6]},
        ("shares",),
        ("best",),
    ),
    "layouts.fused_layouts": Example(
        {"layouts": ["(head three channel)"], "lengths": {"head": 2, "three": 3, "channel": 4}}
    ),
    "lens.lens_grid": Example(LENS, ("best", "read", "following")),
    "lens_explorer.explorer": Example(
        LENS | {"chosen": (1, 0), "cell": CELL}, ("best", "read", "following"), ("chosen",)
    ),
    "neurons.activation_functions": Example({"x": torch.arange(3.0), "curves": {"f": (THREE, THREE)}}, ("x",)),
    "neurons.raster": Example({"activations": (drawn_at_random(3, 9) > 0.5).float(), "tokens": WORDS}, ("tokens",)),
    "neurons.sparsity_by_layer": Example(
        {"silent": TWO_LINES, "mass": drawn_at_random(3, 2).sort().values, "shares": (0.01, 0.1)}, ("silent", "shares")
    ),
    "neurons.against_the_ceiling": Example(
        {"before": drawn_at_random(3, 9), "highest_possible": THREE, "ceiling": 256.0}, ("highest_possible",)
    ),
    "neurons.rows_needed": Example(
        {"batches": (1, 2, 4), "needed": TWO_LINES, "guessed": TWO_LINES}, ("batches", "needed", "guessed")
    ),
    "parity.parity_ladder": Example({"errors": {"one": {"embed": 0.0, "layers.0": 1e-6}, "two": {"layers.0": 1e-5}}}),
    "patching.patch_heatmap": Example(
        {
            "effects": {"stream": drawn_at_random(2, 3)},
            "clean": WORDS,
            "corrupted": ["a", "x", "$c"],
            "rows": ["0", "1"],
        },
        ("clean", "corrupted", "rows"),
    ),
    "patching.attribution_bars": Example({"parts": {"embedding": 1.0, "MLP": -0.5}}),
    "patching.head_effects": Example({"values": {"share": HEADS}}),
    "pictures.patches_in_a_row": Example({"picture": drawn_at_random(3, 4, 6), "patch_size": 2}),
    "pictures.picture_rows": Example({"pictures": list(drawn_at_random(3, 1, 4, 6)), "labels": WORDS}, ("labels",)),
    "pictures.weights_on_picture": Example(
        {"picture": drawn_at_random(1, 4, 6), "weights": drawn_at_random(3, 2, 3), "labels": WORDS}, ("labels",)
    ),
    "precision.error_ladder": Example({"errors": RUNS, "rows": ["0", "1", "2"]}, ("rows",)),
    "precision.overflow_margin": Example(
        {"largest": {"square": [1.0, 2.0, 7e4]}, "limits": {"float16": 65504.0}, "rows": ["0", "1", "2"]}, ("rows",)
    ),
    "precision.kl_by_position": Example({"kl": TWO_LINES}),
    "precision.flipped_tokens": Example(
        {"tokens": WORDS, "kl": THREE, "flips": {1: ("x", "y")}}, ("tokens",), ("flips",)
    ),
    "precision.island_search": Example(
        {"modules": ["0.mlp", "1.mlp"], "steps": [("all", ["0.mlp", "1.mlp"], 1e-4, True), ("none", [], 1.0, False)]}
    ),
    "precision.explorer": Example(
        {
            "errors": RUNS,
            "largest": {"square": [1.0, 2.0, 7e4]},
            "half_steps": {},
            "limits": {"float16": 65504.0},
            "rows": ["0", "1", "2"],
            "lost": {"square": [2]},
            "spans": ((1e-8, 10.0), (1e-3, 1e6)),
        },
        ("rows",),
        ("lost",),
    ),
    "predictions.next_token_bars": Example({"steps": [("a prompt", WORDS, [0.5, 0.3, 0.1])]}),
    "roofline.plot_roofline": Example({"points": {"a step": (1.0, 1e9)}, "bandwidth": 1e10, "peak": 1e11}),
    "rotary.clocks": Example(
        {"phases": drawn_at_random(3, 2), "positions": [0, 1, 2], "wavelengths": torch.tensor([6.3, 99.0])},
        ("positions", "wavelengths"),
    ),
    "rotary.frequency_by_position": Example(
        {"phases": drawn_at_random(3, 2), "wavelengths": torch.tensor([6.3, 99.0]), "trained_length": 50},
        ("wavelengths",),
    ),
    "rotary.score_by_offset": Example({"offsets": torch.arange(3), "curves": TWO_LINES}, ("offsets", "curves")),
    "rotary.scaling_compared": Example({"frequencies": TWO_LINES, "trained_length": 8, "length": 32}, ("frequencies",)),
    "rotary.score_split": Example(
        {"rotated": PATTERN, "passed": PATTERN - 0.4, "tokens": WORDS}, ("rotated", "tokens")
    ),
    "rotary.voices": Example({"heads": TWO_LINES, "wavelengths": torch.tensor([6.3, 99.0])}, ("heads", "wavelengths")),
    "rotary.explorer": Example(
        {
            "phases": drawn_at_random(2),
            "wavelengths": torch.tensor([6.3, 99.0]),
            "offsets": torch.arange(3),
            "curves": TWO_LINES,
        },
        ("wavelengths", "offsets", "curves"),
    ),
    "scores.score_histograms": Example(
        {"before": drawn_at_random(3, 9), "after": drawn_at_random(3, 9), "bounds": THREE}, ("after", "bounds")
    ),
    "scores.bound_by_layer": Example(
        {"bounds": THREE, "reachable": THREE, "seen": THREE, "plain": 1.0}, ("bounds", "reachable", "seen")
    ),
    "scores.entropy_under_gain": Example(
        {"gains": [0.5, 1.0, 2.0], "curves": TWO_LINES, "ceiling": 2.0}, ("gains", "curves")
    ),
    "scores.collapse": Example(
        {"rows": {"raw": drawn_at_random(2, 3)}, "gains": [1.0, 2.0], "tokens": WORDS},
        ("gains", "tokens"),
        free=("rows",),
    ),
    "scores.explorer": Example(
        {
            "scores": THREE,
            "bound": 2.0,
            "pattern": PATTERN,
            "tokens": WORDS,
            "gains": [0.5, 1.0, 2.0],
            "curves": TWO_LINES,
            "gain": 1.0,
            "normed": True,
            "widest": 30.0,
        },
        ("tokens", "gains", "curves"),
    ),
    "shapes.shape_flow": Example({"rows": STOPS}, free=("rows",)),
    "training.loss_curves": Example({"losses": RUNS, "floors": {"chance": 3.5}}),
    "training.residual_norms": Example({"models": {"mini": TWO_LINES}}),
    "training.gradient_flow": Example(
        {"norms": {"up": [1.0, 2.0, 3.0], "down": [2.0, 1.0, 0.5]}, "every": 2}, ("norms",)
    ),
    "training.stripes": Example({"patterns": {"head": [("period 2", PATTERN, 2)]}}),
    "training.stability": Example(
        {"losses": {"one": [3.0, 2.0]}, "scores": {"one": ([0, 1, 2], [1.0, 2.0, 4.0])}, "chance": 3.5}, ("scores",)
    ),
    "html.tokens.page_html": Example(
        {"prompt": [Token("a", "a")], "tokens": [Token("b", "b", 0.5, 1, 1.0)], "details": "", "inspect": 0},
        (),
        ("inspect",),
        free=("tokens",),
    ),
    "html.pieces.page_html": Example(
        {"pieces": [Piece(1, "a", b"a", 0, 1, score=-1.0)], "counts": "", "inspect": 0}, (), ("inspect",)
    ),
    "html.lens_cell.curve_svg": Example(
        {"piece": "x", "probabilities": [0.1, 0.5], "ranks": [9, 1], "chosen": 1},
        ("probabilities", "ranks"),
        ("chosen",),
    ),
}

# What only a closer look at the arguments can break.
REFUSED = {
    "beams.beam_tree": {"steps": [*STEPS, [Candidate(7, "x", -4.0, True)]]},
    "budget.stacked_bars": {"rows": [("8B", {"weights": 18e9}), ("mini", {"weights": 1e9, "cache": 1e9})]},
    "divergence.lost_shares": {"shares": {"one": {"vanished": 0.5}, "two": {"rounded": 0.1}}},
    "heads.path_bars": {"stripes": {"6.3": {"clean": 0.5, "cut": 0.1}, "6.4": {"clean": 0.4}}},
    "parity.parity_ladder": {"errors": {"one": {"embed": 0.0, "layers.0": 1e-6}, "two": {"layers.9": 1e-5}}},
    "precision.island_search": {"modules": ["0.mlp"], "steps": [("all", ["9.mlp"], 1e-4, True)]},
    "predictions.next_token_bars": {"steps": [("a prompt", WORDS, [0.5, 0.3])]},
    "training.residual_norms": {"models": {"mini": {"one": THREE, "other": THREE[:2]}}},
    "training.stripes": {"patterns": {"head": [("period 9", PATTERN, 9)]}},
    "layouts.fused_layouts": {"layouts": ["(head three width)"], "lengths": {"head": 2, "three": 3, "channel": 4}},
    "shapes.shape_flow": {"rows": [[Stop("in", ("position", "hidden"), (3, 8), ("nowhere",))]]},
}
