"""Rotary phases in a low precision: collisions, each rounding alone, and equality with the model's own tables."""

import dataclasses
import itertools
import math
from collections import Counter

import pytest
import torch
import transformers
from transformers.models.persimmon.modeling_persimmon import PersimmonRotaryEmbedding

from persimmon_lab import PersimmonConfig
from persimmon_lab.numerics.formats import FORMATS, distinct_integers, spacing
from persimmon_lab.numerics.rotary import ROUNDINGS, STEPS, collisions, phase_errors, phase_tables, phases
from persimmon_lab.rotary import inverse_frequencies, rotary_tables

BFLOAT16, FLOAT16 = FORMATS["bfloat16"], FORMATS["float16"]
CONTEXT = 16384
CONFIGS = {"8b": PersimmonConfig.persimmon_8b(), "mini": PersimmonConfig(hidden_size=256, num_attention_heads=8)}
each_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


# Collisions


@pytest.mark.parametrize(("format", "distinct", "largest"), [(BFLOAT16, 1025, 65), (FLOAT16, 5121, 9)])
def test_collisions_are_those_of_torchs_cast(format, distinct, largest):
    found = collisions(format, CONTEXT)
    counted = Counter(torch.arange(CONTEXT).to(format.torch_dtype).tolist())
    assert dict(zip(found.groups["value"], found.groups["positions"])) == counted
    assert found.distinct == len(counted) == distinct == distinct_integers(format, CONTEXT)
    assert found.largest == max(counted.values()) == largest
    assert found.sharing == sum(count for count in counted.values() if count > 1)
    assert found.rounded.tolist() == torch.arange(CONTEXT).to(format.torch_dtype).tolist()


def test_the_groups_are_runs_of_neighbours_that_share_a_value():
    found = collisions(BFLOAT16, 300)
    runs = [list(group) for _, group in itertools.groupby(range(300), lambda p: float(torch.tensor(p).bfloat16()))]
    assert [list(range(row.first, row.last + 1)) for row in found.groups.itertuples()] == runs
    assert runs[256] == [256, 257]  # 257 = 256
    assert [len(run) for run in runs[257:261]] == [1, 3, 1, 3]  # a tie goes to the even neighbour


def test_the_staircase_counts_the_values_met_so_far():
    found = collisions(BFLOAT16, 1000)
    met = [len(set(found.rounded[: position + 1].tolist())) for position in range(1000)]
    assert found.distinct_so_far.tolist() == met
    assert collisions(BFLOAT16, 1).distinct_so_far.tolist() == [1]


def test_float32_has_the_same_cliff_further_out():
    assert collisions(FORMATS["float32"], CONTEXT).distinct == CONTEXT
    assert float(torch.tensor(2**24 + 1).float()) == 2**24


# Phases


@each_config
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("precision", "rounded"), [("float32", ()), ("adept", STEPS)])
def test_in_float32_they_are_the_models_own_to_the_bit(config, dtype, precision, rounded):
    positions = torch.arange(CONTEXT)
    half = FLOAT16 if dtype == torch.float16 else BFLOAT16
    model = rotary_tables(positions[None], dataclasses.replace(config, rope_precision=precision), CONTEXT, dtype)
    for ours, its in zip(phase_tables(phases(positions, config, rounded, half, torch.float32)), model):
        assert torch.equal(ours.to(dtype), its)


def test_transformers_rounds_nothing_until_its_buffer_is_cast_and_then_the_frequency():
    """Its positions and products stay float32; `.bfloat16()` rounds its buffer, and `.float()` brings nothing back."""
    config = CONFIGS["mini"]
    theirs = transformers.PersimmonConfig(
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_attention_heads,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta, "partial_rotary_factor": 0.5},
    )
    rotary, positions = PersimmonRotaryEmbedding(theirs), torch.arange(CONTEXT)
    for rounded in ((), ("frequency",)):
        ours = phase_tables(phases(positions, config, rounded, dtype=torch.float32))
        assert all(map(torch.equal, ours, rotary(torch.zeros(1), positions[None])))
        rotary = rotary.bfloat16().float()


@each_config
@pytest.mark.parametrize("format", [BFLOAT16, FLOAT16], ids=lambda format: format.name)
@pytest.mark.parametrize("rounded", [c for n in range(4) for c in itertools.combinations(STEPS, n)], ids="+".join)
def test_each_step_is_rounded_if_and_only_if_it_is_named(config, format, rounded):
    """A second way: torch's casts."""
    dtype = format.torch_dtype
    position = torch.arange(CONTEXT).double()[:, None]
    frequency = config.rope_theta ** (-torch.arange(0, config.rotary_dim, 2).double() / config.rotary_dim)
    position = position.to(dtype).double() if "position" in rounded else position
    frequency = frequency.to(dtype).double() if "frequency" in rounded else frequency
    product = position * frequency
    product = product.to(dtype).double() if "product" in rounded else product
    found = phases(torch.arange(CONTEXT), config, rounded, format)
    assert found.dtype == torch.float64
    different = ~torch.isclose(found, product, rtol=1e-13, atol=0)
    # torch rounds a float64 product to float32 first; that decides a few ties in ten thousand otherwise.
    assert different.double().mean() <= (1e-4 if "product" in rounded else 0)


