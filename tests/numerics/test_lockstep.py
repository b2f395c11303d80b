"""Models in lockstep: every module that all have, in order, with hardly anything alive and nothing left behind."""

import copy
import gc
import threading
import weakref

import pytest
import torch
import transformers

from persimmon_lab.numerics.lockstep import activations, lockstep, shared_paths
from tests.models import ids, tiny


def forward(model):
    return model(input_ids=ids(), use_cache=False)


def hooked(model) -> list[str]:
    return [path for path, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]


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
    before = threading.active_count()
    yield
    assert threading.active_count() == before


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


def alive(references) -> int:
    return sum(reference() is not None for reference in references)


@torch.no_grad()
def most_alive(model) -> int:
    """How many of the modules' outputs a forward pass by itself holds at once: the residual stream, query and key…"""
    references, counts, handles = [], [], []

    def count(_module, _given, output):
        references.append(weakref.ref(output[0] if isinstance(output, tuple) else output))
        counts.append(alive(references))

    for path in shared_paths([model]):
        if path != "model":
            handles.append(model.get_submodule(path).register_forward_hook(count))
    forward(model)
    for handle in handles:
        handle.remove()
    return max(counts)


def test_nothing_is_kept_that_the_forward_pass_does_not_keep():
    """Nor by whoever reads, although the list that they were given is still in their hands."""
    models = [tiny(num_hidden_layers=4), tiny(num_hidden_layers=4).bfloat16(),
              tiny(num_hidden_layers=4, attn_implementation="eager")]  # fmt: skip
    references, most = [], 0
    for _, made in lockstep(models, forward):
        references += [weakref.ref(each) for each in made]
        assert alive(references[-3:]) == 3
        most = max(most, alive(references))
    assert len(references) == 3 * 71
    assert most <= sum(map(most_alive, models))


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
    assert threading.active_count() == 3
    walk.close()
    assert threading.active_count() == 1
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
