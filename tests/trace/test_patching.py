"""Patching everything is running the other prompt, and a batched sweep is one patch after the other."""

import pytest
import torch

from persimmon_lab.numerics.tolerances import ELEMENTS
from persimmon_lab.trace.capture import capture
from persimmon_lab.trace.patch import patch
from persimmon_lab.trace.patching import (
    Patching,
    lead_of,
    patch_attention,
    patch_heads,
    patch_mlp,
    patch_stream,
    sweep_places,
)
from tests.models import ids, tiny
from tests.trace.hooks_left import left_behind

METRIC = lead_of(5, 9)


def prompts():
    """Two rows of nine tokens that differ in the third."""
    clean = ids(batch=1)
    corrupted = clean.clone()
    corrupted[0, 2] = 3 if clean[0, 2] != 3 else 4
    return clean, corrupted


def exact():
    return tiny().double()


def close(one, other) -> bool:
    return torch.allclose(one, other, atol=ELEMENTS[torch.float64], rtol=0)


def test_the_stream_brings_everything_back_where_the_prompts_differ():
    model, (clean, corrupted) = exact(), prompts()
    found = patch_stream(model, clean, corrupted, METRIC, progress=False)
    with torch.no_grad():
        ends = [float(METRIC(model(prompt).logits)) for prompt in (clean, corrupted)]
    assert [found.clean, found.corrupted] == ends
    assert found.effect.shape == (3, 9)
    one = torch.ones((), dtype=torch.float64)
    assert close(found.effect[0, 2], one)  # the changed embedding is all that differs
    assert close(found.effect[-1, -1], one)  # the last stream at the last position is the answer
    # A position before the change is the same in both; after the last layer others are not looked at any more.
    assert close(found.effect[:, :2], torch.zeros(3, 2, dtype=torch.float64))
    assert close(found.effect[-1, :-1], torch.zeros(8, dtype=torch.float64))
    spread = found.effect[1, 2:]  # after one layer the difference has gone to every position that can see it
    assert (spread.abs() > 1e-9).all() and ((spread - 1).abs() > 1e-9).all()


@pytest.mark.parametrize("sweep", [patch_stream, patch_attention, patch_mlp, patch_heads])
def test_batched_is_one_by_one(sweep):
    model, (clean, corrupted) = exact(), prompts()
    together = sweep(model, clean, corrupted, METRIC, rows_at_once=5, progress=False)
    alone = sweep(model, clean, corrupted, METRIC, rows_at_once=1, progress=False)
    assert close(together.patched, alone.patched)
    assert together.effect.std() > 1e-4
    assert not left_behind(model)


@pytest.mark.parametrize(
    ("sweep", "name"), [(patch_attention, "self_attn.dense"), (patch_mlp, "mlp"), (patch_stream, "layers.?")]
)
def test_a_place_is_the_position_of_a_layers_output(sweep, name):
    """By hand: layer 0, position 2, where the prompts differ."""
    model, (clean, corrupted) = exact(), prompts()
    found = sweep(model, clean, corrupted, METRIC, progress=False)
    path = "layers.0" if sweep is patch_stream else f"layers.0.{name}"
    source = capture(model, clean, only=[path])[path]

    def put(made):
        made[:, 2] = source[:, 2]
        return made

    with patch(model, {path: put}), torch.no_grad():
        by_hand = METRIC(model(corrupted).logits)[0]
    assert close(found.patched[1 if sweep is patch_stream else 0, 2], by_hand)
    assert abs(by_hand - found.corrupted) > 1e-6


def test_a_head_is_all_its_positions():
    model, (clean, corrupted) = exact(), prompts()
    found = patch_heads(model, clean, corrupted, METRIC, progress=False)
    path = "layers.1.self_attn.head_output"
    source = capture(model, clean, only=[path])[path]

    def put(made):
        made[:, 3] = source[:, 3]
        return made

    with patch(model, {path: put}), torch.no_grad():
        by_hand = METRIC(model(corrupted).logits)[0]
    assert found.patched.shape == (2, 4)
    assert close(found.patched[1, 3], by_hand)


def test_every_place_at_once_is_the_other_prompt():
    model, (clean, corrupted) = exact(), prompts()
    trace = capture(model, clean, only=["self_attn.dense", "mlp", "layers.0:input"])
    with patch(model, {name: lambda made, name=name: trace[name] for name in trace}), torch.no_grad():
        assert close(model(corrupted).logits, model(clean).logits)


def test_a_lead_is_the_difference_of_two_logits():
    logits = torch.arange(24.0).reshape(2, 3, 4) ** 2
    assert lead_of(3, 1)(logits).tolist() == [11.0**2 - 9.0**2, 23.0**2 - 21.0**2]
    assert lead_of(0, 2, position=1)(logits).tolist() == [4.0**2 - 6.0**2, 16.0**2 - 18.0**2]


def test_two_rows_are_refused():
    with pytest.raises(ValueError, match="two single rows"):
        patch_stream(tiny(), ids(batch=2), ids(batch=2), METRIC)


def test_prompts_of_two_lengths_are_refused():
    clean, corrupted = prompts()
    with pytest.raises(ValueError, match=r"\(1, 9\) and \(1, 8\).*as many pieces"):
        patch_stream(tiny(), clean, corrupted[:, :-1], METRIC)


def test_a_metric_that_tells_nothing_is_refused():
    clean, corrupted = prompts()
    with pytest.raises(ValueError, match="0 on both prompts"):
        sweep_places(tiny(), clean, corrupted, lambda logits: logits[:, 0, 0] * 0, ["layers.0"])


def test_a_sweep_of_no_names_is_refused_and_a_result_shows_itself_in_a_line():
    clean, corrupted = ids(1), ids(1).flip(1)
    with pytest.raises(ValueError, match="0 names in 64 rows at once"):
        sweep_places(tiny(), clean, corrupted, METRIC, [])
    patching = Patching(torch.tensor([[1.0, 4.0]]), clean=3.0, corrupted=1.0)
    assert repr(patching) == "<Patching of 1 x 2 places: clean 3, corrupted 1, largest effect 1.50>"
