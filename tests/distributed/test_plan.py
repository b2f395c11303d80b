"""A model cut over two processes says what the whole one says."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor.parallel import parallelize_module

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, load_mini
from persimmon_lab.distributed.plan import check_divides, plan, shard
from persimmon_lab.distributed.world import joined
from persimmon_lab.generation.engines.choosing import why_not_fast
from tests.distributed.ranks import on_ranks
from tests.models import ids, tiny

VARIANTS = (
    {},
    {"qk_layernorm": False},  # without it nothing stumbles over heads of the wrong width
    {"vocab_size": 131},  # which two ranks cannot share equally
    {"pad_token_id": 0},
    {"tie_word_embeddings": True},
    {"attn_implementation": "eager"},
)


@torch.no_grad()
def compared(rank):
    found = {}
    with joined("cpu") as world:
        for changes in VARIANTS:
            whole, cut = tiny(**changes), shard(tiny(**changes), world.mesh)
            batch = ids(2, 9)
            batch[0, :3] = whole.config.vocab_size - 1  # in the last rank's rows of the table
            mask = torch.ones_like(batch)
            mask[1, :4] = 0
            found[str(changes)] = [
                float((cut(batch).logits - whole(batch).logits).abs().max()),
                float((cut(batch, mask).logits - whole(batch, mask).logits)[mask.bool()].abs().max()),
            ]
        alone = parallelize_module(tiny(), world.mesh, plan())
        found["the plan alone"] = [float((alone(batch).logits - tiny()(batch).logits).abs().max())]
        heads = {key.shape[1] for key, _ in cut(batch, use_cache=True).past_key_values}
        held = sum(getattr(weight, "_local_tensor", weight).numel() for weight in cut.parameters())
    return found, heads, held / tiny().num_parameters()


def test_the_ranks_together_say_what_the_whole_model_says():
    for found, heads, share in on_ranks(compared):
        assert len(found) == len(VARIANTS) + 1
        for changes, differences in found.items():
            assert max(differences) < 1e-5, changes
        assert heads == {2}
        assert 0.5 < share < 0.54  # half of everything but norms and biases


@torch.no_grad()
def written(rank):
    with joined("cpu") as world:
        whole, tokenizer = load_mini(torch_dtype=torch.float32)
        cut = shard(load_mini(torch_dtype=torch.float32)[0], world.mesh)
        prompts = tokenizer(["The king said that", "human: Hello!\n\nadept:"], return_tensors="pt", padding=True)
        drawn = dict(do_sample=True, temperature=1.5, seed=7)
        asked = [dict(max_new_tokens=16, **more) for more in ({}, drawn, {"num_beams": 2}, {"prefill_chunk_size": 3})]
        texts = [
            [model.generate(**prompts, engine="plain", **settings).tolist() for model in (whole, cut)]
            for settings in asked
        ]
        default = cut.generate(**prompts, max_new_tokens=16).tolist()
        logits = whole(**prompts).logits.topk(2).values
        refused = why_not_fast(cut)
        with pytest.raises(ValueError, match="DTensor"):
            cut.generate(**prompts, max_new_tokens=2, engine="fast")
    return texts, default, float((logits[..., 0] - logits[..., 1]).min()), refused


def test_generate_gives_on_every_rank_what_one_process_gives():
    ranks = on_ranks(written)
    for texts, default, _, refused in ranks:
        for whole, cut in texts:
            assert whole == cut
        assert default == texts[0][0]
        assert "DTensor" in refused
    assert ranks[0] == ranks[1]


def refusals(rank):
    told = []
    with joined("cpu") as world:
        cut = shard(tiny(), world.mesh)
        different, same = ids(1, 5) + rank, ids(1, 5)
        swapped = same.flip(1) if rank else same  # the same sum, another order
        trained = tiny()
        for act in (
            lambda: cut(different),
            lambda: cut(swapped),
            lambda: cut(same[:, : 4 + rank]),
            lambda: cut(input_ids=different),
            lambda: cut.generate(same, max_new_tokens=30, do_sample=True, temperature=9.0, seed=rank),
            lambda: cut(same, output_attentions=True),
            lambda: cut.train()(same),
            lambda: shard(trained, world.mesh)(same).logits.sum().backward(),
        ):
            with pytest.raises((ValueError, RuntimeError)) as error:
                act()
            cut.eval()
            told.append(str(error.value))
        trained.extra = nn.Linear(2, 2)
        with pytest.raises(ValueError, match="extra"):
            shard(trained, world.mesh)
        with pytest.raises(RuntimeError, match="already"), joined("cpu"):
            pass
    return told


def test_what_would_go_wrong_in_silence_is_refused_on_every_rank():
    for told in on_ranks(refusals):
        assert all("different inputs" in message for message in told[:5])
        assert "output_attentions" in told[5]
        assert "does not train" in told[6]
        assert "grad" in told[7]


def test_heads_and_neurons_have_to_be_whole():
    config = PersimmonConfig.tiny()
    check_divides(config, 2)
    check_divides(config, 4)
    with pytest.raises(ValueError, match=r"num_attention_heads is 4, and 3 ranks.*start 1, 2, 4 processes"):
        check_divides(config, 3)
    with pytest.raises(ValueError, match=r"intermediate_size is 257, and 2 ranks"):
        check_divides(PersimmonConfig.tiny(intermediate_size=257), 2)


def test_the_plan_names_every_matrix_of_the_model_once():
    names = [name for name, module in tiny().named_modules() if isinstance(module, nn.Linear | nn.Embedding)]
    layer_free = {name.replace(".0.", ".*.").replace(".1.", ".*.") for name in names}
    assert layer_free == set(plan())
    assert PersimmonForCausalLM(PersimmonConfig.tiny()).config.num_hidden_layers == 2


def test_alone_it_is_a_world_of_one():
    with joined("cpu") as world:
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        whole = tiny()
        batch = ids(2, 7)
        with torch.no_grad():
            right = whole(batch).logits
            assert (shard(whole, world.mesh)(batch).logits - right).abs().max() < 1e-6


@pytest.mark.parametrize("device", ["mps", "cuda:1", "meta", "nowhere"])
def test_devices_that_several_processes_cannot_share_are_refused(device):
    with pytest.raises(ValueError, match="local rank"), joined(device):
        pass
