"""The fast engines give the model's numbers, and step back where they would not."""

import copy
import itertools
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from persimmon_lab import (
    PersimmonConfig,
    PersimmonForCausalLM,
    PersimmonForSequenceClassification,
    footprint,
    load_mini,
)
from persimmon_lab.cache import DynamicCache, StaticCache
from persimmon_lab.fitting.vocabulary_rows import drop_rows
from persimmon_lab.generation.engines import choosing, fast, packed
from persimmon_lab.generation.engines.choosing import ENGINES, fingerprint, is_same, laid_out, runner_for, why_not_fast
from persimmon_lab.generation.engines.fast import FastRunner, attend_in_float32, bucket_of
from persimmon_lab.generation.engines.packed import (
    Int8Linear,
    Int8WeightLinear,
    OneRowLinear,
    PackedLinear,
    PlainLinear,
    can_pack,
)
from persimmon_lab.generation.engines.reserved_cache import ReservedCache
from persimmon_lab.numerics import tolerances

KINDS = [
    PlainLinear,
    pytest.param(PackedLinear, marks=pytest.mark.skipif(not can_pack(torch.float32), reason="no oneDNN")),
]
CONFIGS = {
    "as released": {},
    "no query and key norms": {"qk_layernorm": False},
    "gelu": {"hidden_act": "gelu", "layer_norm_eps": 0.3},
    "plain relu": {"hidden_act": "relu"},
    "tied": {"tie_word_embeddings": True},
    "adept's rotation": {"rope_precision": "adept", "max_position_embeddings": 600},
    "full rotation": {"partial_rotary_factor": 1.0},
    "linear scaling": {"rope_scaling": {"type": "linear", "factor": 3.0}, "max_position_embeddings": 8},
    "dynamic scaling": {"rope_scaling": {"type": "dynamic", "factor": 3.0}, "max_position_embeddings": 8},
}


def prompt(batch: int = 3, length: int = 14) -> torch.Tensor:
    return torch.randint(3, 128, (batch, length), generator=torch.Generator().manual_seed(5))