def test_positions_may_be_a_batch():
    positions = torch.tensor([[0, 257, 300], [5, 6, 7]])
    both = phases(positions, CONFIGS["mini"], STEPS)
    assert torch.equal(both[0], phases(positions[0], CONFIGS["mini"], STEPS))
    assert torch.equal(both[1], phases(positions[1], CONFIGS["mini"], STEPS))


@each_config
def test_what_a_rounded_position_costs(config):
    """Nothing up to 256, then at most half a spacing of the position times the frequency, and the bound is reached."""
    positions = torch.arange(CONTEXT)
    error = phase_errors(positions, config)["position"].abs()
    assert not error[:257].any() and error[257].all()
    frequency = inverse_frequencies(config.rotary_dim, config.rope_theta, dtype=torch.float64)
    bound = spacing(positions.double(), BFLOAT16)[:, None] / 2 * frequency
    assert (error <= bound * (1 + 1e-9)).all()
    assert float((error / bound).max()) == pytest.approx(1, rel=1e-9)


@each_config
def test_what_a_rounded_frequency_costs(config):
    """A straight line through zero with the frequency's own error as slope; none where the format holds it."""
    positions = torch.arange(CONTEXT)
    error = phase_errors(positions, config)["frequency"]
    frequency = config.rope_theta ** (-torch.arange(0, config.rotary_dim, 2).double() / config.rotary_dim)
    slope = frequency.bfloat16().double() - frequency
    assert torch.allclose(error, positions[:, None] * slope, rtol=1e-6, atol=1e-12)
    assert not error[:, 0].any()  # one radian per position
    assert (slope.abs() <= 2**-8 * frequency).all()


@each_config
def test_both_errors_together_are_their_sum_and_a_trace_of_their_product(config):
    """(p + dp)(f + df) - pf = dp f + p df + dp df."""
    positions = torch.arange(CONTEXT)
    errors = phase_errors(positions, config)
    assert list(errors) == list(ROUNDINGS) == ["position", "frequency", "both", "adept"]
    moved = positions.bfloat16().double() - positions
    frequency = config.rope_theta ** (-torch.arange(0, config.rotary_dim, 2).double() / config.rotary_dim)
    cross = moved[:, None] * (frequency.bfloat16().double() - frequency)
    torch.testing.assert_close(errors["both"], errors["position"] + errors["frequency"] + cross)
    # The product of two bfloat16 numbers is exact in float32; rounding it adds half a spacing at most.
    product = phases(positions, config, ROUNDINGS["both"])
    assert (errors["adept"] - errors["both"]).abs().le(spacing(product, BFLOAT16) / 2 * (1 + 1e-9)).all()
    assert not errors["adept"][0].any() and errors["adept"][3].any()


def test_the_errors_are_those_of_the_format_that_is_asked_for():
    error = phase_errors(torch.arange(CONTEXT), CONFIGS["mini"], FLOAT16)["position"]
    assert not error[:2049].any() and error[2049].all()


def test_tables_of_two_pairs_by_hand():
    cos, sin = phase_tables(torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    for position, (first, second) in enumerate(((0.0, 1.0), (2.0, 3.0))):
        assert cos[0, position].tolist() == pytest.approx([math.cos(p) for p in (first, second, first, second)])
        assert sin[0, position].tolist() == pytest.approx([math.sin(p) for p in (first, second, first, second)])


def test_an_unknown_step_is_named():
    with pytest.raises(ValueError, match="no step is called 'cosine'; choose from"):
        phases(torch.arange(3), CONFIGS["mini"], ("position", "cosine"))


def test_scaled_positions_are_refused():
    scaled = dataclasses.replace(CONFIGS["mini"], rope_scaling={"type": "linear", "factor": 2.0})
    with pytest.raises(ValueError, match="rope_scaling is .*linear.* positions as they are"):
        phases(torch.arange(3), scaled)


def test_no_positions_are_refused_and_collisions_show_themselves_in_a_line():
    with pytest.raises(ValueError, match="length is 0"):
        collisions(FORMATS["bfloat16"], 0)
    assert repr(collisions(FORMATS["bfloat16"], 300)) == "<Collisions of 300 positions in bfloat16: 279 distinct>"
