"""Positions inside the model: rotation by position, scaling, and Adept's arithmetic."""

import numpy as np
import pytest
import torch

from persimmon_lab import PersimmonConfig
from persimmon_lab.rotary import apply_rotary, inverse_frequencies, rotary_tables
from tests.models import ids, tiny
from tests.parity.cases import uniform
from tests.tolerances import TOLERANCE

DYNAMIC = {"type": "dynamic", "factor": 2.0}
LINEAR = {"type": "linear", "factor": 4}


def tables(config, positions, dtype=torch.float32, length=None):
    positions = torch.as_tensor(positions)[None]
    return rotary_tables(positions, config, length or int(positions.max()) + 1, dtype)


@pytest.mark.parametrize("factor", [0.25, 0.5, 0.75, 1.0])
def test_rotation_is_multiplication_by_a_complex_number(factor):
    """Channels i and i + rotary_dim/2 are one complex number; position p turns it by p theta^(-2i/rotary_dim)."""
    config = PersimmonConfig.tiny(partial_rotary_factor=factor)
    x, half = uniform("x", 2, 4, 9, 16).double(), config.rotary_dim // 2
    turned = apply_rotary(x, *tables(config, range(9), torch.float64)).numpy()

    theta = 25000.0 ** (-np.arange(half) / half)
    phases = np.exp(1j * np.arange(9)[:, None] * theta)
    expected = (x[..., :half].numpy() + 1j * x[..., half : 2 * half].numpy()) * phases
    assert np.allclose(turned[..., :half], expected.real, rtol=0, atol=TOLERANCE[torch.float64])
    assert np.allclose(turned[..., half : 2 * half], expected.imag, rtol=0, atol=TOLERANCE[torch.float64])
    assert np.array_equal(turned[..., 2 * half :], x[..., 2 * half :].numpy())


def test_only_the_distance_counts():
    model, later = tiny(), torch.arange(9)[None] + 40
    assert torch.allclose(model(ids(), position_ids=later).logits, model(ids()).logits, atol=TOLERANCE[torch.float32])
    stretched = model(ids(), position_ids=torch.arange(9)[None] * 2).logits
    assert (stretched - model(ids()).logits).abs().max() > 0.1


def test_each_row_has_its_own_positions():
    model = tiny()
    positions = torch.stack((torch.arange(9), torch.tensor([5, 1, 2, 9, 4, 4, 0, 7, 30])))
    both = model(ids(), position_ids=positions).logits
    for row in range(2):
        alone = model(ids()[row : row + 1], position_ids=positions[row : row + 1]).logits[0]
        assert torch.allclose(both[row], alone, atol=TOLERANCE[torch.float32])


def test_linear_scaling_is_the_same_as_closer_positions():
    plain, scaled = PersimmonConfig.tiny(), PersimmonConfig.tiny(rope_scaling=LINEAR)
    for near, far in zip(tables(plain, range(9)), tables(scaled, range(0, 36, 4))):
        assert torch.equal(near, far)


def test_dynamic_scaling_depends_on_the_current_length_alone():
    """In 4.37.2 a short input after a long one keeps the long one's base."""
    model = tiny(rope_scaling=DYNAMIC, max_position_embeddings=16)
    fresh = model(ids()).logits
    assert torch.equal(fresh, tiny(max_position_embeddings=16)(ids()).logits)
    long = model(ids(2, 40)).logits
    assert torch.equal(model(ids()).logits, fresh)
    assert torch.equal(model(ids(2, 40)).logits, long)
    assert (long - tiny(max_position_embeddings=16)(ids(2, 40)).logits).abs().max() > 0.1


def test_dynamic_scaling_by_its_formula():
    config = PersimmonConfig.tiny(rope_scaling=DYNAMIC, max_position_embeddings=16)
    base = 25000.0 * (2.0 * 40 / 16 - 1) ** (8 / 6)
    cos, sin = tables(config, range(40), torch.float64)
    phases = np.arange(40)[:, None] * base ** (-np.arange(4) / 4)
    assert np.allclose(cos[0, :, :4], np.cos(phases), rtol=0, atol=TOLERANCE[torch.float64])
    assert np.allclose(sin[0, :, 4:], np.sin(phases), rtol=0, atol=TOLERANCE[torch.float64])


def test_keys_in_the_cache_keep_the_base_they_were_rotated_with():
    """So crossing the context in pieces is not the same as at once: the documented price of dynamic scaling."""
    model = tiny(rope_scaling=DYNAMIC, max_position_embeddings=16)
    past = model(ids(1, 16)).past_key_values
    after = model(ids(1, 24)[:, 16:], past_key_values=past)
    assert torch.equal(after.past_key_values[0][0][..., :16, :], past[0][0])
    whole = model(ids(1, 24))
    assert torch.allclose(after.past_key_values[0][0][..., 16:, :], whole.past_key_values[0][0][..., 16:, :], atol=1e-5)
    assert (past[0][0] - whole.past_key_values[0][0][..., :16, :]).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_phases_are_float32_in_a_half_precision_model(dtype):
    config = PersimmonConfig.tiny(max_position_embeddings=16384)
    positions = torch.tensor([0, 1, 256, 257, 9999, 16383])
    for half, single in zip(tables(config, positions, dtype), tables(config, positions)):
        assert half.dtype == dtype
        assert torch.equal(half, single.to(dtype))


def test_adept_s_phases_are_bfloat16_products():
    config = PersimmonConfig.tiny(max_position_embeddings=16384, rope_precision="adept")
    positions = torch.tensor([0, 3, 256, 257, 258, 9999])
    cos, sin = tables(config, positions, torch.bfloat16)
    frequencies = inverse_frequencies(config.rotary_dim, config.rope_theta).to(torch.bfloat16)
    phases = torch.outer(positions.to(torch.bfloat16), frequencies)
    assert phases.dtype == torch.bfloat16
    assert torch.equal(cos[0, :, :4], phases.cos())
    assert torch.equal(sin[0, :, 4:], phases.sin())


def test_adept_s_precision_takes_257_for_256():
    adept = PersimmonConfig.tiny(max_position_embeddings=16384, rope_precision="adept")
    exact = PersimmonConfig.tiny(max_position_embeddings=16384)
    for dtype in (torch.float32, torch.bfloat16):
        cos, _ = tables(adept, [255, 256, 257, 258], dtype)
        assert torch.equal(cos[0, 1], cos[0, 2])
        assert not torch.equal(cos[0, 0], cos[0, 1])
        assert not torch.equal(cos[0, 2], cos[0, 3])
    cos, _ = tables(exact, [256, 257])
    assert not torch.equal(cos[0, 0], cos[0, 1])


def test_adept_s_precision_changes_a_model_slightly():
    """Frequencies are rounded even where positions are not."""
    exact, adept = (tiny(rope_precision=precision)(ids()).logits for precision in ("float32", "adept"))
    assert 0 < (exact - adept).abs().max() < 0.5