def padded(input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Arguments that take the first three tokens of the second row for padding."""
    mask = torch.ones_like(input_ids)
    mask[1, :3] = 0
    return {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}


@torch.no_grad()
def in_pieces(run, cache, input_ids, pieces, attention_mask=None, position_ids=None):
    """Logits of every position, given piece by piece."""
    logits = []
    for start, end in itertools.pairwise(itertools.accumulate(pieces, initial=0)):
        output = run(
            input_ids=input_ids[:, start:end],
            attention_mask=None if attention_mask is None else attention_mask[:, :end],
            position_ids=None if position_ids is None else position_ids[:, start:end],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=0,
        )
        logits.append(output.logits)
        assert output.past_key_values is cache
    return torch.cat(logits, dim=1)


def static_runner(model, kind=PlainLinear) -> FastRunner:
    """One that decodes by steps of fixed shapes, as on a GPU."""
    run = FastRunner(model, kind)
    run.static = True
    return run


@pytest.fixture
def untraced(monkeypatch):
    """The "compiled" engine without its compiler: a list of what it would have compiled."""
    compiled = []

    def compile_nothing(function, dynamic):
        assert dynamic is False
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return compiled


def randomised(model):
    """Every weight and bias away from its start, so that a forgotten one shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("arguments", [dict, lambda: padded(prompt())], ids=["", "padded"])
def test_logits_are_the_models(tiny_model, kind, config, arguments):
    model, arguments, pieces = randomised(tiny_model(**config)), arguments(), [2, 1, 2, 7, 1, 1]
    visible = arguments.get("attention_mask", torch.ones_like(prompt())).bool()
    wanted = in_pieces(model, DynamicCache(), prompt(), pieces, **arguments)
    for run in (FastRunner(model, kind), static_runner(model, kind)):
        for cache in (run.new_cache(14), ReservedCache(2), DynamicCache(), StaticCache(14)):
            error = in_pieces(run, cache, prompt(), pieces, **arguments) - wanted
            assert error[visible].abs().max() < tolerances.ENGINES[torch.float32]
        assert (run._step is not None) == run.static


@pytest.mark.parametrize("dtype", tolerances.ENGINES, ids=str)
def test_logits_in_every_dtype(tiny_model, dtype):
    model, arguments = tiny_model().to(dtype), padded(prompt())
    wanted = in_pieces(model, DynamicCache(), prompt(), [6, 1, 1], **arguments)
    run = runner_for(model, "fast")
    logits = in_pieces(run, run.new_cache(9), prompt(), [6, 1, 1], **arguments)
    assert logits.dtype == dtype
    assert (logits - wanted).abs().max() < tolerances.ENGINES[dtype]


@pytest.mark.parametrize("make_cache", [DynamicCache, lambda: ReservedCache(2, 20)], ids=["dynamic", "reserved"])
@pytest.mark.parametrize("make_run", [FastRunner, static_runner])
def test_a_past_without_use_cache_is_only_read(tiny_model, make_run, make_cache):
    model, cache = tiny_model(), make_cache()
    run, wanted = make_run(model), model(prompt()).logits
    run(prompt()[:, :10], past_key_values=cache)
    for end in (11, 14):
        output = run(prompt()[:, 10:end], past_key_values=cache, use_cache=False)
        assert output.past_key_values is None
        assert cache.get_seq_length() == 10
        assert torch.allclose(output.logits[:, -1], wanted[:, end - 1], atol=2e-5)


def test_where_everything_is_seen_there_is_no_mask(tiny_model, monkeypatch):
    monkeypatch.delattr(fast, "causal_mask")
    run, ones = FastRunner(tiny_model()), torch.ones_like(prompt())
    in_pieces(run, run.new_cache(14), prompt(), [12, 1, 1], attention_mask=ones)
    with pytest.raises(NameError):
        in_pieces(run, run.new_cache(14), prompt(), [6, 8])


def test_embeddings_and_every_number_of_logits(tiny_model):
    model = tiny_model()
    run, embeds = FastRunner(model), model.get_input_embeddings()(prompt()).detach()
    for keep in (0, 1, 5):
        wanted = model(inputs_embeds=embeds, logits_to_keep=keep).logits
        output = run(inputs_embeds=embeds, logits_to_keep=keep, use_cache=False)
        assert output.past_key_values is None
        assert torch.allclose(output.logits, wanted, atol=2e-5)


@pytest.mark.parametrize(("past", "new"), [(0, [128]), (0, [3, 128]), (4, [3, 128])])
def test_ids_outside_the_vocabulary_are_named(tiny_model, past, new):
    run, cache = runner_for(tiny_model(), "fast"), DynamicCache()
    if past:
        run(prompt(1, past), past_key_values=cache)
    with pytest.raises(IndexError, match="token id 128"):
        run(torch.tensor([new]), past_key_values=cache)


# Tokens


@pytest.mark.parametrize("engine", [None, "plain", "fast"])
def test_tokens_of_transformers(twins, padded_prompts, engine):
    ours, theirs = twins()
    ids, mask = padded_prompts
    wanted = theirs.generate(ids, attention_mask=mask, max_new_tokens=20, do_sample=False)
    assert torch.equal(ours.generate(ids, attention_mask=mask, max_new_tokens=20, engine=engine), wanted)


@pytest.mark.parametrize("make_cache", [lambda: None, lambda: ReservedCache(2, 15)], ids=["own", "given"])
@pytest.mark.parametrize(
    "settings",
    [{"do_sample": True, "num_return_sequences": 2, "seed": 4}, {"num_beams": 3}, {"repetition_penalty": 1.3}],
    ids=str,
)
def test_tokens_of_the_plain_engine(tiny_model, untraced, padded_prompts, settings, make_cache):
    """With a cache of its own, and with one given, whose rows become more."""
    (ids, mask), model = padded_prompts, tiny_model()
    settings = {"attention_mask": mask, "max_new_tokens": 8, **settings}
    wanted = model.generate(ids, engine="plain", **settings)
    for engine in ("fast", None, "compiled"):
        assert torch.equal(model.generate(ids, engine=engine, past_key_values=make_cache(), **settings), wanted)
    assert untraced, "the compiled engine had nothing to compile"


@pytest.mark.parametrize("engine", [None, "fast", "compiled"])
def test_one_row_then_three_then_one(tiny_model, untraced, monkeypatch, engine):
    monkeypatch.setattr(packed, "ONE_ROW_SIZE", 64)  # so that a single row has a layout of its own
    model, other = tiny_model(), tiny_model()
    for rows in (1, 3, 1):
        ids = prompt(rows)
        wanted = other.generate(ids, max_new_tokens=9, engine="plain")
        assert torch.equal(model.generate(ids, max_new_tokens=9, engine=engine), wanted)


# A processor without VNNI rounds the rows of x to 7 bits instead of 8 (`Int8Linear`).
COARSER = 1 if torch.cpu._is_vnni_supported() else 2


def test_half_precision_and_int8_agree_mostly(tiny_model):
    """Where the engines round differently, so do they choose; how often is measured in benchmarks/speed.py."""
    model = tiny_model()
    with torch.no_grad():
        wanted = model(prompt(8, 40)).logits
    for kind, share in ((Int8Linear, 0.8), (Int8WeightLinear, 0.8)):
        logits = FastRunner(model, kind)(prompt(8, 40), logits_to_keep=0).logits
        error = (logits - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
        assert 1e-4 < error < 0.06 * (COARSER if kind is Int8Linear else 1), f"{kind.__name__} is off by {error:.3f}"
        assert (logits.argmax(-1) == wanted.argmax(-1)).float().mean() > share


def test_the_cache_that_comes_back_is_the_callers_or_has_room(tiny_model):
    model, cache, arguments = tiny_model(), DynamicCache(), {"max_new_tokens": 5, "return_dict_in_generate": True}
    given = model.generate(prompt(), past_key_values=cache, **arguments)
    assert given.past_key_values is cache
    own = model.generate(prompt(), **arguments)
    assert isinstance(own.past_key_values, ReservedCache)
    assert torch.equal(given.sequences, own.sequences)


# What happens to a cache


def forget(cache, read):
    cache.crop(5)


def reorder(*rows):
    return lambda cache, read: cache.reorder_cache(torch.tensor(rows))


def replace(cache, read):
    cache.value_cache = [cache.value_cache[0], cache.value_cache[1] + 1]


def leave_a_copy(cache, read):
    read(copy.deepcopy(cache), torch.full((3, 1), 9))


def take_the_copy(cache, read):
    branch = copy.deepcopy(cache)
    read(cache, torch.full((3, 1), 9))
    return branch


def extend_and_forget(cache, read):
    read(cache, prompt(3, 4))
    cache.crop(7)


@torch.no_grad()
def story(runs, cache, happen) -> torch.Tensor:
    """Logits of the steps after something happened to the cache; `runs` take turns."""
    turns, ids = itertools.cycle(runs), prompt(5, 12)

    def read(cache, new):
        return next(turns)(input_ids=new, past_key_values=cache, use_cache=True).logits[:, -1]

    read(cache, ids[:3, :6])
    read(cache, ids[:3, 6:7])
    cache = happen(cache, read) or cache
    ids = ids[: len(cache.key_cache[0])]
    return torch.stack([read(cache, ids[:, place : place + 1]) for place in range(7, 11)])


@pytest.mark.parametrize(
    "happen",
    [forget, reorder(2, 0, 0), reorder(1), reorder(0, 1, 2, 2, 1), replace, leave_a_copy, take_the_copy,
     extend_and_forget],
    ids=["forget", "other rows", "fewer rows", "more rows", "replace", "leave a copy", "take the copy",
         "extend and forget"],
)  # fmt: skip
def test_whatever_happens_to_a_cache_between_steps(tiny_model, happen):
    """Alone, and in turns with the model; the room is full on the way."""
    model = tiny_model()
    fast, static = FastRunner(model), static_runner(model)
    wanted = story([model], DynamicCache(), happen)
    for runs in ([fast], [static], [model, fast], [static, model], [static, fast, model]):
        assert torch.allclose(story(runs, ReservedCache(2, 9), happen), wanted, atol=2e-5)


# Which engine


@pytest.mark.parametrize("changes", [{}, {"hidden_dropout": 0.1, "attention_dropout": 0.1}], ids=["", "dropout"])
def test_the_fast_engine_is_the_default(tiny_model, changes):
    model = tiny_model(**changes)
    assert runner_for(model, "plain") is model
    assert isinstance(runner_for(model.train(mode=not changes)), FastRunner), "nothing is dropped in eval mode, or ever"


@pytest.mark.skipif(not can_pack(torch.float32), reason="no oneDNN")
def test_layouts_are_those_for_the_rows_that_a_step_has(tiny_model, monkeypatch):
    monkeypatch.setattr(packed, "ONE_ROW_SIZE", 64)
    for engine, kinds in {
        "fast": [OneRowLinear, OneRowLinear, PackedLinear],
        "int8": 3 * [Int8Linear],
        "int8-weight-only": 3 * [Int8WeightLinear],
        "compiled": 3 * [PlainLinear],
    }.items():
        runners = [runner_for(tiny_model(), engine, **rows) for rows in ({}, {"rows": 1}, {"rows": 2})]
        assert [type(run.lm_head) for run in runners] == kinds


def spoil(model: PersimmonForCausalLM, how: str):
    layer = model.model.layers[1]
    if how == "hook":
        layer.mlp.activations.register_forward_hook(lambda *_: None)
    elif how == "pre-hook":
        layer.register_forward_pre_hook(lambda *_: None)
    elif how == "replaced forward":
        layer.mlp.forward = layer.mlp.forward
    elif how == "foreign module":
        layer.mlp.dense_h_to_4h = type("LoraLinear", (nn.Linear,), {})(64, 256)
    elif how == "parametrised":
        nn.utils.parametrizations.weight_norm(layer.mlp.dense_h_to_4h)
    elif how == "hidden dropout":
        layer.dropout.p = 0.1
        layer.dropout.train()
    elif how == "attention dropout":
        layer.self_attn.attention_dropout = 0.1
        model.train()
    elif how == "tap":
        layer.self_attn.value = nn.Linear(16, 16)
    elif how == "no norm":
        model.model.final_layernorm = nn.Identity()
    elif how == "norm without a weight":
        layer.self_attn.q_layernorm.weight = None
    elif how == "no dropout":
        layer.dropout = nn.LayerNorm(64)
    elif how == "no mlp":
        layer.mlp = nn.Identity()
    elif how == "max_norm":
        model.model.embed_tokens.max_norm = 0.3
    elif how == "two configurations":
        model.model.config = copy.deepcopy(model.config)
        model.model.config.rope_theta = 7.0
    elif how == "eager":
        model.config.attn_implementation = "eager"
    elif how == "mixed":
        layer.mlp.to(torch.bfloat16)
    elif how == "two devices":
        model.lm_head.to("meta")
    elif how == "meta":
        model.to("meta")
    elif how == "a part":
        model = model.model
    elif how == "no language model":
        model = PersimmonForSequenceClassification(PersimmonConfig.tiny())
    elif how == "no module":
        model = SimpleNamespace(
            **vars(model) | {"model": model.model, "lm_head": model.lm_head, "config": model.config}
        )
    elif how == "dropped rows":
        model = drop_rows(model, torch.arange(100, 128))
    elif how == "subclass":
        model.__class__ = type("Mine", (PersimmonForCausalLM,), {})
    return model


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("hook", "a hook listens to model.layers.1.mlp.activations"),
        ("pre-hook", "a hook listens to model.layers.1"),
        ("replaced forward", "the forward of model.layers.1.mlp was replaced"),
        ("foreign module", "LoraLinear"),
        ("parametrised", "Parametrized"),
        ("hidden dropout", "model.layers.1.dropout is in training mode, with dropout"),
        ("attention dropout", "model.layers.1.self_attn is in training mode, with dropout"),
        ("tap", "model.layers.1.self_attn.value is a .*Linear"),
        ("no norm", "model.final_layernorm is a .*Identity"),
        ("norm without a weight", "q_layernorm has no weight"),
        ("no dropout", "model.layers.1.dropout is a .*LayerNorm"),
        ("no mlp", "model.layers.1.mlp is a .*Identity"),
        ("max_norm", "embed_tokens has a max_norm"),
        ("two configurations", "a configuration of its own, with another rope_theta"),
        ("eager", "eager"),
        ("mixed", "several kinds or nowhere: torch.bfloat16 on cpu, torch.float32 on cpu"),
        ("two devices", "several kinds or nowhere: torch.float32 on cpu, torch.float32 on meta"),
        ("meta", "nowhere: torch.float32 on meta"),
        ("a part", "this is a PersimmonModel"),
        ("no language model", "this is a PersimmonForSequenceClassification"),
        ("no module", "this is a SimpleNamespace"),
        ("dropped rows", "vocabulary_rows"),
        ("subclass", "Mine"),
    ],
)
def test_it_steps_back_where_the_model_is_more_than_its_weights(tiny_model, how, reason):
    model = spoil(tiny_model(), how)
    assert runner_for(model) is model
    with pytest.raises(ValueError, match=reason):
        runner_for(model, "fast")


