"""What is sent and held, on paper, counted on two processes and on the wire, and in a simulation of more of them."""

import math
import os
import socket
import struct
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.distributed import traffic
from persimmon_lab.distributed.learner import Rows, ShardedLearner
from persimmon_lab.distributed.memory import WAYS, rank_memory
from persimmon_lab.distributed.plan import shard
from persimmon_lab.distributed.world import World, joined
from persimmon_lab.fitting import memory_plan
from tests.distributed.ranks import on_ranks

CONFIG = PersimmonConfig.tiny(vocab_size=512, num_hidden_layers=3, num_attention_heads=8, max_position_embeddings=512)
CHECK = traffic.Message(traffic.SUM, 48)
LOSS = traffic.Message(traffic.SUM, 8)
BYTES_SENT, SIZE = 200, 256  # tcpi_bytes_sent in Linux's struct tcp_info, since 4.19


def model():
    return PersimmonForCausalLM(CONFIG, torch.Generator().manual_seed(0))


def shapes():
    return {name: tuple(weight.shape) for name, weight in model().named_parameters()}


def written_to_sockets():
    """Bytes that this process has sent by TCP, as the kernel counts them."""
    total = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(descriptor))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_STREAM:
                    told = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SIZE)
                    total += struct.unpack_from("Q", told, BYTES_SENT)[0]
        except OSError:  # closed meanwhile
            continue
    return total


def kinds(messages):
    return Counter((message.kind, message.nbytes) for message in messages)


def measured(rank):
    with joined("cpu") as world, torch.no_grad():
        cut = shard(model(), world.mesh)
        ids = torch.arange(4 * 256).reshape(4, 256) % 500
        cut(ids[:, :4])
        before = written_to_sockets()
        with traffic.counted() as reading:
            cut(ids, logits_to_keep=2)
        wire = written_to_sockets() - before
        begun = time.monotonic()
        with traffic.timed() as spans:
            cut(ids, logits_to_keep=2)
        stamps = [begun, *(stamp for span in spans for stamp in span), time.monotonic()]
        assert len(spans) >= len(reading) and stamps == sorted(stamps)
        cached = cut(ids[:, :-1], use_cache=True).past_key_values
        with traffic.counted() as writing:
            cut(ids[:, -1:], past_key_values=cached, logits_to_keep=1)
        with torch.enable_grad():
            learner = ShardedLearner(model(), world, dtype=torch.float32, matrix_rate=None, rate=1e-3, weight_decay=0.0)
            rows = Rows(ids[:, :-1], ids[:, 1:])
            learner.add_gradients([rows])
            learner.step(1.0)
            before = written_to_sockets()
            with traffic.counted() as learning:
                learner.add_gradients([rows])
            trained = written_to_sockets() - before
    return reading, wire, writing, learning, trained


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux what was sent")
def test_bytes_counted_on_two_processes_are_those_of_the_formula(report_table):
    for rank, (reading, wire, writing, learning, trained) in enumerate(on_ranks(measured)):
        formula = traffic.tensor_parallel(CONFIG, 256, batch=4, kept=2)
        assert kinds(reading) == kinds([*formula, CHECK])
        assert kinds(writing) == kinds([*traffic.tensor_parallel(CONFIG, 1, batch=4), CHECK])
        sent = traffic.sent(reading, 2)
        assert sent <= wire < 1.02 * sent
        formula = [*traffic.fully_sharded(shapes(), 2), LOSS]
        assert kinds(learning) == kinds(formula)
        # gloo makes a whole sum where each is to keep a part of it.
        by_gloo = [replace(one, kind=traffic.SUM) if one.kind == traffic.SCATTER else one for one in learning]
        sent = traffic.sent(by_gloo, 2)
        assert sent <= trained < 1.02 * sent
        report_table(
            "Bytes that a rank of two sends, on paper and by the kernel's count",
            [{"rank": rank, "reading": traffic.sent(reading, 2), "on the wire": wire, "a step of training": sent,
              "on the wire ": trained}],
        )  # fmt: skip


