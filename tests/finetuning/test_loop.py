"""The loop: an interrupted run goes on to the same bits, the best state is kept, what fails is told by name."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from persimmon_lab.finetuning import Settings, encode_all, finetune, memory
from persimmon_lab.finetuning.lora import adapt
from persimmon_lab.mini import load_mini
from tests.finetuning import killed_lesson
from tests.finetuning.killed_lesson import EXAMPLES


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path):
    settings = Settings(epochs=2, rows=1, length=64, evaluate_every=2, packed=False, rate=1e-4)

    def stop(step):
        if step == 2:
            raise KeyboardInterrupt

    def run(folder, on_evaluation=None):
        model, tokenizer = load_mini()
        for layer in model.model.layers:
            layer.dropout.p = 0.1
        finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], settings, folder, False, on_evaluation)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    torch.rand(1)  # another process has another random state
    again = run(tmp_path / "cut")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_killed_lesson_of_adapters_goes_on_to_the_same_bits(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = killed_lesson.run(tmp_path / "whole")
        command = [sys.executable, "-m", killed_lesson.__name__, str(tmp_path / "cut"), "4"]
        process = subprocess.run(command, cwd=Path(__file__).parents[2], timeout=120)
        assert process.returncode == -signal.SIGKILL
        assert not (tmp_path / "cut" / "loss.svg").exists()
        again = killed_lesson.run(tmp_path / "cut")
    finally:
        torch.set_num_threads(threads)
    assert any("lora" in name for name in whole)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_gets_no_better_stops_early_and_leaves_the_best(tmp_path):
    model, tokenizer = load_mini()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = Settings(epochs=3, rows=1, length=64, rate=20.0, evaluate_every=1, patience=2)
    outcome = finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], settings, tmp_path, False)
    assert (outcome.steps, outcome.best_step) == (2, 0)
    assert outcome.best_loss == outcome.first_loss == outcome.history[0]["held_out"]["held out"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match="is of other examples, settings or weights"):
        finetune(model, tokenizer, EXAMPLES[:5], EXAMPLES[6:], settings, tmp_path, False)


def test_a_loss_that_is_not_finite_stops_by_name(tmp_path):
    model, tokenizer = load_mini()
    model.lm_head.weight.data[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="the loss of step 1 is nan"):
        finetune(model, tokenizer, EXAMPLES[:6], [], Settings(epochs=1), tmp_path, False)


def test_in_bfloat16_the_masters_take_the_updates(tmp_path):
    """What bfloat16 would round away adds up in float32: the model ends at its masters, rounded."""
    model, tokenizer = load_mini()
    settings = Settings(epochs=2, rows=1, length=64, dtype="bfloat16", rate=1e-5, patience=None)
    outcome = finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], settings, tmp_path, False)
    assert model.dtype == torch.bfloat16
    for name, tensor in model.state_dict().items():
        assert outcome.weights[name].dtype == torch.float32
        assert torch.equal(outcome.weights[name].bfloat16(), tensor)
    assert outcome.best_loss < outcome.first_loss


def test_what_was_cut_is_counted(tmp_path):
    model, tokenizer = load_mini()
    settings = Settings(epochs=1, length=16)
    cuts = [document.cut for document in encode_all(EXAMPLES, tokenizer, 16) if document.cut]
    outcome = finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], settings, tmp_path, False)
    assert 0 < len(cuts) < len(EXAMPLES)
    assert (outcome.length, outcome.cut, outcome.left_out) == (16, len(cuts), sum(cuts))


@pytest.mark.parametrize("other", [{"seed": 1}, {"alpha": 5.0}, {"dropout": 0.5}, {"rank": 3}], ids=str)
def test_adapters_that_start_otherwise_are_another_run(tmp_path, other):
    pytest.importorskip("peft")
    settings = Settings(epochs=1, length=64, rank=2)
    for given, refused in (({}, False), ({}, False), (other, True)):
        model, tokenizer = load_mini()
        adapt(model, **({"rank": 2} | given))
        if not refused:
            finetune(model, tokenizer, EXAMPLES[:4], [], settings, tmp_path, False)
            continue
        with pytest.raises(ValueError, match="is of other examples, settings or weights"):
            finetune(model, tokenizer, EXAMPLES[:4], [], settings, tmp_path, False)


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_of_another_sign_or_order_are_another_run(tmp_path, frozen):
    """Which have the same sums, and the same lengths."""
    settings = Settings(epochs=1, length=64, rate=1e-9)
    for other in (None, None, "sign", "order"):
        model, tokenizer = load_mini()
        weight = model.model.layers[0].mlp.dense_h_to_4h.weight
        weight.requires_grad_(not frozen)
        with torch.no_grad():
            weight.copy_({None: weight, "sign": -weight, "order": weight.flip(0)}[other])
        if other is None:
            finetune(model, tokenizer, EXAMPLES[:2], [], settings, tmp_path, False)
            continue
        with pytest.raises(ValueError, match="is of other examples, settings or weights"):
            finetune(model, tokenizer, EXAMPLES[:2], [], settings, tmp_path, False)


def test_float16_without_masters_ends_in_nan_and_with_them_it_learns(tmp_path):
    given = {"epochs": 2, "rows": 1, "length": 64, "dtype": "float16", "patience": None}
    model, tokenizer = load_mini()
    held = Settings(**given)
    outcome = finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], held, tmp_path / "masters", False)
    assert outcome.failed_at is None and outcome.best_loss < outcome.first_loss
    bare = Settings(**given, masters=False, float16_without_masters=True)
    model, tokenizer = load_mini()
    outcome = finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], bare, tmp_path / "bare", False)
    assert outcome.failed_at == outcome.steps == outcome.history[-1]["step"]
    assert outcome.best_loss == outcome.first_loss, "the first step did not help either"
    assert all(weight.isfinite().all() for weight in model.parameters())


def test_memory_is_asked_for_before_anything_is_written(tmp_path, monkeypatch):
    model, tokenizer = load_mini()
    count = sum(weight.numel() for weight in model.parameters())
    assert memory.added_bytes(model, Settings()) == 20 * count
    assert memory.added_bytes(model, Settings(dtype="bfloat16", optimiser="muon")) == 18 * count
    monkeypatch.setattr(memory, "free_on", lambda device: 20 * count - 1)
    with pytest.raises(MemoryError, match="fine-tuning needs .* beside the model, and .* are free on cpu"):
        finetune(model, tokenizer, EXAMPLES[:4], [], Settings(), tmp_path / "run", False)
    assert not (tmp_path / "run").exists()