@pytest.mark.parametrize("register", ["register_module_forward_hook", "register_module_forward_pre_hook"])
def test_it_steps_back_for_autocast_and_global_hooks(tiny_model, register):
    model = tiny_model()
    with torch.autocast("cpu", torch.bfloat16):
        assert runner_for(model) is model
    hook = getattr(nn.modules.module, register)(lambda *_: None)
    try:
        assert runner_for(model) is model
    finally:
        hook.remove()
    assert isinstance(runner_for(model), FastRunner)


def test_the_shipped_model_is_served_by_the_fast_engine():
    """Its modules say so of themselves: one that forgets it would go slow in silence."""
    model, _ = load_mini()
    assert why_not_fast(model) is None
    assert isinstance(runner_for(model, "fast"), FastRunner)


@pytest.mark.parametrize("engine", ["int8", "int8-weight-only"])
def test_int8_is_for_the_cpu(monkeypatch, engine):
    monkeypatch.setattr(choosing, "why_not_fast", lambda model: None)
    with pytest.raises(ValueError, match="for the CPU, and the model is on cuda:1"):
        runner_for(SimpleNamespace(device=torch.device("cuda:1")), engine)


def test_an_unknown_engine(tiny_model):
    with pytest.raises(ValueError, match="plain, fast, compiled, int8, int8-weight-only"):
        tiny_model().generate(prompt(), engine="turbo")


