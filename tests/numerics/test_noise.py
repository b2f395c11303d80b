"""Planted bugs stand out of honest rounding, at the module where they were planted; honest rounding does not."""

import dataclasses
import math

import pytest
import torch
from einops import rearrange

from persimmon_lab.numerics.compare import in_dtype
from persimmon_lab.numerics.formats import FORMATS, spacing
from persimmon_lab.numerics.noise import Noise, NoiseLevel, neighbour, noise
from tests.models import ids, tiny

BFLOAT16 = FORMATS["bfloat16"]
TEXT = ids(1, 320)  # beyond 256, where bfloat16 loses count


@pytest.fixture(scope="module")
def reference():
    return in_dtype(tiny(max_position_embeddings=512), torch.float64)


def half(reference):
    return in_dtype(reference, torch.bfloat16)


def wrong_layout(model):
    """Query, key and value of layer 1 laid out (three head channel), as in other models."""
    projection = model.model.layers[1].self_attn.query_key_value
    pattern = "(head three channel) ... -> (three head channel) ..."
    for parameter in (projection.weight, projection.bias):
        parameter.data = rearrange(parameter.data, pattern, head=4, three=3)
    return "model.layers.1.self_attn.query_key_value"


def adjacent_rotation(model):
    """Pairs of neighbours turn instead of halves: as if the channels had been reordered before and after."""
    tap, norm = model.model.layers[0].self_attn.rotated_query, model.model.layers[0].self_attn.q_layernorm
    swap = "batch head position (half pair) -> batch head position (pair half)"
    back = "batch head position (pair half) -> batch head position (half pair)"
    norm.register_forward_hook(
        lambda _module, _given, made: torch.cat((rearrange(made[..., :8], back, half=2), made[..., 8:]), dim=-1)
    )
    tap.register_forward_hook(
        lambda _module, _given, made: torch.cat((rearrange(made[..., :8], swap, half=2), made[..., 8:]), dim=-1)
    )
    return "model.layers.0.self_attn.q_layernorm"


def rounded_positions(model):
    """The quiet one: rotary positions and frequencies in bfloat16, as Adept's code has them."""
    model.model.config = dataclasses.replace(model.config, rope_precision="adept")
    return "model.layers.0.self_attn.rotated_query"


def a_norm_of_one_layer(model):
    model.model.layers[1].post_attention_layernorm.eps = 5e-2
    return "model.layers.1.post_attention_layernorm"


@pytest.mark.parametrize("seed", [1, 2])
def test_honest_rounding_is_not_suspected(reference, seed):
    found = noise(reference, half(reference), TEXT, seed=seed)
    assert found.suspects() == []
    z = found.frame()["z"]
    assert abs(z.mean()) < 2
    assert z.abs().max() < 8


def test_a_model_whose_weights_bfloat16_holds_is_not_suspected(reference):
    """As of a checkpoint stored in bfloat16: its weights are not rounded, and so must the repeats' weights not be."""
    stored = in_dtype(half(reference), torch.float64)
    found = noise(stored, half(stored), TEXT)
    assert found.suspects() == []
    assert found.levels[0].path == "model.embed_tokens"
    assert (found.levels[0].error, found.levels[0].z) == (0, 0)
    assert found.levels[0].repeats == (0,) * 8


@pytest.mark.parametrize("plant", [wrong_layout, adjacent_rotation, rounded_positions, a_norm_of_one_layer])
def test_a_planted_bug_is_suspected_where_it_was_planted(reference, plant, report_table):
    candidate = half(reference)
    where = plant(candidate)
    found = noise(reference, candidate, TEXT)
    assert found.suspects()[0] == where
    level = next(level for level in found.levels if level.path == where)
    frame = found.frame().set_index("path")
    assert frame.loc[where, "z"] == level.z > 10
    assert frame.loc[where, "ratio"] == pytest.approx(level.error / level.usual)
    report_table("Bugs beside bfloat16's rounding",
                 [{"planted": plant.__name__, "error": level.error, "usual": level.usual, "z": level.z}])  # fmt: skip


def test_z_is_counted_in_standard_deviations_of_the_logarithm():
    level = NoiseLevel("here", math.exp(5.0), (math.exp(1.0), math.exp(2.0), math.exp(3.0)))
    assert level.z == pytest.approx(3.0)
    assert level.usual == pytest.approx(math.exp(2.0))
    assert NoiseLevel("here", 0.1, (0.2, 0.2)).z == -math.inf
    assert NoiseLevel("here", 0.1, (0.0, 0.0)).z == math.inf


def test_a_neighbour_is_whole_steps_away(reference):
    stored = in_dtype(half(reference), torch.float64)
    moved = neighbour(stored, BFLOAT16, torch.Generator().manual_seed(0))
    for one, other in zip(stored.parameters(), moved.parameters(), strict=True):
        steps = ((other - one) / spacing(one.detach(), BFLOAT16)).detach()
        assert set(steps.unique().tolist()) == {-1.0, 0.0, 1.0}
        if one.numel() > 1000:
            assert abs(float(steps.mean())) < 0.1
            assert float((steps == 0).double().mean()) == pytest.approx(1 / 3, abs=0.05)
        # Just above a power of two a step down is two steps of the finer half; the format holds that as well.
        assert torch.equal(other, other.bfloat16().double())
    again = neighbour(stored, BFLOAT16, torch.Generator().manual_seed(0))
    assert all(torch.equal(one, other) for one, other in zip(moved.parameters(), again.parameters()))


def test_one_repeat_has_no_spread(reference):
    with pytest.raises(ValueError, match="repeats is 1; .* takes 2 or more"):
        noise(reference, half(reference), TEXT, repeats=1)


def test_noise_shows_its_first_suspect():
    level = NoiseLevel("a", 1.0, (1e-3, 2e-3))
    assert repr(Noise([level, NoiseLevel("b", 1e-3, (1e-3, 2e-3))])) == (
        "<Noise of 2 modules: 1 suspects, first a; .frame() has all>"
    )
