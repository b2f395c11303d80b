"""The rotary explorer shows what the model computes, and every control moves it."""

import base64
import dataclasses
import html
import math

import pytest
import torch

from persimmon_lab.config import PersimmonConfig
from persimmon_lab.rotary import inverse_frequencies
from persimmon_lab.widgets.panels.rotary import (
    DOTS_PER_INCH,
    RotaryExplorer,
    clock_angles,
    render,
    scores_of_equal_vectors,
    told,
)
from persimmon_lab.widgets.pictures import as_png
from tests.viz.drawing import drawn
from tests.viz.overlaps import overlapping

CONFIG = PersimmonConfig.tiny(hidden_size=128, max_position_embeddings=512)  # heads of 32, 16 of them rotate
ADEPT = dataclasses.replace(CONFIG, rope_precision="adept")
OFFSETS = torch.arange(60)


@pytest.mark.parametrize("position", [0, 1, 300, 2000])
def test_hands_stand_at_position_times_frequency(position):
    exact = position * inverse_frequencies(16, 25000.0).double()
    angles = clock_angles(position, CONFIG, position + 1).double()
    assert torch.allclose(
        torch.polar(torch.ones(8).double(), angles), torch.polar(torch.ones(8).double(), exact), atol=1e-3
    )


def test_bfloat16_cannot_tell_257_from_256():
    at = {position: clock_angles(position, ADEPT, 512) for position in (255, 256, 257)}
    assert torch.equal(at[257], at[256])
    assert not torch.equal(at[255], at[256])


@pytest.mark.parametrize(("part", "pairs"), [(0.25, 4), (0.5, 8), (1.0, 16)])
def test_the_score_is_the_mean_cosine_over_a_floor_of_passed_channels(part, pairs):
    config = dataclasses.replace(CONFIG, partial_rotary_factor=part)
    phases = OFFSETS[:, None] * 25000.0 ** (-torch.arange(pairs) / pairs)
    expected = part * phases.cos().mean(dim=-1) + (1 - part)
    assert torch.allclose(scores_of_equal_vectors(700, OFFSETS, config), expected, atol=1e-3)


def test_moving_both_changes_scores_in_bfloat16_alone():
    here, there = (scores_of_equal_vectors(position, OFFSETS, CONFIG) for position in (320, 907))
    assert torch.allclose(here, there, atol=1e-4)
    here, there = (scores_of_equal_vectors(position, OFFSETS, ADEPT) for position in (320, 907))
    assert (here - there).abs().max() > 0.05


def test_keys_stand_before_their_query():
    """In bfloat16, where a key 50 before and a key 50 after do not score the same."""
    angle = {position: clock_angles(position, ADEPT, 701) for position in range(641, 701)}
    expected = torch.stack([(angle[700] - angle[700 - int(offset)]).cos().mean() for offset in OFFSETS])
    assert torch.allclose(scores_of_equal_vectors(700, OFFSETS, ADEPT), 0.5 * expected + 0.5, atol=1e-4)


def test_there_are_no_keys_before_the_first_position():
    scores = scores_of_equal_vectors(10, OFFSETS, CONFIG)
    assert scores[:11].isfinite().all()
    assert scores[11:].isnan().all()


def test_dynamic_scaling_follows_the_length_of_the_input():
    dynamic = dataclasses.replace(CONFIG, rope_scaling={"type": "dynamic", "factor": 4.0})
    for position, slower in ((511, 1.0), (2047, 13.0)):
        speed = clock_angles(1, dynamic, position + 1)[-1]
        assert float(clock_angles(1, CONFIG, position + 1)[-1] / speed) == pytest.approx(slower, rel=1e-4)
    phases = OFFSETS[:, None] * clock_angles(1, dynamic, 2048)
    expected = 0.5 * phases.cos().mean(dim=-1) + 0.5
    assert torch.allclose(scores_of_equal_vectors(2047, OFFSETS, dynamic), expected, atol=1e-3)


def drawn_lines(figure):
    return {line.get_label(): line for line in figure.axes[1].get_lines() if not line.get_label().startswith("_")}


def test_the_figure_shows_both_precisions_when_they_differ():
    assert list(drawn_lines(render(300, CONFIG))) == ["float32"]
    figure = render(700, ADEPT)
    assert list(drawn_lines(figure)) == ["bfloat16 phases", "float32"]
    shown = torch.tensor(drawn_lines(figure)["bfloat16 phases"].get_ydata())
    assert torch.equal(shown, scores_of_equal_vectors(700, torch.arange(len(shown)), ADEPT).double())


def test_the_wavelengths_are_those_of_the_scaled_input():
    linear = dataclasses.replace(CONFIG, rope_scaling={"type": "linear", "factor": 4.0})
    plain, scaled = ([text.get_text() for text in render(9, config).axes[0].texts] for config in (CONFIG, linear))
    assert plain[:2] == ["6.3", "22"]
    assert scaled[:2] == ["25", "89"]
    dynamic = dataclasses.replace(CONFIG, rope_scaling={"type": "dynamic", "factor": 4.0})
    slowest = [render(position, dynamic).axes[0].texts[-1].get_text() for position in (511, 2047)]
    assert slowest == ["44,000", "580,000"]


def test_it_starts_from_the_configuration_it_is_given():
    start = dataclasses.replace(ADEPT, rope_scaling={"type": "linear", "factor": 32.0}, rope_theta=10000.0)
    explorer = RotaryExplorer(start, position=77)
    assert explorer.config == start
    assert repr(explorer) == "RotaryExplorer(position=77, theta=10000)"
    assert RotaryExplorer().config == PersimmonConfig.persimmon_8b()