@pytest.fixture(params=[2, 4, 8])
def simulated(request):
    """A world in which this process is rank 0 and nobody else is there: what is sent goes nowhere."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=request.param)
    yield World(0, request.param, torch.device("cpu"), init_device_mesh("cpu", (request.param,)))
    dist.destroy_process_group()


def held(network):
    return sum(weight.to_local().numel() if hasattr(weight, "to_local") else weight.numel()
               for weight in network.parameters())  # fmt: skip


def test_a_simulation_of_more_ranks_sends_and_holds_what_the_formulas_say(simulated):
    ranks = simulated.size
    cut = shard(model(), simulated.mesh)
    for hook in list(cut._forward_pre_hooks):  # nobody answers the question whether all ranks read the same
        del cut._forward_pre_hooks[hook]
    with traffic.counted() as reading, torch.no_grad():
        cut(torch.zeros(2, 8, dtype=torch.long))
    assert kinds(reading) == kinds(traffic.tensor_parallel(CONFIG, 8, batch=2, kept=8))
    plan = rank_memory(CONFIG, ranks, "tensor", dtype=torch.float32)
    assert plan.weights == held(cut) * 4
    learner = ShardedLearner(model(), simulated, dtype=torch.float32, matrix_rate=None, rate=1e-3, weight_decay=0.0)
    rows = Rows(torch.zeros(ranks, 8, dtype=torch.long), torch.zeros(ranks, 8, dtype=torch.long))
    with traffic.counted() as learning:
        learner.add_gradients([rows])
    assert kinds(learning) == kinds([*traffic.fully_sharded(shapes(), ranks), LOSS])
    learner.step(1.0)
    plan = rank_memory(CONFIG, ranks, "sharded", dtype=torch.float32, training=True)
    assert plan.weights == plan.gradients == held(learner.model) * 4
    moments = [value for state in learner.optimisers[0].state.values() for value in state.values() if value.ndim]
    assert plan.moments == sum(moment.to_local().nbytes for moment in moments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_rank_holds_what_the_memory_plan_of_one_device_says(dtype):
    alone = memory_plan(CONFIG, dtype, batch=3, context=100)
    for way in WAYS:
        plan = rank_memory(CONFIG, 1, way, dtype=dtype, batch=3, context=100)
        assert (plan.weights, plan.cache, plan.activations, plan.total) == (
            alone.weights, alone.cache, alone.activations, alone.peak,
        )  # fmt: skip


def test_the_ways_differ_as_they_should():
    config = PersimmonConfig()  # the 8B's
    plans = {way: rank_memory(config, 8, way, batch=8) for way in WAYS}
    whole = rank_memory(config, 1, "copies", batch=8)
    assert plans["copies"].weights == whole.weights and plans["copies"].cache * 8 == whole.cache
    assert whole.weights / 8 < plans["tensor"].weights < 1.001 * whole.weights / 8
    assert plans["tensor"].cache * 8 == whole.cache
    assert plans["pipeline"].weights > 1.5 * whole.weights / 8  # the tables of 262,144 rows stand at its ends
    learning = rank_memory(config, 8, "sharded", training=True)
    numbers = whole.weights / 2
    assert learning.total - learning.gathered - learning.activations == pytest.approx(numbers * 16 / 8, rel=1e-3)
    layer = (numbers - 2 * config.vocab_size * config.hidden_size) / config.num_hidden_layers
    tables = 2 * config.vocab_size * config.hidden_size
    assert learning.gathered == pytest.approx(2 * (tables + 2 * layer), rel=1e-3)


def test_tied_tables_stand_at_both_ends_of_a_pipeline_and_once_else():
    tied = replace(CONFIG, tie_word_embeddings=True)
    table = CONFIG.vocab_size * CONFIG.hidden_size
    for way, spared in (("copies", table), ("sharded", table / 3), ("pipeline", 0)):
        ranks = 3
        difference = rank_memory(CONFIG, ranks, way, dtype=torch.float32).weights
        difference -= rank_memory(tied, ranks, way, dtype=torch.float32).weights
        assert difference == pytest.approx(4 * spared, abs=4 * CONFIG.hidden_size), way


def test_what_cannot_be_split_is_refused():
    for ranks, way, told in ((2, "rows", "choose one of"), (0, "copies", "0 ranks"), (4, "pipeline", "3 layers"),
                             (3, "tensor", "num_attention_heads")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            rank_memory(CONFIG, ranks, way)


def test_a_ring_sends_what_it_has_to():
    """By doing it: P ranks with P parts each, passed on to the next rank, P - 1 times for each round."""
    for ranks in (2, 3, 8):
        numbers = torch.randn(ranks, ranks, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        held, sent = [list(parts) for parts in numbers], 0
        for step in range(ranks - 1):  # a part grows on its way round
            moving = [held[rank][(rank - step) % ranks] for rank in range(ranks)]
            for rank in range(ranks):
                here = (rank - 1 - step) % ranks
                held[rank][here] = held[rank][here] + moving[(rank - 1) % ranks]
            sent += moving[0].nbytes
        scattered = sent
        for step in range(ranks - 1):  # and then goes round whole
            moving = [held[rank][(rank + 1 - step) % ranks] for rank in range(ranks)]
            for rank in range(ranks):
                held[rank][(rank - step) % ranks] = moving[(rank - 1) % ranks]
            sent += moving[0].nbytes
        assert all(torch.allclose(torch.stack(parts), numbers.sum(dim=0)) for parts in held)
        whole = numbers[0].nbytes
        assert traffic.Message(traffic.SUM, whole).sent(ranks) == sent
        assert math.isclose(traffic.Message(traffic.SCATTER, whole).sent(ranks), scattered)
        assert math.isclose(traffic.Message(traffic.GATHER, whole).sent(ranks), sent - scattered)