def test_without_memory_for_copies_the_model_serves_itself(tiny_model, monkeypatch):
    model, free = tiny_model(), {}
    monkeypatch.setattr(footprint, "free_memory", lambda: free)
    assert isinstance(runner_for(tiny_model()), FastRunner), "nobody knows what is free"
    copies = sum(linear.weight.nbytes for linear in model.modules() if isinstance(linear, nn.Linear))
    free["cpu"] = 2 * copies
    assert isinstance(runner_for(tiny_model()), FastRunner)
    free["cpu"] -= 1
    with torch.backends.mkldnn.flags(enabled=False):
        assert isinstance(runner_for(model), FastRunner), "plain products copy nothing"
    assert runner_for(model) is (model if can_pack(torch.float32) else runner_for(model))
    assert isinstance(runner_for(model, "fast"), FastRunner), "who asks for it gets it"
    assert isinstance(runner_for(model), FastRunner), "copies that exist cost nothing more"


@pytest.mark.parametrize("how", ["missing", "switched off"])
def test_without_onednn_the_products_are_plain(tiny_model, monkeypatch, how):
    model = tiny_model()
    wanted = model.generate(prompt(), max_new_tokens=5, engine="plain")
    if how == "missing":
        monkeypatch.setattr(packed, "can_pack", lambda dtype: False)
    with torch.backends.mkldnn.flags(enabled=how == "missing"):
        run = runner_for(model)
        assert isinstance(run.lm_head, PlainLinear)
        assert torch.equal(model.generate(prompt(), max_new_tokens=5), wanted)


