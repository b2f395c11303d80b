"""The budget is counted twice: by formula, and by building the model, running it and watching its tensors."""

import sys
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.fitting.memory import MemoryPlan, memory_plan, parameter_counts, streamed_bytes
from persimmon_lab.footprint import activation_bytes, cache_bytes
from tests.memory import start_afresh, taken

PERSIMMON_8B = PersimmonConfig.persimmon_8b()


@pytest.mark.parametrize(
    "config",
    [
        PersimmonConfig.persimmon_8b(),
        PersimmonConfig.tiny(),
        PersimmonConfig.tiny(tie_word_embeddings=True),
        PersimmonConfig.tiny(qk_layernorm=False, intermediate_size=100),
    ],
    ids=["8b", "tiny", "tied", "no qk-layernorm"],
)
def test_parameter_counts_equal_the_model(config):
    with torch.device("meta"):
        model = PersimmonForCausalLM(config)
    counts = parameter_counts(config)
    assert sum(counts.values()) == model.num_parameters()
    marks = {
        "norms": "norm",
        "attention": "self_attn",
        "mlp": "mlp",
        "embed_tokens": "embed_tokens",
        "lm_head": "lm_head",
    }
    by_name = dict.fromkeys(counts, 0)
    for name, parameter in model.named_parameters():
        part = next(part for part, mark in marks.items() if mark in name)
        by_name[part] += parameter.numel()
    assert counts == by_name


def test_8b_figures():
    """9.40 B parameters, 589,824 bytes of cache and 16.65 GB streamed per token in bfloat16."""
    config = PersimmonConfig.persimmon_8b()
    assert sum(parameter_counts(config).values()) == 9_397_175_296
    assert cache_bytes(config, torch.bfloat16, positions=1) == 589_824
    assert streamed_bytes(config, torch.bfloat16) == pytest.approx(16.65e9, rel=1e-3)
    plan = memory_plan(config, torch.bfloat16, batch=2)
    assert plan.cache == 2 * 16384 * 589_824
    assert plan.total == plan.weights + plan.cache


def test_cache_bytes_equal_a_real_cache():
    config = PersimmonConfig.tiny()
    past = PersimmonForCausalLM(config)(torch.zeros(3, 7, dtype=torch.long)).past_key_values
    held = sum(tensor.untyped_storage().nbytes() for layer in past for tensor in layer)  # of what they are views of
    assert cache_bytes(config, torch.float32, positions=7, batch=3) == held


# The forward pass


