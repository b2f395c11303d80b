"""Earlier moments of the shipped model's training: four bits a weight, read back as what they were, nearly."""

from pathlib import Path

import pytest
import torch

from persimmon_lab.mini import STAGES, load_mini, tokens_seen
from persimmon_lab.mini.stages import GROUP, pack, read_stage, unpack, write_stage
from persimmon_lab.training.evaluate import copying_loss, repeated_rows


def test_a_weight_comes_back_within_half_a_step_of_its_group():
    matrix = torch.randn(6, 3 * GROUP, generator=torch.Generator().manual_seed(0))
    matrix[2] *= 100  # a loud row disturbs no other
    matrix[4] = 0
    pairs, scale = pack(matrix)
    assert (pairs.shape, pairs.dtype) == ((6, 3 * GROUP // 2), torch.uint8)
    assert (scale.shape, scale.dtype) == ((6, 3), torch.float16)
    largest = matrix.view(6, 3, GROUP).abs().amax(dim=-1, keepdim=True)
    error = (unpack(pairs, scale) - matrix).view(6, 3, GROUP).abs()
    assert (error <= 1.01 * largest / 14).all() and error.max() > 0
    assert not unpack(pairs, scale)[4].any()


def test_all_levels_survive_exactly():
    levels = torch.arange(GROUP).remainder(15) - 7.0
    assert torch.equal(unpack(*pack(levels[None])), levels[None])


def test_rows_that_are_no_groups_are_refused():
    with pytest.raises(ValueError, match=f"rows of {GROUP + 2} .* groups of {GROUP}"):
        pack(torch.ones(2, GROUP + 2))


def test_a_stage_is_a_file_of_its_own(tmp_path: Path):
    weights = {"matrix": torch.randn(4, GROUP), "vector": torch.randn(5)}
    write_stage(tmp_path / "early.safetensors", weights, step=7, tokens=28_672)
    stage = read_stage(tmp_path / "early.safetensors")
    assert (stage.step, stage.tokens, stage.weights.keys()) == (7, 28_672, weights.keys())
    assert torch.equal(stage.weights["vector"], weights["vector"])
    torch.testing.assert_close(stage.weights["matrix"], unpack(*pack(weights["matrix"])))
    assert [path.name for path in tmp_path.iterdir()] == ["early.safetensors"]


def test_a_stage_that_does_not_ship_is_refused():
    for ask in (lambda: load_mini(stage="late"), lambda: tokens_seen("late")):
        with pytest.raises(ValueError, match="'late'; give one of 'early', 'middle', or None"):
            ask()


def test_copying_is_learned_between_the_stages():
    """By the loss of random pieces said again, less that of the first time: nothing, something, nearly all."""
    gains = []
    for stage in (*STAGES, None):
        model, _ = load_mini(stage=stage)
        rows = repeated_rows(model.config.vocab_size, 261, 40, rows=8, seed=0)
        first, second = copying_loss(model, rows)
        gains.append(first - second)
    assert gains[0] < 1 < gains[1] < gains[2] and gains[2] > 6
    assert 0 < tokens_seen("early") < tokens_seen("middle")
