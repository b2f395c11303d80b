"""Fine-tuning over two processes teaches what one process teaches."""

import pytest
import torch

from persimmon_lab import atomic
from persimmon_lab.distributed.finetuning import finetune
from persimmon_lab.distributed.states import last_checkpoint
from persimmon_lab.distributed.world import joined
from persimmon_lab.finetuning import Settings, conversation, loop
from persimmon_lab.mini import load_mini
from tests.distributed.ranks import on_ranks

EXAMPLES = [conversation(f"What is {n}?", " ".join(["A number"] * (1 + 3 * (n % 3)))) for n in range(12)]
# Three rows a batch, which two ranks cannot share equally, and in the last batch of an epoch one rank has none.
SETTINGS = dict(
    epochs=5, rows=3, length=48, packed=True, evaluate_every=3, patience=None, rate=1e-3, checkpoint_every=4
)
VARIANTS = ({}, {"accumulate": 2, "rows": 1, "epochs": 3}, {"patience": 1, "rate": 0.5, "evaluate_every": 1})


def small():
    """The shipped model's first layer: its tokenizer reads for it, and ten steps take a second."""
    model, tokenizer = load_mini(torch_dtype=torch.float32)
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    return model, tokenizer


def taught(settings, folder, world=None):
    model, tokenizer = small()
    lesson = model, tokenizer, EXAMPLES[:9], EXAMPLES[9:], settings, folder
    return (loop.finetune(*lesson, progress=False) if world is None else finetune(*lesson, world)), model


def together(rank, folders):
    outcomes = []
    with joined("cpu") as world:
        for number, changes in enumerate(VARIANTS):
            outcome, model = taught(Settings(**SETTINGS | changes), folders / str(number), world)
            left = sum(float(weight.full_tensor().double().sum()) for weight in model.parameters())
            outcomes.append((outcome.history, outcome.weights, outcome.steps, outcome.best_step, left))
    return outcomes


def test_two_processes_teach_what_one_teaches(tmp_path):
    first, second = on_ranks(together, tmp_path)
    for number, (changes, ours, others) in enumerate(zip(VARIANTS, first, second, strict=True)):
        theirs, model = taught(Settings(**SETTINGS | changes), tmp_path / f"alone {number}")
        history, weights, steps, best_step, left = ours
        assert (steps, best_step) == (theirs.steps, theirs.best_step)
        assert len(history) == len(theirs.history) and steps >= (10, 4, 1)[number]
        for one, other in zip(history, theirs.history, strict=True):
            assert one.keys() == other.keys() and one["step"] == other["step"]
            found, right = (
                entry["loss"] if "loss" in entry else entry["held_out"]["held out"] for entry in (one, other)
            )
            assert found == pytest.approx(right, rel=1e-3 if number == 2 else 1e-5)
        for name, weight in theirs.weights.items():
            assert (weights[name] - weight).norm() <= 1e-2 * weight.norm() + 1e-6, name
        assert others[1] == {} and others[4] == left
        assert left == pytest.approx(sum(float(weight.double().sum()) for weight in weights.values()))


def cut_off(rank, folder):
    settings = Settings(**SETTINGS)
    with joined("cpu") as world:
        model, tokenizer = small()
        steps = iter(range(5))
        read = model.model.forward

        def forward(*arguments, **named):
            if model.training and next(steps, None) is None:
                raise KeyboardInterrupt
            return read(*arguments, **named)

        model.model.forward = forward
        with pytest.raises(KeyboardInterrupt):
            finetune(model, tokenizer, EXAMPLES[:9], EXAMPLES[9:], settings, folder, world)


def resumed(rank, folder):
    with joined("cpu") as world:
        outcome, _ = taught(Settings(**SETTINGS), folder, world)
        with pytest.raises(ValueError, match="another run"):
            taught(Settings(**SETTINGS | {"rate": 1e-5}), folder, world)
        with pytest.raises(ValueError, match="adapters"):
            taught(Settings(rank=4), folder, world)
    return outcome


def test_an_interrupted_lesson_goes_on_in_one_process(tmp_path):
    [whole] = on_ranks(resumed, tmp_path / "whole", size=1)
    on_ranks(cut_off, tmp_path / "cut")
    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-0000004"
    [outcome] = on_ranks(resumed, tmp_path / "cut", size=1)
    assert [entry["step"] for entry in outcome.history] == [entry["step"] for entry in whole.history]
    assert outcome.best_step == whole.best_step
    for one, other in zip(outcome.history, whole.history, strict=True):
        found, right = (entry.get("loss", entry.get("held_out")) for entry in (one, other))
        assert found == pytest.approx(right, rel=1e-5)
    for name, weight in whole.weights.items():
        assert (outcome.weights[name] - weight).norm() <= 1e-2 * weight.norm() + 1e-6, name


def test_a_folder_that_another_run_teaches_in_is_refused(tmp_path):
    with atomic.alone(tmp_path):
        with pytest.raises(OSError, match="another process or thread is writing"):
            taught(Settings(**SETTINGS), tmp_path)
        with joined("cpu") as world, pytest.raises(OSError, match="another process or thread is writing"):
            taught(Settings(**SETTINGS), tmp_path, world)
    assert not any(tmp_path.iterdir())
