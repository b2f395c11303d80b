"""A model's runner is kept while the model is what it was: what the check sees, and what it leaves alone."""

import gc
import threading
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from persimmon_lab import DynamicCache, PersimmonConfig, PersimmonForCausalLM, StaticCache, load_mini
from persimmon_lab.generation import decode_steps
from persimmon_lab.generation.engines import choosing, fast, packed
from persimmon_lab.generation.engines.choosing import MARK, READ_WHOLE, runner_for, sample, why_not_fast
from persimmon_lab.generation.engines.decodable import Decodable
from persimmon_lab.generation.engines.fast import FastRunner, StaticStep
from persimmon_lab.generation.scoring import score_tokens
from tests.generation.conftest import SPREAD
from tests.generation.engines.test_fast import spoil

IDS = torch.randint(3, 128, (2, 6), generator=torch.Generator().manual_seed(5))


def wide(seed: int = 0, **overrides) -> PersimmonForCausalLM:
    """One whose weights are larger than what the check reads whole."""
    config = PersimmonConfig.tiny(**SPREAD | {"hidden_size": 128, "intermediate_size": 512} | overrides)
    return PersimmonForCausalLM(config, torch.Generator().manual_seed(seed)).eval()


def weight_of(model) -> nn.Parameter:
    return model.model.layers[0].mlp.dense_h_to_4h.weight


def in_place(model):
    with torch.no_grad():
        weight_of(model)[5, 7] += 3


def in_place_in_inference_mode(model):
    with torch.inference_mode():
        weight_of(model)[5, 7] += 3


def data_swapped(model):
    other = weight_of(model).detach().clone()
    other[5, 7] += 3
    weight_of(model).data = other


def data_scaled(model):
    weight_of(model).data.mul_(2)


def loaded(model):
    model.load_state_dict(wide(seed=1).state_dict())


def assigned(model):
    model.load_state_dict(wide(seed=1).state_dict(), assign=True)


def optimised(model):
    model(IDS, labels=IDS).loss.backward()
    torch.optim.AdamW(model.parameters(), lr=0.1).step()


def replaced(model):
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() * 2)


def another_module(model):
    model.model.layers[0].mlp.dense_h_to_4h = nn.Linear(128, 512)


def fewer_layers(model):
    model.model.layers = model.model.layers[:1]


def another_epsilon(model):
    model.model.final_layernorm.eps = 1.0


def another_activation(model):
    model.model.layers[0].mlp.act = torch.tanh


def another_config(model):
    model.config.rope_theta = 3.0


def another_scaling(model):
    model.config.rope_scaling["factor"] = 5.0


CHANGES = [in_place, in_place_in_inference_mode, data_swapped, data_scaled, loaded, assigned, optimised, replaced,
           another_module, fewer_layers, another_epsilon, another_activation, another_config,
           another_scaling]  # fmt: skip


