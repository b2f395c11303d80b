"""Models in lockstep: every module that all have, in order, with hardly anything alive and nothing left behind."""

import copy
import gc
import threading

import pytest
import torch
import transformers

from persimmon_lab.numerics.lockstep import THREAD, activations, lockstep, shared_paths
from tests.models import ids, tiny
from tests.numerics.counting import Counter, alive_by_itself


def forward(model):
    return model(input_ids=ids(), use_cache=False)


def hooked(model) -> list[str]:
    return [path for path, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]


def threads() -> int:
    return sum(thread.name == THREAD for thread in threading.enumerate())


@torch.no_grad()
def by_hooks(model) -> list[tuple[str, torch.Tensor]]:
    """What every module made, all kept: the second way of looking."""
    seen, handles = [], []
    for path, module in model.named_modules():

        def remember(_module, _given, output, path=path):
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor) and path:
                seen.append((path, first))

        handles.append(module.register_forward_hook(remember))
    forward(model)
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    yield
    assert threads() == 0


def test_every_module_of_both_in_order():
    models = [tiny(), tiny().double()]
    walked = [(path, *[each.clone() for each in made]) for path, made in lockstep(models, forward)]
    kept = [by_hooks(model) for model in models]
    assert [path for path, *_ in walked] == [path for path, _ in kept[0]] == [path for path, _ in kept[1]]
    for (_, *made), (_, one), (_, other) in zip(walked, *kept, strict=True):
        assert torch.equal(made[0], one)
        assert torch.equal(made[1], other)
    assert not hooked(models[0]) + hooked(models[1])


def test_what_one_alone_computes_is_passed_over():
    """Eager attention has scores and a pattern; the fused kernel does not, and falls out of step in every layer."""
    models = [tiny(num_hidden_layers=3), tiny(num_hidden_layers=3, attn_implementation="eager")]
    for pair in (models, models[::-1]):
        walked = [path for path, _ in lockstep(pair, forward)]
        assert walked == [path for path, _ in by_hooks(models[0])]


def test_models_of_transformers_share_the_paths_that_both_have():
    ours = tiny()
    theirs = transformers.PersimmonForCausalLM(transformers.PersimmonConfig(**vars(ours.config) | {"extra": None}))
    walked = [path for path, _ in lockstep([theirs, ours], forward)]
    taps = ("rotated_query", "rotated_key", "value", "head_output", "activations")
    assert walked == [path for path, _ in by_hooks(ours) if path.rpartition(".")[2] not in taps]


def test_only_what_was_asked_for():
    model = tiny()
    assert [path for path, _ in lockstep([model], forward, ["*.mlp", "lm_head"])] == [
        "model.layers.0.mlp",
        "model.layers.1.mlp",
        "lm_head",
    ]
    assert shared_paths([model], ["*.1.self_attn.dense"]) == ["model.layers.1.self_attn.dense"]


def test_a_model_may_walk_beside_itself():
    model = tiny()
    for _, (one, other) in lockstep([model, model], forward):
        assert torch.equal(one, other)
        assert one.data_ptr() != other.data_ptr()


def test_nothing_is_kept_that_the_forward_passes_do_not_keep():
    """Counted when a module is done and when it is read. Meanwhile the other model stands at the module before, and
    the reader still has the list of that one in their hands."""
    models = [tiny(num_hidden_layers=4), tiny(num_hidden_layers=4).bfloat16()]
    counter, read = Counter(*models), []  # its hooks run before those of the walk
    for _ in lockstep(models, forward):
        read.append(counter.alive())
    alone = alive_by_itself(tiny(num_hidden_layers=4), forward)
    assert read == [2 * count for count in alone]
    assert counter.counts[0::2] == [own + other for own, other in zip(alone, [0, *alone])]
    assert counter.counts[1::2] == read


def test_one_model_is_held_to_what_it_holds():
    model = tiny(num_hidden_layers=4)
    counter = Counter(model)
    for _ in lockstep([model], forward):
        pass
    assert counter.counts == alive_by_itself(tiny(num_hidden_layers=4), forward)


def test_after_a_detour_both_go_in_step_again():
    """Eager attention runs two modules more; the other model waits for it at the next one that both have."""
    models = [tiny(num_hidden_layers=4), tiny(num_hidden_layers=4, attn_implementation="eager")]
    alone = [
        alive_by_itself(tiny(num_hidden_layers=4, attn_implementation=each), forward) for each in ("sdpa", "eager")
    ]
    counter, read = Counter(*models), []
    for _ in lockstep(models, forward):
        read.append(counter.alive())
    assert read[-1] == alone[0][-1] + alone[1][-1]
    assert max(read) <= max(alone[0]) + max(alone[1])


def test_gradients_are_not_recorded():
    assert not any(each.requires_grad for _, made in lockstep([tiny()], forward) for each in made)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("place", [0, 1])
def test_an_error_in_one_model_ends_all(place):
    models = [tiny(), tiny()]

    def fail(_module, _given, _output):
        raise RuntimeError("planted in layer 1")

    models[place].model.layers[1].mlp.act = lambda x: fail(None, None, None)
    with pytest.raises(RuntimeError, match="planted in layer 1"):
        for path, _ in lockstep(models, forward):
            assert path != "lm_head"
    assert not hooked(models[0]) + hooked(models[1])


def test_closed_early_no_thread_and_no_hook_is_left():
    models = [tiny(), copy.deepcopy(tiny())]
    walk = lockstep(models, forward)
    next(walk)
    assert threads() == 2
    walk.close()
    assert threads() == 0
    assert not hooked(models[0]) + hooked(models[1])


def test_an_error_of_the_reader_ends_all():
    model = tiny()

    def read():
        for _ in lockstep([model, model], forward):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        read()
    gc.collect()
    assert not hooked(model)


def test_a_generator_never_started_leaves_nothing():
    model = tiny()
    activations(model, ["lm_head"], forward).close()
    lockstep([model], forward).close()
    assert not hooked(model)
