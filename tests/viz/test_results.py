"""Figures take the package's own results as they come, and draw what they draw of the same numbers as tensors."""

import dataclasses
import math

import numpy as np
import pandas
import pytest
import torch

from persimmon_lab import viz
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.fitting.memory import MemoryPlan
from persimmon_lab.generation.scoring import TokenScores
from persimmon_lab.numerics.comparison import RESIDUAL, Comparison, ModuleDistance
from persimmon_lab.numerics.diagnosis import Failure
from persimmon_lab.numerics.formats import format_of
from persimmon_lab.numerics.measures import Distance, Predictions
from persimmon_lab.numerics.parity import Parity
from persimmon_lab.trace.heads import Detection
from persimmon_lab.trace.lens import Attribution
from persimmon_lab.trace.patching import Patching
from persimmon_lab.trace.record import Trace
from tests.viz.drawing import lines
from tests.viz.examples import HEADS, PATTERNS, WORDS, drawn_at_random

DETECTED = Detection("induction", torch.tensor([[0.1, 0.9], [0.2, 0.3]]), torch.full((5, 2, 2), 0.4))
PATCHED = Patching(torch.tensor([[0.0, 4.0], [1.0, 2.0]]), clean=4.0, corrupted=0.0)


def image(figure, index=0):
    return np.asarray(figure.axes[index].get_images()[0].get_array())


def distance(error):
    return Distance(format_of(torch.float16), error, 1.0, 0, 0, None)


@pytest.fixture
def comparison():
    errors = {"float16": [1e-4, 2e-4, 3e-4], "bfloat16": [1e-3, 2e-3, math.inf]}
    modules = [
        ModuleDistance(name, f"model.layers.{layer}", RESIDUAL, distance(error))
        for name, line in errors.items()
        for layer, error in enumerate(line)
    ]
    choice = torch.zeros(1, 3, dtype=torch.int64)
    made = Predictions(drawn_at_random(1, 3), choice, choice, 9.0, 9.0)
    return Comparison("float32", modules, dict.fromkeys(errors), dict.fromkeys(errors, made))


def test_a_trace_is_its_patterns():
    trace = Trace()
    for layer, pattern in enumerate(PATTERNS):
        trace.keep(f"layers.{layer}.self_attn.pattern", pattern[None])
    attentions = tuple(pattern[None] for pattern in PATTERNS)
    wanted = viz.attention_grid(PATTERNS)
    for source in (trace, attentions, PATTERNS[:, None]):
        figure = viz.attention_grid(source)
        assert len(figure.axes) == 8
        assert all((image(figure, index) == image(wanted, index)).all() for index in range(8))


def test_what_is_not_chosen_yet_is_refused(unchecked_annotations):
    with pytest.raises(ValueError, match=r"there are patterns of 2 texts; draw one of them: patterns\[:, 0\]"):
        viz.attention_grid(torch.zeros(2, 2, 4, 3, 3))
    with pytest.raises(ValueError, match=r"shape \(3, 3\); wanted are \(layer, head, query, key\)"):
        viz.attention_grid(PATTERNS[0, 0])
    for figure in (viz.attention_head, viz.attention_arcs):
        with pytest.raises(ValueError, match=r"shape \(4, 3, 3\); wanted is one head's, \(query, key\)"):
            figure(PATTERNS[0], WORDS)


def test_detections_bring_their_null_and_their_frames():
    figure = viz.score_maps({"induction": DETECTED})
    assert image(figure) == pytest.approx(DETECTED.scores.numpy())
    (frame,) = figure.axes[0].patches
    assert (frame.get_x() + 0.5, frame.get_y() + 0.5) == (1, 0)
    assert not viz.score_maps({"induction": DETECTED}, {}).axes[0].patches
    strips = viz.null_strips({"induction": DETECTED})
    assert strips.axes[0].get_title(loc="left") == "induction: 1 of 4 heads above the null"


def test_patchings_and_attributions_are_their_effects():
    effect = PATCHED.effect
    assert image(viz.effect_map(PATCHED)) == pytest.approx(-effect.double().numpy())
    assert image(viz.head_effects(PATCHED)) == pytest.approx(effect.double().numpy())
    for effects in (PATCHED, {"stream": PATCHED}, {"stream": effect}):
        assert image(viz.patch_heatmap(effects, WORDS[:2], WORDS[:2])) == pytest.approx(effect.double().numpy())
    one = torch.tensor(1.0)
    attribution = Attribution(one, HEADS, torch.ones(2), torch.ones(2, 9), torch.ones(2), one, one)
    assert image(viz.head_effects({"share": attribution})) == pytest.approx(HEADS.double().numpy())
    names = [label.get_text() for label in viz.attribution_bars(attribution).axes[0].get_yticklabels()]
    assert names == [*attribution.parts(), "together"]


