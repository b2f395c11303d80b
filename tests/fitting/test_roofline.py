"""What a step moves and computes, counted a second time on a model at work; the machine's limits only by their kind."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from persimmon_lab import PersimmonConfig
from persimmon_lab.fitting import roofline
from persimmon_lab.fitting.roofline import bytes_per_step, flops, intensity, measure_bandwidth, measure_matrix_rate
from persimmon_lab.generation.engines.packed import can_pack
from tests.models import ids, tiny


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("batch", "past"), [(1, 0), (1, 9), (3, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_equal_the_tensors_that_a_step_reads(dtype, batch, past, tied):
    model = tiny(tie_word_embeddings=tied).to(dtype)
    read = {name: parameter.nbytes for name, parameter in model.named_parameters()}
    table = read.pop("model.embed_tokens.weight")
    rows = table if tied else batch * model.config.hidden_size * dtype.itemsize
    cache = model(ids(batch, past)).past_key_values if past else ()
    held = sum(tensor.nbytes for layer in cache for tensor in layer)
    assert bytes_per_step(model.config, dtype, past, batch) == sum(read.values()) + rows + held


def counted(model, batch: int, new: int, past: int, logits: int) -> int:
    """torch's own count of a forward pass."""
    cache = model(ids(batch, past)).past_key_values if past else None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(ids(batch, new), past_key_values=cache, logits_to_keep=logits)
    return counter.get_total_flops()


@pytest.mark.parametrize("logits", [1, 4])
@pytest.mark.parametrize(("batch", "new", "past"), [(1, 1, 1), (2, 1, 7), (1, 6, 0), (3, 5, 4)])
def test_flops_equal_torchs_count(batch, new, past, logits):
    """Eager attention multiplies with the masked keys as well: those are no work that must be done."""
    model = tiny(attn_implementation="eager", num_attention_heads=2, intermediate_size=96)
    masked = batch * new * (new - 1) // 2 * 4 * model.config.hidden_size * model.config.num_hidden_layers
    assert flops(model.config, new, past, batch, logits) + masked == counted(model, batch, new, past, logits)


def test_8b_on_paper():
    """16.65 GB and 16.6 GFLOP a token: one operation a byte, where a GPU could do two hundred."""
    config = PersimmonConfig.persimmon_8b()
    assert bytes_per_step(config, torch.bfloat16) == 2 * (8_323_433_472 + 4096)  # and a row of the embedding
    assert flops(config, new=1) == pytest.approx(2 * 8_323_433_472, rel=1e-3)
    assert intensity(config, torch.bfloat16) == pytest.approx(1, rel=1e-3)
    assert intensity(config, torch.bfloat16, new=1, past=2048) < intensity(config, torch.bfloat16, batch=8) < 8.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_limits_count_what_was_moved_and_multiplied(monkeypatch, dtype):
    """With a clock that says one millisecond for everything."""
    worked = []
    monkeypatch.setattr(roofline, "best_seconds", lambda work, *_: worked.append(work()) or 1e-3)
    for how in ("packed" if can_pack(dtype) else "plain", "plain"):
        assert measure_bandwidth(dtype, how=how, streamed=2**20) == 2**20 * 1000
        assert measure_matrix_rate(dtype, how=how, size=64) == 2 * 64**3 * 1000
    assert measure_bandwidth(dtype, how="copy", streamed=2**20) == 2 * 2**20 * 1000
    assert all((result == value).all() for result, value in zip(worked, [4096, 64, 4096, 64, 1]))
    assert {result.dtype for result in worked} == {dtype}


def test_the_best_repeat_counts_and_the_first_does_not(monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 15.0, 20.0, 23.0, 30.0, 34.0])
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: next(clock))
    assert roofline.best_seconds(lambda: None, torch.device("cpu"), repeats=3) == 3.0


def test_measures_something():
    assert 0 < measure_bandwidth(torch.float32, how="plain", streamed=2**22, repeats=1) < 1e14
    assert 0 < measure_matrix_rate(torch.float32, how="plain", size=64, repeats=1) < 1e16


def test_unknown_ways_are_named():
    with pytest.raises(ValueError, match="'fast'; choose one of 'packed', 'plain', 'copy'"):
        measure_bandwidth(torch.float32, how="fast")
    with pytest.raises(ValueError, match="'copy'; choose 'packed' or 'plain'"):
        measure_matrix_rate(torch.float32, how="copy")
    with pytest.raises(ValueError, match="not torch.float32 on meta: ask for 'plain'"):
        measure_bandwidth(torch.float32, "meta", how="packed")
    with pytest.raises(ValueError, match="not torch.float16 on cpu: ask for 'plain'"):
        measure_matrix_rate(torch.float16, how="packed")