@pytest.mark.parametrize("failure", [AttributeError, RuntimeError, None])
def test_an_operator_that_is_gone_or_wrong_is_not_used(monkeypatch, failure):
    def call(self, x):
        if failure is not None:
            raise failure
        return x + 1

    can_pack.cache_clear()
    monkeypatch.setattr(PackedLinear, "__call__", call)
    assert not can_pack(torch.float32)
    can_pack.cache_clear()


# Weights that change


@pytest.mark.parametrize("engine", ["fast", "int8", "int8-weight-only"])
@pytest.mark.parametrize(
    "how",
    ["in place", "data", "rows swapped", "columns swapped", "columns moved", "replaced", "loaded", "bias",
     "dtype and back"],
)  # fmt: skip
def test_changed_weights_are_laid_out_anew(tiny_model, engine, how):
    model, other = randomised(tiny_model()), randomised(tiny_model(seed=1))
    ids = prompt()
    runner_for(model, engine)(ids)
    linear = model.model.layers[0].mlp.dense_h_to_4h
    with torch.no_grad():
        if how == "in place":
            linear.weight[5, 7] += 3
        elif how == "data":
            linear.weight.data[5, 7] += 3
        elif how == "rows swapped":
            linear.weight.data[[5, 9]] = linear.weight.data[[9, 5]]
        elif how == "columns swapped":
            linear.weight[:, [5, 9]] = linear.weight[:, [9, 5]]
        elif how == "columns moved":
            linear.weight.data = linear.weight.data.roll(2, dims=1)
        elif how == "replaced":
            linear.weight = nn.Parameter(torch.randn_like(linear.weight))
        elif how == "loaded":
            model.load_state_dict(other.state_dict())
        elif how == "bias":
            linear.bias.data[5] += 3
        else:
            model.to(torch.bfloat16).to(torch.float32)
    fresh = tiny_model()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(runner_for(model, engine)(ids).logits, runner_for(fresh, engine)(ids).logits)


