"""Captures, patches and eager attention belong to the thread that asked; any other has the model as it is."""

import threading
from contextlib import contextmanager

import pytest
import torch

from persimmon_lab.numerics.lockstep import lockstep
from persimmon_lab.numerics.observation import Watch
from persimmon_lab.numerics.rotary_effect import swapped_tables
from persimmon_lab.trace.capture import capture, capturing
from persimmon_lab.trace.patch import patch
from tests.models import tiny
from tests.trace.hooks_left import left_behind

MINE = torch.arange(2, 34)[None]
OTHERS = torch.arange(40, 72)[None]


@contextmanager
def another_thread(work):
    """Does `work` over and over while the block runs; its results, or its error, come when the block is left."""
    results, errors, over = [], [], threading.Event()

    def loop():
        try:
            while not over.is_set():
                results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield results
    finally:
        over.set()
        thread.join()
    if errors:
        raise errors[0]


def run(model, ids):
    with torch.no_grad():
        return model(ids).logits


@pytest.mark.parametrize("only", [["layers.1"], ["pattern"], ["layers.0.self_attn.scores", "layers.1.mlp:input"]])
def test_a_capture_holds_its_own_text_beside_another_thread(only):
    model = tiny()
    expected, alone = capture(model, MINE, only=only), run(model, OTHERS)
    with another_thread(lambda: run(model, OTHERS)) as others:
        traces = [capture(model, MINE, only=only) for _ in range(60)]
    for trace in traces:
        assert trace.names == expected.names
        assert all(torch.equal(trace[name], expected[name]) for name in expected)
    assert len(others) > 1 and all(torch.equal(each, alone) for each in others)
    assert not left_behind(model)


def test_two_threads_capture_at_once():
    model = tiny()
    wanted = capture(model, OTHERS, only=["pattern"])
    mine = capture(model, MINE, only=["pattern"])
    with another_thread(lambda: capture(model, OTHERS, only=["pattern"])) as others:
        traces = [capture(model, MINE, only=["pattern"]) for _ in range(60)]
    for found, expected in ((traces, mine), (others, wanted)):
        assert len(found) > 1
        for trace in found:
            assert all(torch.equal(trace[name], expected[name]) for name in expected)
    assert not left_behind(model)


@pytest.mark.parametrize("name", ["layers.0", "layers.0:input", "pattern"])
def test_a_patch_changes_this_threads_passes_alone(name):
    model = tiny()
    alone, unpatched = run(model, OTHERS), run(model, MINE)
    with patch(model, {name: lambda x: 0.5 * x}):
        patched = run(model, MINE)
        with another_thread(lambda: run(model, OTHERS)) as others:
            again = [run(model, MINE) for _ in range(30)]
    assert all(torch.equal(each, patched) for each in again) and not torch.equal(patched, unpatched)
    assert len(others) > 1 and all(torch.equal(each, alone) for each in others)
    assert torch.equal(run(model, MINE), unpatched) and not left_behind(model)


def test_every_step_of_a_generation_beside_another_thread_is_captured():
    model = tiny()
    with another_thread(lambda: run(model, OTHERS)), capturing(model, only=["layers.1"]) as steps:
        model.generate(MINE, max_new_tokens=3, eos_token_id=None)
    assert [step["layers.1"].shape[1] for step in steps] == [32, 1, 1]


def test_tables_are_swapped_for_this_thread_alone():
    model = tiny()
    alone = run(model, OTHERS)
    still = torch.ones(1, 32, model.config.rotary_dim), torch.zeros(1, 32, model.config.rotary_dim)
    with swapped_tables(model, *still):
        swapped = run(model, MINE)
        with another_thread(lambda: run(model, OTHERS)) as others:
            assert all(torch.equal(run(model, MINE), swapped) for _ in range(30))
    assert len(others) > 1 and all(torch.equal(each, alone) for each in others)
    assert not torch.equal(run(model, MINE), swapped)


def test_a_walk_in_lockstep_and_a_watch_see_their_own_passes():
    models = [tiny(), tiny()]
    expected = {path: made[0].clone() for path, made in lockstep(models, lambda m: m(MINE), ["layers.0", "lm_head"])}
    with another_thread(lambda: run(models[0], OTHERS)):
        for _ in range(10):
            walk = lockstep(models, lambda m: m(MINE), ["layers.0", "lm_head"])
            assert all(torch.equal(made[0], expected[path]) for path, made in walk)
        with Watch(models[0]) as watch:
            for _ in range(20):
                run(models[0], MINE)
                assert watch.activations["lm_head"] == expected["lm_head"].abs().amax()