class LiveTensors(TorchDispatchMode):
    """Bytes of the tensors made inside and still alive, and the most there were at once."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for tensor in tree_iter((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self.known.setdefault(tensor.untyped_storage(), None)  # it was there before
        results = function(*args, **(kwargs or {}))
        for tensor in tree_iter(results):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.known:
                self.known[storage] = None
                self.now += storage.nbytes()
                weakref.finalize(storage, self.forget, storage.nbytes())
        self.most = max(self.most, self.now)
        return results

    def forget(self, size):
        self.now -= size


def most_at_once(config, dtype, batch, positions, logits_to_keep):
    """Bytes that a forward pass has alive at its peak, the cache included and the weights not.

    The tensors are fake: they have shapes and lifetimes and no memory, so the sizes of the 8B model cost nothing.
    """
    with FakeTensorMode(), torch.no_grad():
        model = PersimmonForCausalLM(config)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        embedded = torch.empty(batch, positions, config.hidden_size, dtype=dtype)
        with LiveTensors() as live:
            model(inputs_embeds=embedded.clone(), logits_to_keep=logits_to_keep)
    return live.most


@pytest.mark.parametrize(
    ("changes", "dtype", "batch", "positions", "logits_to_keep"),
    [
        ({}, torch.bfloat16, 1, 16384, 1),
        ({}, torch.float32, 4, 512, 1),
        ({"intermediate_size": 64}, torch.bfloat16, 1, 2048, 1),
        ({"intermediate_size": 64, "partial_rotary_factor": 1.0}, torch.bfloat16, 2, 2048, 1),
        ({"intermediate_size": 6000, "qk_layernorm": False}, torch.float32, 1, 2048, 1),
        ({"attn_implementation": "eager"}, torch.bfloat16, 1, 4096, 1),
        ({"attn_implementation": "eager"}, torch.float32, 2, 2048, 1),
        ({}, torch.bfloat16, 1, 16384, 0),
        ({}, torch.bfloat16, 1, 4096, 100),
        ({}, torch.float32, 1, 256, 0),
    ],
)
def test_activations_of_a_forward_pass(report_table, unchecked_annotations, changes, dtype, batch, positions,
                                       logits_to_keep):  # fmt: skip
    """Never less than what is alive at the peak, and at most a quarter more, in the 8B model's sizes."""
    config = PersimmonConfig.persimmon_8b(num_hidden_layers=2, **changes)
    alive = most_at_once(config, dtype, batch, positions, logits_to_keep)
    planned = activation_bytes(config, dtype, positions, batch, logits_to_keep) + cache_bytes(
        config, dtype, positions, batch
    )
    case = f"{changes or '8B'}, {str(dtype)[6:]}, {batch} x {positions}, keep {logits_to_keep or 'all'}"
    report_table("Memory plan", [{"case": case, "alive MB": alive / 1e6, "planned MB": planned / 1e6}])
    assert 0.98 * alive <= planned <= 1.25 * alive


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of resident memory")
def test_activations_against_the_process(report_table):
    """What the whole process grows by in a forward pass, on real tensors: within a fifth of the plan."""
    config = PersimmonConfig.tiny(hidden_size=128, intermediate_size=512, max_position_embeddings=1024)
    model = PersimmonForCausalLM(config).eval()
    ids = torch.zeros(64, 1024, dtype=torch.long)  # tensors of 34 MB, which glibc gives back at once
    with torch.no_grad():
        model(ids[:, :16], logits_to_keep=1)  # what is loaded on first use
        before = start_afresh()
        model(ids, logits_to_keep=1)
    grown = taken(before)
    plan = memory_plan(config, torch.float32, batch=64)
    planned = plan.cache + plan.activations
    report_table("Memory plan", [{"case": "process", "alive MB": grown / 1e6, "planned MB": planned / 1e6}])
    assert grown == pytest.approx(planned, rel=0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_of_generation(report_table, unchecked_annotations, dtype):
    """Where the vocabulary is what is large: one token each for many short prompts."""
    config = PersimmonConfig.tiny(vocab_size=50_000, pad_token_id=None)
    model = PersimmonForCausalLM(config).to(dtype).eval()
    prompts = torch.ones(64, 2, dtype=torch.long)
    with LiveTensors() as live:
        model.generate(prompts, max_new_tokens=1, engine="plain")
    planned = activation_bytes(config, dtype, positions=2, batch=64)
    report_table("Memory plan", [{"case": "generate", "alive MB": live.most / 1e6, "planned MB": planned / 1e6}])
    assert 0.98 * live.most <= planned <= 1.25 * live.most


@pytest.mark.gpu
def test_activations_against_the_allocator(report_table):
    """What CUDA's allocator gives out in a forward pass of two of the 8B model's layers."""
    config = PersimmonConfig.persimmon_8b(num_hidden_layers=2, vocab_size=1000)
    with torch.device("cuda"):
        model = PersimmonForCausalLM(config).to(torch.bfloat16)
    ids = torch.zeros(1, 16384, dtype=torch.long, device="cuda")
    with torch.no_grad():
        model(ids[:, :16], logits_to_keep=1)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model(ids, logits_to_keep=1)
    grown = torch.cuda.max_memory_allocated() - before
    plan = memory_plan(config, torch.bfloat16)
    planned = plan.cache + plan.activations
    report_table("Memory plan", [{"case": "CUDA", "alive MB": grown / 1e6, "planned MB": planned / 1e6}])
    assert grown == pytest.approx(planned, rel=0.2)


# Placing


def hand_made(**changes) -> MemoryPlan:
    """Ten bytes a module (but the final norm's none), two of cache a layer, five for a forward pass: easily added."""

    class ByHand(MemoryPlan):
        modules = {"model.embed_tokens": 10, "model.layers.0": 10, "model.layers.1": 10, "model.layers.2": 10,
                   "model.final_layernorm": 0, "lm_head": 10}  # fmt: skip
        cache, activations, weights = 6, 5, 50

    return ByHand(PersimmonConfig.tiny(num_hidden_layers=3, **changes), torch.float32, 1, 1)


EMBED, ZERO, ONE, TWO, NORM, HEAD = hand_made().modules


def test_modules_add_up_to_the_weights():
    for config in (PERSIMMON_8B, PersimmonConfig.tiny(tie_word_embeddings=True), PersimmonConfig.tiny()):
        plan = memory_plan(config, torch.bfloat16)
        assert sum(plan.modules.values()) == sum(plan.parts.values()) == plan.weights
        with torch.device("meta"):
            model = PersimmonForCausalLM(config)
        for name, size in plan.modules.items():
            if not (config.tie_word_embeddings and name == "lm_head"):
                assert size == 2 * sum(parameter.numel() for parameter in model.get_submodule(name).parameters())


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        # 50 of weights, 6 of cache and 5 to work with
        ({0: 61}, {0: [EMBED, ZERO, ONE, TWO, NORM, HEAD]}),
        # 10 + 12 + 5 and 12 + 12 + 10 + 5
        ({0: 27, 1: 39}, {0: [EMBED, ZERO], 1: [ONE, TWO, NORM, HEAD]}),
        ({0: 26, 1: 51}, {0: [EMBED], 1: [ZERO, ONE, TWO, NORM, HEAD]}),
        # 10 + 12 + 5; nothing goes into 15; the rest is for the third
        ({"cuda:0": 38, "cuda:1": 15, "cuda:2": 39}, {"cuda:0": [EMBED, ZERO], "cuda:2": [ONE, TWO, NORM, HEAD]}),
        # 10 + 12 + 12 stay; what visits needs 10, its cache 2, the pass 5
        ({0: 51, "cpu": 20}, {0: [EMBED, ZERO, ONE], "cpu": [TWO, NORM, HEAD]}),
        ({0: 50, "cpu": 99}, {0: [EMBED, ZERO], "cpu": [ONE, TWO, NORM, HEAD]}),
        ({0: 50, "cpu": 25, "disk": 99}, {0: [EMBED, ZERO], "cpu": [ONE, TWO, NORM], "disk": [HEAD]}),
        # the CPU computes where there is nothing else
        ({"cpu": 61}, {"cpu": [EMBED, ZERO, ONE, TWO, NORM, HEAD]}),
        ({"cpu": 60, "disk": 99}, {"cpu": [EMBED, ZERO, ONE], "disk": [TWO, NORM, HEAD]}),
    ],
)
def test_layers_are_placed_in_order(devices, expected):
    plan = hand_made()
    device_map = plan.place(devices)
    assert list(device_map) == [EMBED, ZERO, ONE, TWO, NORM, HEAD]
    assert {place: [n for n, d in device_map.items() if d == place] for place in expected} == expected
    computing = [device for device in devices if device not in ("cpu", "disk")] or ["cpu"]
    assert plan.fits(devices) == set(device_map.values()).issubset(computing)