def test_unchanged_weights_are_laid_out_once(tiny_model):
    linear = tiny_model().lm_head
    first, other = laid_out(linear, Int8WeightLinear), laid_out(linear, Int8WeightLinear, relu=True)
    assert laid_out(linear, Int8WeightLinear) is first is not other
    assert laid_out(linear, Int8WeightLinear, relu=True) is other
    assert laid_out(linear, Int8Linear) is not first
    linear.weight.data[0, 0] += 1
    assert laid_out(linear, Int8WeightLinear) is not first
    assert laid_out(linear, PlainLinear) is not laid_out(linear, PlainLinear), "it holds no copy to keep"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [3, 6, 8])
def test_a_fingerprint_of_any_width_and_order(dtype, width):
    for weight in (torch.ones(5, width, dtype=dtype), torch.ones(width, 5, dtype=dtype).T):
        before = fingerprint(weight)
        assert is_same(fingerprint(weight), before)
        weight.data[4, width - 1] = 2
        assert not is_same(fingerprint(weight), before)


def test_the_layout_follows_the_rows_and_only_one_is_kept():
    wide, narrow = nn.Linear(1024, 1024), nn.Linear(1024, 512)
    if not can_pack(torch.float32):
        pytest.skip("no oneDNN")
    assert [packed.best_kind(wide, rows) for rows in (1, 2)] == [OneRowLinear, PackedLinear]
    assert OneRowLinear.rows == 1 < PackedLinear.rows
    assert packed.best_kind(nn.Linear(4, 4, device="meta"), 1) is packed.best_kind(narrow.double(), 2) is PlainLinear
    assert packed.best_kind(narrow.float(), 1) is PackedLinear
    half = PackedLinear if can_pack(torch.bfloat16) else PlainLinear
    assert packed.best_kind(wide.to(torch.bfloat16), 1) is half
    wide, x = wide.to(torch.float32), torch.randn(3, 1024)
    held = {kind: laid_out(wide, kind) for kind in (Int8WeightLinear, OneRowLinear, PackedLinear)}
    assert torch.allclose(held[OneRowLinear](x), held[PackedLinear](x), atol=1e-5)
    laid_out(wide, Int8Linear)
    assert laid_out(wide, PackedLinear) is held[PackedLinear]
    assert not held[PackedLinear].weight.requires_grad
    assert laid_out(wide, Int8WeightLinear) is held[Int8WeightLinear]
    assert laid_out(wide, OneRowLinear) is not held[OneRowLinear], "it gave its place to the other layout"


def test_copies_go_with_their_model(tiny_model):
    model = tiny_model()
    runner_for(model, "int8")
    held = len(choosing._LAID_OUT)
    linears = sum(isinstance(module, nn.Linear) for module in model.modules())
    del model
    assert len(choosing._LAID_OUT) == held - linears


# Products


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.filterwarnings("error")
def test_products(rows, bias, relu, dtype):
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(64, 48, bias=bias)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(48, 64, generator=generator) * torch.logspace(-1, 1, 48)[:, None])
        linear.weight[3] = 0  # a silent row has no scale of its own
        if bias:
            linear.bias.copy_(torch.randn(48, generator=generator) * 10)
    linear.to(dtype)
    x = torch.randn(rows, 64, generator=generator).to(dtype)
    weight = linear.weight.detach().double()
    scales = torch.where(weight.any(dim=1), weight.abs().amax(dim=1) / 127, 1.0)
    rounded = (weight / scales[:, None]).round() * scales[:, None]
    size, half = weight.norm(dim=1) + (linear.bias.detach().abs() if bias else 0), 2e-2 * (dtype == torch.bfloat16)
    for kind, exact, tolerance in (
        (PlainLinear, weight, 1e-5),
        (PackedLinear, weight, 1e-5),
        (OneRowLinear, weight, 1e-5),
        (Int8WeightLinear, rounded, 1e-5),
        (Int8Linear, rounded, 0.03 * COARSER),
    ):
        if issubclass(kind, PackedLinear) and not can_pack(dtype):
            continue
        wanted = F.linear(x.double(), exact, linear.bias.double() if bias else None)
        wanted = wanted.relu() if relu else wanted
        with torch.no_grad():
            product = kind(linear, relu)(x)
        assert product.dtype == dtype
        assert product.shape == wanted.shape
        assert ((product - wanted).abs().mean(dim=0) <= (tolerance + half) * size).all(), kind.__name__