@pytest.mark.parametrize(
    ("control", "value", "fields"),
    [
        ("position", 301, {}),
        ("theta", 500.0, {"rope_theta": 500.0}),
        ("rotated_part", 0.75, {"partial_rotary_factor": 0.75}),
        ("scaling", "linear", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
        ("bfloat16", True, {"rope_precision": "adept"}),
    ],
)
def test_every_control_changes_the_picture_and_the_configuration(control, value, fields):
    explorer = RotaryExplorer(CONFIG, position=300)
    before = bytes(explorer.picture.value)
    assert before.startswith(b"\x89PNG")
    getattr(explorer, control).value = value
    assert bytes(explorer.picture.value) != before
    assert explorer.config == dataclasses.replace(CONFIG, **fields)


def test_the_factor_counts_only_where_positions_are_scaled():
    explorer = RotaryExplorer(CONFIG)
    assert explorer.factor.disabled
    explorer.scaling.value = "dynamic"
    assert not explorer.factor.disabled
    explorer.factor.value = 8.0
    assert explorer.config.rope_scaling == {"type": "dynamic", "factor": 8.0}


def test_a_page_that_cannot_run_it_shows_its_picture():
    explorer = RotaryExplorer(CONFIG)
    data, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]) == as_png(explorer.static(), DOTS_PER_INCH)
    assert [text.get_text() for text in explorer.static().axes[1].texts] == ["\n".join(told(300, CONFIG))]
    assert metadata["image/png"]["width"] == 900


def test_only_widths_that_can_rotate_are_offered():
    narrow = PersimmonConfig.tiny(hidden_size=24, partial_rotary_factor=1.0)  # heads of 6 channels
    assert RotaryExplorer(narrow).rotated_part.options == (0.75, 1.0)
    with_two = RotaryExplorer(PersimmonConfig.tiny(hidden_size=32))  # heads of 8
    assert with_two.rotated_part.options == (0.25, 0.5, 0.75, 1.0)


def test_one_pair_is_one_clock():
    narrow = PersimmonConfig.tiny(hidden_size=16)  # heads of 4 channels, 2 of them rotate
    explorer = RotaryExplorer(narrow, position=5)
    assert explorer.rotated_part.value == 0.5
    assert explorer.static().texts[0].get_text().startswith("Position 5: 1 clock, and")
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    assert clock_angles(5, narrow, 6).tolist() == pytest.approx([5 - 2 * math.pi])
    expected = 0.5 * torch.cos(OFFSETS[:6].double()) + 0.5
    assert torch.allclose(scores_of_equal_vectors(5, OFFSETS[:6], narrow).double(), expected, atol=1e-5)


def test_what_no_model_can_have_is_told_and_leaves_the_picture():
    explorer = RotaryExplorer(PersimmonConfig.tiny(hidden_size=16), position=5)
    before = bytes(explorer.picture.value)
    explorer.scaling.value = "dynamic"
    assert bytes(explorer.picture.value) == before
    assert "dynamic rope_scaling needs a rotary width above 2" in explorer.told.value
    data, _ = explorer._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == before
    with pytest.raises(ValueError, match="rotary width above 2"):
        explorer.static()
    explorer.rotated_part.value = 1.0
    assert bytes(explorer.picture.value) != before
    assert "4 of a head&#x27;s 4 channels rotate, 0 pass" in explorer.told.value


@pytest.mark.parametrize(
    ("fields", "position", "sentences"),
    [
        ({}, 300, []),
        (
            {"rope_scaling": {"type": "linear", "factor": 4.0}},
            301,
            ["Linear scaling by 4: position 301 is read as 75.25."],
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
            511,
            ["Dynamic scaling by 4: an input of 512 is within the 512 positions of training, so theta stays."],
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 4.0}},
            2047,
            # 25000 * (4 * 2048 / 512 - 3) ** (16 / 14)
            [
                "Dynamic scaling by 4: an input of 2,048 is beyond the 512 positions of training, "
                "so theta becomes 468,833."
            ],
        ),
        (
            {"rope_precision": "adept"},
            1001,
            ["bfloat16 holds 1,001 as 1,000; dashed hands are where exact ones stand."],
        ),
        (
            {"rope_precision": "adept", "rope_scaling": {"type": "linear", "factor": 4.0}},
            1301,
            [
                "Linear scaling by 4: position 1,301 is read as 325.25.",
                "bfloat16 holds 325.25 as 326; dashed hands are where exact ones stand.",
            ],
        ),
    ],
)
def test_the_settings_are_explained(fields, position, sentences):
    config = dataclasses.replace(CONFIG, **fields)
    first = "16 of a head's 32 channels rotate, 16 pass; theta is 25,000."
    assert told(position, config) == (first, *sentences)
    figure = drawn(render(position, config, "\n".join(told(position, config))))
    assert overlapping(figure) == []
    explorer = RotaryExplorer(config, position=position)
    assert [html.unescape(each) for each in explorer.told.value.split("<br>")] == [first, *sentences]


def test_a_clock_at_rest_and_the_far_end_of_the_slider():
    for position in (0, 4 * 512):
        explorer = RotaryExplorer(CONFIG, position=position)
        assert bytes(explorer.picture.value).startswith(b"\x89PNG")
        assert explorer.position.max == 2048
