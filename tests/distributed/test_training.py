"""Training over two processes learns what one process learns, and goes on from what any number of them left."""

import json
from dataclasses import replace

import pytest
import torch

from persimmon_lab import PersimmonForCausalLM, atomic
from persimmon_lab.distributed.states import last_checkpoint, save_pretrained, weights_in
from persimmon_lab.distributed.training import train
from persimmon_lab.distributed.world import joined
from persimmon_lab.training import optimiser, trainer
from tests.distributed.ranks import on_ranks
from tests.training.killed_run import CONFIG, RECIPE, SOURCES, TEXT

RATES = dict(dtype=torch.float32, checkpoint_every=5, evaluate_every=5, log_every=1)
HELD_OUT = {"chat": TEXT[:1500]}


@pytest.fixture(autouse=True)
def exact_muon(monkeypatch):
    """Muon makes directions in the dtype that is fast here, and bfloat16 makes much of a last bit of float32."""
    monkeypatch.setattr(optimiser, "fast_dtype", lambda device: torch.float32)


def alone(folder, **changes):
    model = trainer.train(CONFIG, replace(RECIPE, **changes), SOURCES, HELD_OUT, folder, progress=False, **RATES)
    return model, list(trainer.read_metrics(folder / "metrics.jsonl"))


def together(rank, folder, changes=None, out=None):
    with joined("cpu") as world:
        model = train(CONFIG, replace(RECIPE, **(changes or {})), SOURCES, HELD_OUT, folder, world, **RATES)
        if out is not None:
            save_pretrained(model, out, world, torch.bfloat16)
        return sum(weight.to_local().numel() for weight in model.parameters())


def close(ours, theirs):
    assert [entry["step"] for entry in ours] == [entry["step"] for entry in theirs]
    for one, other in zip(ours, theirs, strict=True):
        if "loss" in one:
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
            assert one["norm"] == pytest.approx(other["norm"], rel=1e-4)
        else:
            assert one["held_out"] == pytest.approx(other["held_out"], rel=1e-5)


def test_two_processes_learn_what_one_learns(tmp_path):
    model, theirs = alone(tmp_path / "alone")
    counts = on_ranks(together, tmp_path / "two", None, tmp_path / "out")
    ours = list(trainer.read_metrics(tmp_path / "two" / "metrics.jsonl"))
    assert len(ours) == RECIPE.steps + 3
    close(ours, theirs)
    assert max(counts) < 0.51 * model.num_parameters()
    gathered = PersimmonForCausalLM.from_pretrained(tmp_path / "out", torch_dtype="auto")
    assert gathered.dtype == torch.bfloat16
    kept = weights_in(last_checkpoint(tmp_path / "two"))  # read by this process, which has joined nobody
    for name, weight in model.named_parameters():
        assert torch.equal(gathered.get_parameter(name), kept[name].bfloat16())
        assert (kept[name] - weight.float()).norm() < 0.01 * weight.float().norm() + 1e-3


def test_one_process_goes_on_from_what_two_left_and_two_from_what_one_left(tmp_path):
    _, theirs = alone(tmp_path / "alone")
    for first, second in ((2, 1), (1, 2)):
        folder = tmp_path / f"{first} then {second}"
        on_ranks(interrupted, folder, size=first)
        assert last_checkpoint(folder).name == "checkpoint-0000005"
        assert [path.name for path in folder.glob("*checkpoint*")] == ["checkpoint-0000005"]
        on_ranks(together, folder, size=second)
        close(list(trainer.read_metrics(folder / "metrics.jsonl")), theirs)
        assert [path.name for path in folder.glob("*checkpoint*")] == [f"checkpoint-{RECIPE.steps:07}"]


def interrupted(rank, folder):
    def cut_off(text):
        def row(generator, length):
            if len(list(folder.glob("checkpoint-*"))):
                raise KeyboardInterrupt
            return text(generator, length)

        return row

    sources = {name: cut_off(source) for name, source in SOURCES.items()}
    with joined("cpu") as world, pytest.raises(KeyboardInterrupt):
        train(CONFIG, RECIPE, sources, HELD_OUT, folder, world, **RATES)


def refused(rank, folder):
    with joined("cpu") as world, pytest.raises(ValueError, match="another run"):
        train(CONFIG, replace(RECIPE, rate=1e-5), SOURCES, HELD_OUT, folder, world, **RATES)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    on_ranks(interrupted, tmp_path)
    on_ranks(refused, tmp_path)
    told = json.loads((last_checkpoint(tmp_path) / "run.json").read_text())
    assert told["step"] == 5


def test_a_folder_that_another_run_trains_in_is_refused(tmp_path):
    with atomic.alone(tmp_path):
        with pytest.raises(OSError, match="another process or thread is writing"):
            alone(tmp_path)
        with pytest.raises(OSError, match="another process or thread is writing"):
            together(0, tmp_path)
    assert not any(tmp_path.iterdir())