def test_a_comparison_and_its_tables_are_ladders(comparison):
    table = comparison.growth()
    for source in (comparison, table, {name: list(table[name]) for name in table}):
        axes = viz.error_ladder(source).axes[0]
        assert lines(axes)["float16"].get_ydata().tolist() == [1e-4, 2e-4, 3e-4]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
    assert "bfloat16: not finite" in lines(viz.error_ladder(comparison).axes[0])
    with pytest.raises(ValueError, match="'float16' has 3 numbers for 2 rows"):
        viz.error_ladder(comparison, rows=["0", "1"])
    table.index = ["first", "middle", "last"]
    named = viz.overflow_margin(table[["float16"]], {"half": 65504.0}).axes[0]
    assert [label.get_text() for label in named.get_xticklabels()] == ["first", "middle", "last"]


def test_a_comparison_has_predictions(comparison):
    wanted = comparison.predictions["float16"].kl[0].double().tolist()
    for source in (comparison, comparison.predictions, {"float16": comparison.predictions["float16"].kl[0]}):
        assert lines(viz.kl_by_position(source).axes[0])["float16"].get_ydata().tolist() == pytest.approx(wanted)
    choice = torch.zeros(2, 3, dtype=torch.int64)
    two = Predictions(torch.ones(2, 3), choice, choice, 9.0, 9.0)
    with pytest.raises(ValueError, match="predictions for 2 texts"):
        viz.kl_by_position({"float16": two})


def test_a_parity_is_its_errors_by_module(comparison):
    modules = [module for module in comparison.modules if module.candidate == "float16"]
    parity = Parity(dataclasses.replace(comparison, modules=modules), 1e-2)
    line = lines(viz.parity_ladder({"other": parity}).axes[0])["other"]
    assert line.get_xdata().tolist() == [1e-4, 2e-4, 3e-4] and line.get_ydata().tolist() == [0, 1, 2]


def test_scores_of_a_text_are_its_probabilities():
    scores = TokenScores(torch.tensor([[0.5, 0.25]]).log(), None)
    bars = viz.probability_along({"text": scores}).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([0.5, 0.25])
    with pytest.raises(ValueError, match="scores of 2 texts"):
        viz.probability_along({"text": TokenScores(torch.zeros(2, 3), None)})


def test_a_memory_plan_is_its_parts():
    plan = MemoryPlan(PersimmonConfig.persimmon_8b(), torch.bfloat16, 1, 2048)
    of_plan = viz.memory_bars([("8B", plan)]).axes[0].patches
    of_numbers = viz.memory_bars([("8B", plan.weights, plan.cache)]).axes[0].patches
    assert [bar.get_width() for bar in of_plan] == [bar.get_width() for bar in of_numbers]
    widths = [bar.get_width() for bar in viz.stacked_bars([("8B", plan)]).axes[0].patches]
    assert widths == pytest.approx([plan.weights / 1e9, plan.cache / 1e9, plan.activations / 1e9])


class Run:
    """As `fine_tune` gives it."""

    def __init__(self, losses, failure):
        self.losses, self.failure = losses, failure


def test_runs_say_why_they_ended():
    failed = Failure(2, "gradient", "mlp", "overflow of the square", "…")
    runs = {"float32": Run([3.0, 2.0, 1.0], None), "float16": Run([3.0, math.nan, math.nan], failed)}
    texts = [panel.texts[0].get_text() for panel in viz.loss_by_step(runs, "float32").axes[:2]]
    assert texts == ["1.00 at the end", "nan at step 2\noverflow of the square"]
    begins_with_nan = viz.loss_by_step({"float32": [1.0], "lost": [math.nan]}, "float32").axes[1]
    assert begins_with_nan.texts[0].get_text() == "nan at step 1"


def test_a_table_of_shares_is_drawn_by_its_columns():
    frame = pandas.DataFrame({"float16": [1.0, 2.0]}, index=["a", "b"])
    assert lines(viz.overflow_margin(frame, {"half": 65504.0}).axes[0])["float16"].get_ydata().tolist() == [1, 2]