@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_one_query_in_float32(monkeypatch, masked):
    monkeypatch.setattr(fast, "FLOAT32_NUMBERS", 2 * 3 * 9 * 4)  # two of five rows at a time
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(5, 3, n, 4, generator=generator).to(torch.bfloat16) for n in (1, 9, 9))
    mask = torch.zeros(5, 1, 1, 9, dtype=torch.bfloat16).masked_fill(torch.arange(9) < 2, -1e9) if masked else None
    mixed = attend_in_float32(query, key, value, mask)
    exact = F.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), None if mask is None else mask.double()
    )
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(mixed, exact.to(torch.bfloat16))


# Steps of fixed shapes


def test_buckets_are_powers_of_two():
    assert [bucket_of(n) for n in (1, 128, 129, 256, 257, 5000)] == [128, 128, 256, 256, 512, 8192]


def test_a_static_step_keeps_its_addresses_and_crosses_buckets(tiny_model, monkeypatch):
    monkeypatch.setattr(fast, "SMALLEST_BUCKET", 8)
    model, ids, steps, places = tiny_model(), prompt(2, 24), [], []
    run, wanted = static_runner(model), in_pieces(model, DynamicCache(), ids, [5] + 19 * [1])
    cache = ReservedCache(2, 24)
    logits = [run(ids[:, :5], past_key_values=cache).logits]
    room = cache.reserved.data_ptr()
    for place in range(5, 24):
        logits.append(run(ids[:, place : place + 1], past_key_values=cache).logits)
        steps.append(run._step)
        places.append(int(run._step.place))
        assert cache.reserved.data_ptr() == room
    assert (torch.cat(logits, dim=1) - wanted[:, 4:]).abs().max() < 2e-5
    assert places == list(range(5, 24)), "each step took its place, the last one the last of the room"
    assert [step.bucket for step in dict.fromkeys(steps)] == [8, 16, 24]
    assert logits[-1].data_ptr() != run._step.output.data_ptr(), "the next step would write over what was handed out"


def test_a_new_cache_has_the_room_that_steps_need(tiny_model):
    model = tiny_model()
    assert (FastRunner(model).new_cache(20).room, static_runner(model).new_cache(20).room) == (20, 128)


COMPILED = """
import functools, torch
from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
torch.compile = functools.partial(torch.compile, backend="eager", fullgraph=True)
model = PersimmonForCausalLM(PersimmonConfig.tiny(initializer_range=0.2), torch.Generator().manual_seed(0)).eval()
ids = torch.tensor([[5, 9, 7], [8, 3, 4]])
texts = [model.generate(ids, max_new_tokens=8, eos_token_id=None, engine=engine) for engine in ("plain", "compiled")]
assert torch.equal(*texts)
print(torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


def test_the_compiled_engine():
    """Traced by torch.compile into one graph, which here runs as it is: a C++ compiler is not on every machine.

    In a process of its own, because the shape checks of these tests are no code that can be traced.
    """
    result = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["1"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_captured_graph_gives_the_models_logits(tiny_model, dtype):
    model = tiny_model().to("cuda", dtype)
    ids = prompt().to("cuda")
    run = runner_for(model)
    wanted = in_pieces(model, DynamicCache(), ids, [6] + 8 * [1])
    logits = in_pieces(run, run.new_cache(20), ids, [6] + 8 * [1])
    assert run._step.graph is not None
    assert (logits - wanted).abs().max() < tolerances.ENGINES[dtype]


def test_every_engine_writes_something(tiny_model):
    model = tiny_model()
    for engine in (engine for engine in ENGINES if engine != "compiled"):
        assert model.generate(prompt(), max_new_tokens=4, engine=engine).shape[0] == 3
