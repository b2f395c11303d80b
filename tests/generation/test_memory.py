"""What is refused before it begins, and what is left behind by what was interrupted."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab import DynamicCache, PersimmonConfig, StaticCache, footprint
from persimmon_lab.footprint import activation_bytes
from persimmon_lab.generation import GenerationConfig, context, memory
from persimmon_lab.generation.engines.reserved_cache import ReservedCache

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])


@pytest.fixture(autouse=True)
def no_trifle(monkeypatch, request):
    """Tiny models need little; here it is asked about all the same."""
    if "trifle" not in request.node.name:
        monkeypatch.setattr(memory, "TRIFLE", 0)


@pytest.fixture
def free(monkeypatch):
    """free(bytes): what the CPU has left."""
    return lambda size: monkeypatch.setattr(footprint, "free_memory", lambda: {"cpu": size})


# Memory


def test_a_batch_that_does_not_fit_is_refused_before_anything_is_read(tiny_model, free):
    model, calls = tiny_model(), []
    model.register_forward_pre_hook(lambda *call: calls.append(call))
    free(1_000)
    with pytest.raises(MemoryError, match=r"7 tokens and 9 new ones.*cache 16\.4 kB.*free.*prefill_chunk_size"):
        model.generate(IDS, max_new_tokens=9)
    assert calls == []
    free(50_000_000)
    assert model.generate(IDS, max_new_tokens=9, eos_token_id=None).shape == (1, 16)


def test_just_enough_is_enough(tiny_model, free):
    model, settings = tiny_model(), {"max_new_tokens": 9, "eos_token_id": None}
    needed = sum(memory.memory_needed(model, GenerationConfig(), 1, 7, 9).values())
    free(needed)
    model.generate(IDS, **settings)
    free(needed - 1)
    with pytest.raises(MemoryError):
        model.generate(IDS, **settings)


def test_the_cache_is_counted_as_it_will_be(tiny_model):
    """By running: bytes of the cache that a generation leaves behind, with one position more that it ends with."""
    model = tiny_model(eos_token_id=None)
    for settings in ({"num_beams": 3}, {"do_sample": True, "num_return_sequences": 2}, {}):
        config = GenerationConfig(**settings)
        output = model.generate(
            IDS.repeat(2, 1), max_new_tokens=9, return_dict_in_generate=True, engine="plain", seed=0, **settings
        )
        held = sum(tensor.nbytes for pair in output.past_key_values for tensor in pair)
        assert memory.memory_needed(model, config, 2, 7, 9)["cache"] == held // 15 * 16
    assert memory.memory_needed(model, GenerationConfig(use_cache=False), 2, 7, 9)["cache"] == 0


def test_what_a_given_cache_holds_already_is_not_needed_again(tiny_model, free):
    model, cache = tiny_model(), DynamicCache()
    model(IDS[:, :6], past_key_values=cache, use_cache=True)
    needed = sum(memory.memory_needed(model, GenerationConfig(), 1, 7, 9).values())
    held = sum(tensor.nbytes for pair in cache for tensor in pair)
    free(needed - held)
    model.generate(IDS, max_new_tokens=9, past_key_values=cache)


@pytest.mark.parametrize(
    ("settings", "answers", "positions", "rows", "mask"),
    [
        ({}, 2, 700, 2, 0),
        ({"padded": True}, 2, 700, 2, 2 * 700 * 700),
        ({"prefill_chunk_size": 60}, 2, 60, 2, 2 * 60 * 700),
        ({"prefill_chunk_size": 5000}, 2, 700, 2, 0),
        ({"num_beams": 3, "num_return_sequences": 2}, 6, 700, 2, 0),
        # a step of the beams is more than the prompt
        ({"num_beams": 800, "prefill_chunk_size": 700}, 1600, 1, 1600, 0),
        ({"do_sample": True, "num_return_sequences": 3, "use_cache": False}, 6, 709, 6, 0),
    ],
    ids=str,
)
def test_what_a_generation_needs(settings, answers, positions, rows, mask):
    """A pass over `positions` of `rows`, a mask's numbers in bfloat16 twice and as a bool, the scores of an answer."""
    model = SimpleNamespace(config=PersimmonConfig.tiny(), dtype=torch.bfloat16)
    padded = settings.get("padded", False)
    config = GenerationConfig(**{name: value for name, value in settings.items() if name != "padded"})
    needed = memory.memory_needed(model, config, 2, 700, 9, padded)
    assert needed["forward"] == activation_bytes(model.config, model.dtype, positions, rows) + 5 * mask
    scores = memory.SCORES_OF_BEAMS if config.num_beams > 1 else memory.SCORES
    assert needed["choice"] == scores * answers * 128 * 4
    assert needed.get("reorder") == (needed["cache"] // 2 if config.num_beams > 1 else None)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_on_a_gpu_what_torch_holds_unused_is_free(monkeypatch, device):
    for name, value in {"current_device": 1, "memory_reserved": 300, "memory_allocated": 100}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    model = SimpleNamespace(config=PersimmonConfig.tiny(), dtype=torch.float32, device=device)
    needed = sum(memory.memory_needed(model, GenerationConfig(), 1, 7, 9).values())
    free = {"cpu": 0, "cuda:0": 0, "cuda:1": needed - 200}
    monkeypatch.setattr(footprint, "free_memory", lambda: free)
    memory.require_memory(model, GenerationConfig(), 1, 7, 9)
    free["cuda:1"] -= 1
    with pytest.raises(MemoryError):
        memory.require_memory(model, GenerationConfig(), 1, 7, 9)


def test_padding_is_counted_and_what_a_cache_holds_beyond_its_share_is_not(tiny_model, free):
    model, mask = tiny_model(), torch.ones_like(IDS)
    mask[0, 0] = 0
    needed = memory.memory_needed(model, GenerationConfig(), 1, 7, 9, padded=True)
    free(sum(needed.values()) - 1)
    with pytest.raises(MemoryError):
        model.generate(IDS, attention_mask=mask, max_new_tokens=9)
    free(sum(needed.values()) - needed["cache"] - 1)
    large = DynamicCache.from_legacy_cache(((torch.zeros(1, 1, 5, 10_000),) * 2,))
    with pytest.raises(MemoryError):
        memory.require_memory(model, GenerationConfig(), 1, 7, 9, large, padded=True)


def test_what_is_free_is_not_read_for_a_trifle(tiny_model, monkeypatch):
    def read(device):
        raise AssertionError("read for a trifle")

    monkeypatch.setattr(memory, "free_on", read)
    model = tiny_model()
    assert model.generate(IDS, max_new_tokens=1).shape == (1, 8)
    rows = 2 * memory.TRIFLE // sum(memory.memory_needed(model, GenerationConfig(), 1, 7, 1).values())
    with pytest.raises(AssertionError, match="trifle"):
        memory.require_memory(model, GenerationConfig(), rows, 7, 1)


def test_where_the_system_cannot_say_nothing_is_refused(tiny_model, monkeypatch):
    monkeypatch.setattr(footprint, "free_memory", dict)
    assert tiny_model().generate(IDS, max_new_tokens=1).shape == (1, 8)


# Chunks


@pytest.mark.parametrize("chunk", [1, 3, 6, 7, 100])
def test_reading_in_chunks_changes_nothing(tiny_model, padded_prompts, chunk):
    ids, mask = padded_prompts
    model = tiny_model(eos_token_id=None)
    expected = model.generate(ids, attention_mask=mask, max_new_tokens=12)
    assert torch.equal(model.generate(ids, attention_mask=mask, max_new_tokens=12, prefill_chunk_size=chunk), expected)
    embeds = model.get_input_embeddings()(ids).detach()
    from_embeds = model.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=12, prefill_chunk_size=chunk)
    assert torch.equal(from_embeds, expected[:, 7:])
    beams = {"attention_mask": mask, "max_new_tokens": 6, "num_beams": 2}
    assert torch.equal(model.generate(ids, prefill_chunk_size=chunk, **beams), model.generate(ids, **beams))


