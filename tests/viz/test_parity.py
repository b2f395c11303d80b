"""The ladder shows every error where it is."""

import math

import pytest

from persimmon_lab.viz.parity import by_part, parity_ladder

PATHS = ["model.embed_tokens", "model.layers.0.mlp", "model.layers.0", "model.layers.10.mlp", "model.layers.10",
         "model.final_layernorm", "lm_head"]  # fmt: skip
ERRORS = {
    "some modules": {PATHS[0]: 0.0, PATHS[2]: 1e-7, PATHS[6]: 3e-6},
    "all": dict(zip(PATHS, [0.0, 1e-3, 2e-3, 4e-3, 8.0, 12.0, math.inf])),
}


def curves(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines() if line.get_label() in ERRORS}


def test_errors_stand_at_their_module():
    (axes,) = parity_ladder(ERRORS, {"a level": 1e-5}, "A title").axes
    drawn = curves(axes)
    left = axes.get_xlim()[0]
    (zero, row), *others = drawn["some modules"]
    assert (row, others) == (0, [[1e-7, 2], [3e-6, 6]])
    assert left < zero < 1e-8
    assert drawn["all"][0] == [zero, 0]
    assert drawn["all"][1:] == [[1e-3, 1], [2e-3, 2], [4e-3, 3], [8.0, 4], [10.0, 5], [10.0, 6]]
    assert axes.get_xlim()[1] > 10
    assert axes.yaxis_inverted()
    labels = dict(zip([text.get_text() for text in axes.get_yticklabels()], axes.get_yticks()))
    assert labels == {"embedding": 0, "layer 0": 1.5, "layer 10": 3.5, "norm, head": 5.5}
    assert [text.get_text() for text in axes.texts] == ["a level"]
    assert axes.get_title(loc="left") == "A title"
    assert len({(line.get_marker(), line.get_linestyle(), line.get_color()) for line in axes.get_lines()[-3:-1]}) == 2


def test_what_is_smaller_than_expected_keeps_clear_of_the_lane_of_zeros():
    (axes,) = parity_ladder({"all": dict(zip(PATHS, [0.0, 3e-17] + [1.0] * 5))}).axes
    line = next(line for line in axes.get_lines() if line.get_label() == "all")
    zero, smallest = line.get_xdata()[:2]
    border = axes.get_lines()[-1].get_xdata()[0]
    assert zero < border < smallest == pytest.approx(3e-17)


def test_parts_of_a_body_alone():
    assert by_part(["embed_tokens", "layers.3.mlp", "final_layernorm"]) == {
        "embedding": [0],
        "layer 3": [1],
        "norm, head": [2],
    }
