"""The loop: it learns, it survives being killed, and its schedule keeps the total open."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from persimmon_lab.losses import IGNORED, next_token_loss
from persimmon_lab.training import trainer
from persimmon_lab.training.batches import DRILLS, stretches
from persimmon_lab.training.muon import Muon, orthogonal_direction
from persimmon_lab.training.optimiser import MasterWeights, fast_dtype
from persimmon_lab.training.recipe import Recipe
from persimmon_lab.training.trainer import (
    build,
    faster_attention,
    held_out_loss,
    read_metrics,
    restore,
    train,
    training_loss,
)
from tests.training import killed_run
from tests.training.killed_run import CONFIG, RECIPE, SOURCES, TEXT, run


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder)
    return folder


def saved_masters(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["masters"]["masters"]


def test_a_killed_run_goes_on_to_the_same_bits(uninterrupted: Path, tmp_path: Path):
    process = subprocess.run([sys.executable, "-m", killed_run.__name__, str(tmp_path), "5"], timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 3
    assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")][-1] == 5
    (tmp_path / "checkpoint.pt.partial").write_bytes(b"half a checkpoint")

    model = run(tmp_path)
    expected = saved_masters(uninterrupted)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in saved_masters(tmp_path).items())
    assert all(torch.equal(p, expected[name].bfloat16()) for name, p in model.named_parameters())
    ours, theirs = (list(read_metrics(f / "metrics.jsonl")) for f in (tmp_path, uninterrupted))
    assert [(e["step"], e.get("loss"), e.get("held_out")) for e in ours] == [
        (e["step"], e.get("loss"), e.get("held_out")) for e in theirs
    ]


def test_the_total_can_be_chosen_while_the_rate_is_constant(uninterrupted: Path, tmp_path: Path):
    early = replace(RECIPE, steps=50)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, early, SOURCES, {"chat": TEXT[:200]}, tmp_path, dtype=torch.bfloat16, checkpoint_every=3,
              evaluate_every=6, progress=False, on_evaluation=stop)  # fmt: skip
    run(tmp_path)
    expected = saved_masters(uninterrupted)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in saved_masters(tmp_path).items())


def stop(model, step: int) -> None:
    raise KeyboardInterrupt


def test_a_checkpoint_of_another_recipe_is_refused(uninterrupted: Path):
    with pytest.raises(ValueError, match="another recipe or config"):
        run(uninterrupted, replace(RECIPE, rate=1e-5))


def test_a_finished_run_is_not_trained_further(uninterrupted: Path):
    before = saved_masters(uninterrupted)
    run(uninterrupted)
    assert all(torch.equal(tensor, before[name]) for name, tensor in saved_masters(uninterrupted).items())


def test_restore_gives_the_trained_model(uninterrupted: Path):
    model = restore(uninterrupted / "checkpoint.pt", CONFIG, RECIPE)
    assert not model.training and model.dtype == torch.bfloat16
    expected = saved_masters(uninterrupted)
    assert all(torch.equal(p, expected[name].bfloat16()) for name, p in model.named_parameters())


def test_it_learns_a_text_that_repeats(tmp_path: Path):
    text = np.tile(np.arange(5, 25, dtype=np.uint16), 50)
    recipe = replace(RECIPE, steps=60, warmup_steps=5, weights={"chat": 1.0})
    model = train(CONFIG, recipe, {"chat": stretches(text)}, {}, tmp_path, progress=False)
    assert held_out_loss(model, text[:200], 16) < 0.3


def test_the_schedule():
    recipe = Recipe(steps=1000, warmup_steps=100, decay_share=0.3)
    assert recipe.rate_scale(0) == pytest.approx(0.01)
    assert recipe.rate_scale(99) == recipe.rate_scale(500) == recipe.rate_scale(699) == 1.0
    assert recipe.rate_scale(850) == pytest.approx(0.5)
    assert 0 < recipe.rate_scale(999) < 0.01
    assert all(recipe.rate_scale(step) == replace(recipe, steps=5000).rate_scale(step) for step in range(701))


def test_the_last_steps_see_longer_rows_of_as_many_tokens():
    recipe = Recipe(steps=100, tokens=4096, lengths=((0.0, 128), (0.75, 256), (0.95, 512)))
    shapes = [recipe.shape(step) for step in (0, 74, 75, 94, 95, 99)]
    assert shapes == [(32, 128), (32, 128), (16, 256), (16, 256), (8, 512), (8, 512)]


def test_late_steps_see_fewer_drills():
    recipe = Recipe(steps=100, late=0.8, late_drills=0.01)
    early, late = recipe.weights_at(79), recipe.weights_at(80)
    assert early == recipe.weights and early[DRILLS] == 0.03
    assert late == {**early, DRILLS: 0.01}


def test_training_draws_the_late_steps_by_the_late_weights(tmp_path, monkeypatch):
    seen = []

    def batch_at(step, *, weights, rows, length, **_):
        seen.append(weights)
        return torch.randint(5, 128, (2, rows, length)).unbind()

    monkeypatch.setattr(trainer, "batch_at", batch_at)
    recipe = replace(RECIPE, steps=5, late=0.6, late_drills=0.01)
    train(CONFIG, recipe, SOURCES, {}, tmp_path, progress=False)
    assert [weights[DRILLS] for weights in seen] == [0.3, 0.3, 0.3, 0.01, 0.01]


def test_the_loss_is_that_of_the_next_token():
    model, _ = build(CONFIG, RECIPE)
    tokens = torch.randint(0, 128, (3, 9), generator=torch.Generator().manual_seed(0))
    losses = next_token_loss(model, tokens)
    expected = model(tokens, labels=tokens).loss
    assert losses.shape == (3, 8) and losses.dtype == torch.float32
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_training_loss_is_the_mean_over_what_is_taught():
    model, _ = build(CONFIG, RECIPE, torch.float32)
    tokens = torch.randint(0, 128, (3, 9), generator=torch.Generator().manual_seed(0))
    following = tokens[:, 1:].clone()
    following[0, :5] = IGNORED
    model.zero_grad()
    loss = training_loss(model, tokens[:, :-1], following)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    losses = next_token_loss(model, tokens)[following != IGNORED]
    losses.mean().backward()
    assert losses.numel() == 19
    assert loss.item() == pytest.approx(losses.mean().item(), rel=1e-6)
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-4, atol=1e-7)


def test_held_out_loss_is_the_mean_over_its_rows():
    model, _ = build(CONFIG, RECIPE)
    model.eval()
    tokens = torch.from_numpy(TEXT[:65].astype(np.int64))
    rows = torch.stack([tokens[start : start + 17] for start in (0, 16, 32, 48)])
    with torch.no_grad():
        expected = next_token_loss(model, rows).mean().item()
    assert held_out_loss(model, TEXT[:65], 16, rows=3) == pytest.approx(expected, rel=1e-3)
    assert held_out_loss(model, TEXT[:65], 16, rows=3, most=1) == pytest.approx(
        next_token_loss(model, rows[:3]).mean().item(), rel=1e-3
    )


def test_masters_keep_updates_that_bfloat16_would_round_away():
    model, masters = build(CONFIG, RECIPE)
    name, parameter = "model.final_layernorm.weight", model.model.final_layernorm.weight
    master = masters.masters[masters.names.index(name)]
    for group in masters.optimisers[1].param_groups:
        group["weight_decay"] = 0.0
    masters.rates = [0.0, 1e-3]
    for _ in range(5):
        for other in model.parameters():
            other.grad = torch.zeros_like(other)
        parameter.grad = torch.ones_like(parameter)
        masters.step(1.0, max_norm=1e9)
    # One step of 0.001 from 1 is less than half of bfloat16's spacing there, 1/256; five of them are not.
    assert torch.allclose(master, torch.full_like(master, 0.995), atol=1e-5)
    assert torch.equal(parameter, torch.full_like(parameter, 0.99609375))
    assert parameter.grad is None


def test_muon_gets_the_matrices_of_the_layers_and_adamw_the_rest():
    model, masters = build(CONFIG, RECIPE)
    muon, adamw = masters.optimisers
    by_identity = {id(master): name for name, master in zip(masters.names, masters.masters, strict=True)}
    matrices = {by_identity[id(p)] for group in muon.param_groups for p in group["params"]}
    rest = {by_identity[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert matrices == {n for n, p in model.named_parameters() if ".layers." in n and p.ndim == 2}
    assert rest == set(masters.names) - matrices
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= rest
    assert isinstance(muon, Muon)


def test_the_gradient_is_clipped_and_its_norm_told():
    model, masters = build(CONFIG, RECIPE)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    norm = masters.step(0.0, max_norm=1.0)
    count = sum(p.numel() for p in model.parameters())
    assert norm.item() == pytest.approx(2.0 * count**0.5, rel=1e-4)
    clipped = torch.cat([master.grad.flatten() for master in masters.masters])
    assert clipped.norm().item() == pytest.approx(1.0, rel=1e-3)


def test_masters_start_from_the_unrounded_draw():
    model, masters = build(CONFIG, RECIPE)
    weight = masters.masters[masters.names.index("lm_head.weight")]
    assert not torch.equal(weight, weight.bfloat16().float())
    assert torch.equal(model.lm_head.weight, weight.bfloat16())
    assert isinstance(masters, MasterWeights)


def test_muon_is_torchs_where_it_computes_in_bfloat16():
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 96), (96, 32), (16, 16)]
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator) * 0.05) for shape in shapes]
    theirs = [torch.nn.Parameter(matrix.detach().clone()) for matrix in ours]
    muon = Muon(ours, 2e-3, 0.05)
    peer = torch.optim.Muon(theirs, lr=2e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        muon.step()
        peer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("shape", [(32, 80), (80, 32)])
def test_a_direction_has_the_singular_vectors_of_its_update(shape):
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = orthogonal_direction(update, torch.float64)
    left, _, right = torch.linalg.svd(update, full_matrices=False)
    values = left.T @ direction @ right.T
    assert torch.allclose(values, torch.diag(values.diagonal()), atol=1e-9)
    assert values.diagonal().min() > 0.6 and values.diagonal().max() < 1.3
    rounded = orthogonal_direction(update.float(), torch.float32)
    assert (rounded - direction).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_bfloat16_is_for_machines_that_multiply_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fast_dtype(torch.device("cpu")) == dtype
    assert fast_dtype(torch.device("cuda")) == torch.bfloat16


def test_short_rows_of_bfloat16_train_in_eager():
    cpu = torch.device("cpu")
    assert faster_attention(torch.bfloat16, cpu, 128) == "eager"
    assert faster_attention(torch.bfloat16, cpu, 256) == "sdpa"
    assert faster_attention(torch.bfloat16, cpu, 512) == faster_attention(torch.float32, cpu, 128) == "sdpa"
    assert faster_attention(torch.bfloat16, torch.device("cuda"), 128) == "sdpa"


def test_a_run_can_go_on_in_another_precision(uninterrupted: Path, tmp_path: Path):
    """As on another device: the checkpoint holds float32 masters, whatever the model computed in."""
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, RECIPE, SOURCES, {}, tmp_path, dtype=torch.float32, checkpoint_every=3, evaluate_every=6,
              log_every=1, progress=False, on_evaluation=stop)  # fmt: skip
    run(tmp_path)
    ours, theirs = (
        [e["loss"] for e in read_metrics(f / "metrics.jsonl") if "loss" in e] for f in (tmp_path, uninterrupted)
    )
    assert len(ours) == RECIPE.steps and ours != theirs
    assert ours == pytest.approx(theirs, abs=0.05)


def test_a_lost_run_goes_on_from_its_weights(uninterrupted: Path, tmp_path: Path):
    half = tmp_path / "half"
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, RECIPE, SOURCES, {}, half, dtype=torch.bfloat16, checkpoint_every=3, evaluate_every=6,
              progress=False, on_evaluation=stop)  # fmt: skip
    weights = torch.load(half / "checkpoint.pt", weights_only=True)["masters"]["masters"]
    seen = []
    recipe = replace(RECIPE, steps=9)
    train(CONFIG, recipe, SOURCES, {}, tmp_path / "rest", dtype=torch.bfloat16, progress=False, evaluate_every=1,
          start=weights, first_step=6, on_evaluation=lambda model, step: seen.append(step))  # fmt: skip
    assert seen == [7, 8, 9]
    start = build(CONFIG, RECIPE)[1]
    start.load_weights(weights)
    assert torch.equal(start.masters[0], weights[start.names[0]])
    assert torch.equal(start.model[0], weights[start.names[0]].bfloat16())


def test_the_rate_rises_again_from_where_a_lost_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scales: list[float] = []
    step = MasterWeights.step
    monkeypatch.setattr(MasterWeights, "step", lambda self, scale: (scales.append(scale), step(self, scale))[1])
    weights = dict(zip((masters := build(CONFIG, RECIPE)[1]).names, masters.masters, strict=True))
    recipe = replace(RECIPE, steps=100, warmup_steps=4)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, recipe, SOURCES, {}, tmp_path, start=weights, first_step=50, evaluate_every=6,
              progress=False, on_evaluation=stop)  # fmt: skip
    assert scales == pytest.approx([0.25, 0.5, 0.75, 1.0])
    scales.clear()
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, recipe, SOURCES, {}, tmp_path / "fresh", evaluate_every=6, progress=False, on_evaluation=stop)
    assert scales == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])  # and not their squares


def test_a_recipe_that_does_not_fit_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ValueError, match="longest rows have 512 tokens, the model's context is 64"):
        train(CONFIG, Recipe(weights={"chat": 1.0}), SOURCES, {}, tmp_path)
    with pytest.raises(ValueError, match=r"asks for \['verse'\], but there are rows of \['chat', 'drills'\]"):
        train(CONFIG, replace(RECIPE, weights={"chat": 1.0, "verse": 0.1, "code": 0.0}), SOURCES, {}, tmp_path)
    with pytest.raises(ValueError, match="asks for nothing"):
        train(CONFIG, replace(RECIPE, weights={}), SOURCES, {}, tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("progress", [None, False])
def test_a_run_says_nothing_unless_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str], progress: bool | None):
    recipe = replace(RECIPE, steps=1)
    train(CONFIG, recipe, SOURCES, {}, tmp_path, log_every=1, progress=progress)
    assert capsys.readouterr() == ("", "")
    assert [entry["step"] for entry in read_metrics(tmp_path / "metrics.jsonl")] == [1, 1]


def test_own_streams_are_told_how_to_become_rows(tmp_path: Path, unchecked_annotations: None):
    with pytest.raises(TypeError, match=r"source 'chat' is a ndarray; give what draws rows: batches.stretches"):
        train(CONFIG, RECIPE, {"chat": TEXT}, {}, tmp_path)
    recipe = replace(Recipe(), lengths=((0.0, 16),))
    with pytest.raises(ValueError, match=r"there are rows of \['mine'\]; name those: Recipe\(weights={'mine': 1.0}\)"):
        train(CONFIG, recipe, {"mine": stretches(TEXT)}, {}, tmp_path)


@pytest.mark.parametrize(
    ("stream", "length", "error", "said"),
    [
        (torch.arange(9), 4, TypeError, r"the stream is a Tensor; .* ids\[0\].numpy\(\)"),
        (TEXT[None, :9], 4, ValueError, r"shape \(1, 9\)"),
        (TEXT[:1], 4, ValueError, "nothing to predict"),
        (TEXT[:9], 0, ValueError, "rows of 0"),
    ],
)
def test_a_stream_without_a_loss(unchecked_annotations: None, stream, length: int, error: type, said: str):
    with pytest.raises(error, match=said):
        held_out_loss(build(CONFIG, RECIPE)[0], stream, length)


def test_a_weight_without_a_gradient_is_named():
    model, masters = build(CONFIG, RECIPE)
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight has no gradient; call backward"):
        masters.step(1.0)