def test_chunks_are_as_long_as_asked(tiny_model):
    model, lengths = tiny_model(eos_token_id=None), []
    model.model.layers[0].register_forward_pre_hook(lambda module, arguments: lengths.append(arguments[0].shape[1]))
    cache = DynamicCache()
    model(IDS[:, :2], past_key_values=cache, use_cache=True)
    model.generate(IDS, max_new_tokens=3, prefill_chunk_size=2, past_key_values=cache, engine="plain")
    assert lengths == [2, 2, 2, 1, 1, 1]


def test_a_long_prompt_shows_a_bar(tiny_model, capsys, monkeypatch):
    def shows(**options):
        tiny_model().generate(IDS, max_new_tokens=1, **options)
        return "reading the prompt" in capsys.readouterr().err

    assert not shows(prefill_chunk_size=3)
    assert shows(prefill_chunk_size=3, progress=True)
    assert not shows(progress=True), "one chunk is read at once"
    monkeypatch.setattr(context, "LONG_PROMPT", 7)
    assert shows(prefill_chunk_size=3)
    assert not shows(prefill_chunk_size=3, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"prefill_chunk_size": 0}, "prefill_chunk_size=0"), ({"prefill_chunk_size": 4, "use_cache": False}, "use_cache")],
)
def test_chunks_that_cannot_be(tiny_model, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_model().generate(IDS, **settings)


# Interruptions


@pytest.mark.parametrize(
    ("engine", "make_cache"),
    [
        ("plain", DynamicCache),
        ("plain", lambda: StaticCache(30)),
        ("fast", DynamicCache),
        ("fast", lambda: ReservedCache(2, 5)),
        ("compiled", lambda: ReservedCache(2, 30)),
    ],
    ids=["dynamic", "static", "fast", "reserved", "fixed shapes"],
)
@pytest.mark.parametrize(
    ("chunk", "at_call", "held"),
    [(None, 0, 3), (None, 2, 8), (3, 1, 3), (3, 3, 8)],
    ids=["prompt", "step", "chunk", "late"],
)
def test_an_interrupted_pass_leaves_model_and_cache_usable(
    tiny_model, monkeypatch, engine, make_cache, chunk, at_call, held
):
    """Ctrl-C while the second layer attends, when the first has already filled its part of the cache."""
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    model, cache, calls = tiny_model(eos_token_id=None), make_cache(), []
    settings = {"max_new_tokens": 6, "prefill_chunk_size": chunk, "engine": engine}
    expected = model.generate(IDS, **settings | {"engine": "plain"})
    with torch.no_grad():
        model(expected[:, :3], past_key_values=cache, use_cache=True)
        whole = model(expected[:, :held]).past_key_values

    def interrupt(*arguments, **more):
        calls.append(1)
        if len(calls) == 2 * at_call + 2:
            raise KeyboardInterrupt
        return attend(*arguments, **more)

    attend = F.scaled_dot_product_attention
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(F, "scaled_dot_product_attention", interrupt)
        model.generate(IDS, past_key_values=cache, **settings)
    for layer, (kept, wanted) in enumerate(zip(cache.to_legacy_cache(), whole, strict=True)):
        assert cache.get_seq_length(layer) == held
        assert all(torch.allclose(a, b, atol=2e-5) for a, b in zip(kept, wanted, strict=True))
    assert torch.equal(model.generate(IDS, **settings), expected)
    cache.crop(6)
    assert torch.equal(model.generate(IDS, past_key_values=cache, **settings), expected)


def test_nan_leaves_a_given_cache_as_it_was(tiny_model):
    model, cache = tiny_model(), DynamicCache()
    model(IDS[:, :3], past_key_values=cache, use_cache=True)
    weight = model.lm_head.weight.data[9, 0].clone()
    model.lm_head.weight.data[9, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="position 7 of row 0"):
        model.generate(IDS, past_key_values=cache, engine="plain")
    assert cache.get_seq_length() == 3
    model.lm_head.weight.data[9, 0] = weight
    assert torch.equal(model.generate(IDS, past_key_values=cache, engine="plain"), model.generate(IDS, engine="plain"))


def test_a_cancelled_generation_goes_on_from_its_cache(tiny_model):
    model, cache = tiny_model(eos_token_id=None), DynamicCache()
    begun = model.generate(IDS, max_new_tokens=9, past_key_values=cache, on_token=lambda step: True)
    assert begun.shape == (1, 8)
    expected = model.generate(IDS, max_new_tokens=9)
    assert torch.equal(model.generate(begun, max_new_tokens=8, past_key_values=cache), expected)


def test_minus_infinity_is_a_token_ruled_out(tiny_model):
    model = tiny_model(eos_token_id=None)
    first = int(model.generate(IDS, max_new_tokens=1)[0, -1])

    def never(sequences, scores):
        return scores.index_fill(1, torch.tensor([first]), -torch.inf)

    assert first not in model.generate(IDS, max_new_tokens=9, logits_processor=[never])[0, 7:]


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of resident memory")
def test_beams_take_no_more_than_was_estimated(report_table):
    """In a process of its own: scores of all beams, their sorting, and the layer of the cache that is moved."""
    command = [sys.executable, "-m", "tests.beam_peaks"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    report_table(
        "300 beams: memory", [{"of": what, "estimate, MB": n / 1e6, "MB": p / 1e6} for what, (n, p) in found.items()]
    )
    needed, peak = found["plain"]  # the first, which finds no room of an earlier one
    assert needed / 2 < peak
    # Kernels' workspaces are not counted, nor what the allocator holds unused: seen from 2% below to 11% above.
    assert all(peak < 1.25 * needed for needed, peak in found.values()), found