@pytest.mark.parametrize(
    "devices", [{0: 60}, {0: 27, 1: 38}, {0: 30, "cpu": 99}, {0: 51, "cpu": 19}, {0: 9, 1: 49, "cpu": 99}, {}]
)
def test_what_does_not_fit_is_said(devices):
    assert not hand_made().fits(devices)
    with pytest.raises(ValueError, match="^50 bytes of weights, 6 bytes of cache and 5 bytes for .* find no place on "):
        hand_made().place(devices)


def test_tied_tables_share_a_device():
    plan = hand_made(tie_word_embeddings=True)
    assert plan.place({0: 27, 1: 99})[HEAD] == plan.place({0: 27, 1: 99})[EMBED] == 0


def test_dropped_rows():
    """70,000 rows of 4,096 numbers of two bytes, in two tables; in one where they are tied."""
    whole, fewer = (
        memory_plan(PERSIMMON_8B, torch.bfloat16),
        memory_plan(PERSIMMON_8B, torch.bfloat16, drop_rows=70_000),
    )
    assert whole.weights - fewer.weights == 2 * 70_000 * 4096 * 2
    assert (whole.cache, whole.activations) == (fewer.cache, fewer.activations)
    tied = PersimmonConfig.tiny(tie_word_embeddings=True)
    saved = memory_plan(tied, torch.float32).weights - memory_plan(tied, torch.float32, drop_rows=28).weights
    assert saved == 28 * 64 * 4
    with pytest.raises(ValueError, match="drop_rows is 128; the tables have 128 rows"):
        memory_plan(tied, torch.float32, drop_rows=128)


def test_the_8b_model_on_common_cards():
    """In bfloat16: 18.8 GB of weights, 9.7 GB of cache at 16k, 2.3 GB (17 x 4096 numbers a position) to read them."""
    plan = memory_plan(PERSIMMON_8B, torch.bfloat16)
    assert plan.activations == 16384 * 17 * 4096 * 2
    assert plan.peak == plan.weights + plan.cache + plan.activations == 30_739_728_384
    assert [plan.fits({0: card}) for card in (24e9, 48e9)] == [False, True]
    short = memory_plan(PERSIMMON_8B, torch.bfloat16, context=2048)
    assert [short.fits({0: card}) for card in (16e9, 24e9)] == [False, True]
    device_map = short.place({0: 16e9, "cpu": 64e9})
    assert sum(short.modules[name] for name, place in device_map.items() if place == 0) < 16e9