@pytest.mark.parametrize("engine", ["fast", "int8"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change, engine):
    model = wide(rope_scaling={"type": "linear", "factor": 2.0})
    assert weight_of(model).numel() > READ_WHOLE
    before = runner_for(model, engine)
    assert runner_for(model, engine) is before
    change(model)
    after = runner_for(model, engine)
    assert after is not before
    fresh = FastRunner(model, choosing.Int8Linear if engine == "int8" else packed.PlainLinear)
    error = (after(IDS).logits - fresh(IDS).logits).abs().max()
    assert error < 2e-4 * fresh(IDS).logits.abs().max().clamp(min=1)
    assert runner_for(model, engine) is after


def test_another_dtype_is_seen_and_another_device(tiny_model):
    model = tiny_model()
    before = runner_for(model)
    assert runner_for(model.to(torch.bfloat16)).scale.dtype == torch.bfloat16
    assert runner_for(model.to(torch.float32)) is not before
    assert runner_for(model.to("meta")) is model


SPOILT = ["hidden dropout", "attention dropout", "tap", "no dropout", "max_norm", "two configurations"]


@pytest.mark.parametrize("how", ["hook", "pre-hook", "forward", "eager", "autocast", "dropout", "global", *SPOILT])
def test_what_is_no_longer_only_weights_is_left_to_the_model(tiny_model, how):
    model = tiny_model(hidden_dropout=0.1)
    before, tap = runner_for(model), model.model.layers[1].self_attn.value
    if how == "hook":
        tap.register_forward_hook(lambda *_: None)
    elif how == "pre-hook":
        tap.register_forward_pre_hook(lambda *_: None)
    elif how == "forward":
        tap.forward = lambda value: value * 2
    elif how == "eager":
        model.config.attn_implementation = "eager"
    elif how == "dropout":
        model.train()
    elif how in SPOILT:
        spoil(model, how)
    elif how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert runner_for(model) is model
        return
    else:
        hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
        try:
            assert runner_for(model) is model
        finally:
            hook.remove()
        return
    assert runner_for(model) is model
    assert runner_for(model) is not before


@pytest.mark.parametrize("change", [data_scaled, in_place_in_inference_mode, data_swapped, assigned])
def test_weights_without_versions(change):
    """Made in inference mode. A model whose weights are read whole shows every number."""
    with torch.inference_mode():
        large = wide()
        small = PersimmonForCausalLM(PersimmonConfig.tiny(**SPREAD), torch.Generator().manual_seed(0)).eval()
    model = small if change is in_place_in_inference_mode else large
    assert weight_of(model).is_inference()
    before = runner_for(model)
    assert runner_for(model) is before
    with torch.inference_mode():
        change(model)
    assert runner_for(model) is not before


def test_numbers_are_looked_at_in_many_rows_and_columns():
    weight = torch.arange(300 * 256, dtype=torch.float32).reshape(300, 256)
    for matrix in (weight, weight.reshape(256, 300).T):
        seen = sample([matrix]).view(torch.float32).long()
        assert len(seen) >= choosing.SAMPLES
        assert len(set((seen // 256).tolist())) > 20
        assert len(set((seen % 256).tolist())) > 20
    weight[:] = torch.nan
    assert torch.equal(sample([weight]), sample([weight])), "nan is what it was"


def test_it_does_not_read_all_of_a_large_weight():
    assert sample([torch.zeros(512, 512)]).nbytes == choosing.SAMPLES * 4
    assert sample([torch.zeros(READ_WHOLE)]).nbytes == READ_WHOLE * 4


def test_a_runner_goes_with_its_model(tiny_model):
    model = tiny_model()
    model.generate(IDS, max_new_tokens=2)
    runner, seen = weakref.ref(runner_for(model)), weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None
    assert runner() is None


def test_a_model_has_one_runner_at_a_time(tiny_model, monkeypatch):
    model = tiny_model()
    first = runner_for(model)
    assert runner_for(model, "fast") is first is runner_for(model, rows=3), "the layout is the same for any rows"
    assert runner_for(model, "plain") is model
    other = runner_for(model, "int8")
    assert other is runner_for(model, "int8")
    assert runner_for(model) is not first
    if packed.can_pack(torch.float32):
        monkeypatch.setattr(packed, "ONE_ROW_SIZE", 64)
        one = runner_for(tall := tiny_model(), rows=1)
        assert runner_for(tall, rows=1) is one is not runner_for(tall, rows=2)


def test_a_plain_product_keeps_no_old_numbers_alive(tiny_model):
    """When a model moves, `.data` is swapped: an alias of the old would hold the memory of a whole model."""
    linear = tiny_model().lm_head
    assert packed.PlainLinear(linear).weight is linear.weight


class Recorded:
    """A CUDA graph's stand-in: replaying computes what was captured."""

    def __init__(self, step: StaticStep):
        self.step = step

    def replay(self):
        self.step.output = self.step.compute()


@pytest.fixture
def captures(monkeypatch):
    """A list of the buckets that were captured, on a CPU that passes for a GPU."""
    buckets = []

    def capture(step):
        buckets.append(step.bucket)
        return Recorded(step)

    monkeypatch.setattr(fast, "can_capture", lambda device: True)
    monkeypatch.setattr(StaticStep, "capture", capture)
    monkeypatch.setattr(fast, "SMALLEST_BUCKET", 8)
    return buckets


def test_a_captured_step_is_kept_between_calls(tiny_model, captures):
    model, settings = tiny_model(), {"max_new_tokens": 20, "eos_token_id": None}
    wanted = [model.generate(ids, engine="plain", **settings) for ids in (IDS, IDS + 1)]
    assert torch.equal(model.generate(IDS, **settings), wanted[0])
    assert captures == [8, 16, 32]
    assert torch.equal(model.generate(IDS + 1, **settings), wanted[1])
    assert torch.equal(model.generate(IDS, max_new_tokens=9, eos_token_id=None), wanted[0][:, :15])
    with torch.inference_mode():
        assert torch.equal(model.generate(IDS, **settings), wanted[0])
    assert captures == [8, 16, 32]
    model.generate(IDS[:1], **settings)
    assert captures == 2 * [8, 16, 32], "other rows have other shapes"
    in_place(model)
    model.generate(IDS[:1], **settings)
    assert captures == 3 * [8, 16, 32], "other weights"


def test_a_cache_that_somebody_has_is_not_written_over(tiny_model, captures):
    model, settings, seen = tiny_model(), {"max_new_tokens": 9, "eos_token_id": None}, []
    for more in ({"return_dict_in_generate": True}, {"on_token": lambda step: seen.append(step.past_key_values)}):
        output = model.generate(IDS, **settings, **more)
        cache = seen[0] if seen else output.past_key_values
        held = [part.clone() for pair in cache for part in pair]
        model.generate(IDS + 1, **settings)
        model.generate(IDS + 2, **settings)
        assert all(torch.equal(part, old) for part, old in zip((p for pair in cache for p in pair), held, strict=True))
    *_, last = decode_steps(model, IDS, **settings)
    held = last.past_key_values.key_cache[0].clone()
    model.generate(IDS + 1, **settings)
    assert torch.equal(last.past_key_values.key_cache[0], held)


@pytest.mark.parametrize("static", [True, False])
def test_two_threads_share_a_runner_and_no_cache(tiny_model, request, static):
    captured = request.getfixturevalue("captures") if static else None
    model, settings = tiny_model(), {"max_new_tokens": 25, "eos_token_id": None}
    wanted = [model.generate(IDS + turn, engine="plain", **settings) for turn in range(4)]
    run, found = runner_for(model), {}

    def write(turn):
        found[turn] = [model.generate(IDS + turn, **settings) for _ in range(3)]

    threads = [threading.Thread(target=write, args=(turn,)) for turn in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(text, wanted[turn]) for turn in range(4) for text in found[turn])
    assert runner_for(model) is run
    assert captured is None or captured


def test_room_that_is_kept_is_given_up_before_memory_runs_out(tiny_model, captures, monkeypatch):
    model, settings = tiny_model(), {"max_new_tokens": 9, "eos_token_id": None}
    wanted, asked = model.generate(IDS, **settings), []
    assert runner_for(model)._idle

    def require(*arguments):
        asked.append(bool(runner_for(model)._idle))
        if asked[-1]:
            raise MemoryError

    monkeypatch.setattr("persimmon_lab.generation.decoding.require_memory", require)
    assert torch.equal(model.generate(IDS, **settings), wanted)
    assert asked == [True, False]


# Inference mode


@pytest.mark.parametrize("make_cache", [lambda: None, DynamicCache, lambda: StaticCache(40)])
@pytest.mark.parametrize("engine", [None, "plain", "fast", "compiled", "int8", "int8-weight-only"])
def test_a_model_made_in_inference_mode_writes_what_it_ever_did(tiny_model, monkeypatch, engine, make_cache):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    settings = {"max_new_tokens": 9, "eos_token_id": None}
    wanted = tiny_model().generate(IDS, engine=engine, **settings)
    with torch.inference_mode():
        made_there, ids = tiny_model(), IDS.clone()
    for model in (made_there, tiny_model()):
        for inside in (True, False, True):
            with torch.inference_mode(inside):
                assert torch.equal(model.generate(ids, engine=engine, past_key_values=make_cache(), **settings), wanted)


@pytest.mark.parametrize("engine", [None, "plain", "compiled"])
def test_what_began_in_inference_mode_goes_on_outside(tiny_model, monkeypatch, engine):
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    model, settings = tiny_model(), {"eos_token_id": None, "engine": engine}
    wanted = model.generate(IDS, max_new_tokens=9, **settings)
    with torch.inference_mode():
        begun = model.generate(IDS, max_new_tokens=4, return_dict_in_generate=True, **settings)
        steps = decode_steps(model, IDS, max_new_tokens=9, **settings)
        next(steps)
    rest = model.generate(begun.sequences, max_new_tokens=5, past_key_values=begun.past_key_values, **settings)
    assert torch.equal(rest, wanted)
    *_, last = steps
    assert torch.equal(last.result, wanted)


# Which models


class Quantised(torch.Tensor):
    """What torchao puts in a weight's place, as far as this is concerned."""


def test_subclasses_of_tensors_are_named_and_left_to_the_model(tiny_model):
    model = tiny_model()
    before = runner_for(model)
    wanted = model.generate(IDS, engine="plain")
    weight = model.lm_head.weight.detach().as_subclass(Quantised)
    model.lm_head.weight = nn.Parameter(weight, requires_grad=False)
    assert runner_for(model) is model is not before
    with pytest.raises(ValueError, match=r"lm_head\.weight is a .*Quantised"):
        runner_for(model, "fast")
    assert torch.equal(model.generate(IDS), wanted)


def test_modules_say_of_themselves_that_they_may_be_read():
    model, _ = load_mini()
    assert why_not_fast(model) is None
    own = {type(module) for module in model.modules()} - set(choosing.TORCH_MODULES.values())
    assert {kind.__name__ for kind in own} == {
        "PersimmonForCausalLM", "PersimmonModel", "PersimmonDecoderLayer", "PersimmonAttention", "PersimmonMLP"
    }  # fmt: skip
    for kind in own:
        assert vars(kind)[MARK] is True
        inherits = type("Mine", (kind,), {})
        assert MARK not in vars(inherits)


def test_a_persimmon_is_decodable(tiny_model):
    assert isinstance(tiny_model(), Decodable)
    assert not isinstance(nn.Linear(2, 2), Decodable)


def weight_normed(model):
    torch.nn.utils.parametrizations.weight_norm(model.model.layers[0].mlp.dense_h_to_4h)


def pruned(model):
    prune.l1_unstructured(model.model.layers[0].mlp.dense_h_to_4h, "weight", 0.9)


def quantised(model):
    torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8, inplace=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("change", "reason"),
    [(weight_normed, "ParametrizedLinear"), (pruned, "a hook listens to"), (quantised, "quantized.dynamic")],
)
def test_weights_that_are_made_on_the_way_are_left_to_the_model(change, reason):
    """The weight that the module says it has is not, or not all of, what it multiplies with."""
    model = wide()
    before = model.generate(IDS, max_new_tokens=8)
    change(model)
    assert reason in why_not_fast(model)
    given = model.generate(IDS, max_new_tokens=8)
    assert torch.equal(given, model.generate(IDS, max_new_tokens=8, engine="plain"))
    if change is pruned:
        assert not torch.equal(given, before), "the runner of before is not asked"


def test_two_threads_write_their_own_texts():
    """One runner serves both: its room and its steps are no place for what belongs to a text."""
    model = wide()
    asked = [(IDS, 1), (IDS.flip(0), 2)]
    expected = [model.generate(ids, max_new_tokens=20, do_sample=True, seed=seed) for ids, seed in asked]
    wrong = []

    def write(ids, seed, text):
        for _ in range(10):
            if not torch.equal(model.generate(ids, max_new_tokens=20, do_sample=True, seed=seed), text):
                wrong.append(seed)

    threads = [threading.Thread(target=write, args=(*one, text)) for one, text in zip(asked, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("keep", [slice(1), slice(0, 0)])
def test_fewer_layers_generate(tiny_model, keep):
    model = tiny_model(eos_token_id=None)
    model.model.layers = model.model.layers[keep]
    written = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5)
    assert torch.equal(written, model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=5, engine="plain"))


@pytest.mark.parametrize("how", SPOILT)
def test_what_a_module_does_otherwise_is_in_the_scores(tiny_model, how):
    """The default engine says what the plain one does, here of a model that is not the one it was made as."""
    model = spoil(tiny_model(), how)
    if how.endswith("dropout"):
        model.eval()
    torch.testing.assert_close(score_tokens(model, IDS).tokens, score_tokens(model, IDS, engine="plain").tokens)
