"""LoRA by peft on our own class: what learns, what comes out of merging, and what merging rounds away."""

import copy
import sys

import pytest
import torch

from persimmon_lab import PersimmonForCausalLM, load_mini
from persimmon_lab.finetuning import lora
from persimmon_lab.generation.scoring import score_tokens
from tests.models import ids, tiny

RANK, ALPHA = 3, 12.0


@pytest.fixture(scope="module", autouse=True)
def _peft():
    pytest.importorskip("peft")


def trained(model=None, steps=3, rate=1e-2, **settings):
    """An adapted model after a few steps, and the weights it began with."""
    model = model or tiny()
    before = copy.deepcopy(model.state_dict())
    adapted = lora.adapt(model, rank=RANK, alpha=ALPHA, **settings)
    learning = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=rate)
    for _ in range(steps):
        adapted(input_ids=ids(), labels=ids()).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return adapted.eval(), before


@torch.no_grad()
def logits(model):
    return model(input_ids=ids()).logits


def test_new_pairs_say_nothing_and_they_alone_learn():
    adapted = lora.adapt(tiny())
    assert torch.equal(logits(adapted), logits(tiny()))
    learning = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert learning and all(".lora_A." in name or ".lora_B." in name for name in learning)
    assert len(learning) == 2 * 2 * len(lora.TARGETS)  # two matrices, two layers


def test_the_update_is_alpha_over_rank_times_b_a_by_hand():
    adapted, before = trained()
    layers = adapted.base_model.model.model.layers
    pair = layers[1].mlp.dense_h_to_4h
    by_hand = ALPHA / RANK * (pair.lora_B["default"].weight @ pair.lora_A["default"].weight)
    found = lora.updates(adapted)
    assert len(found) == 8
    name = "model.layers.1.mlp.dense_h_to_4h.weight"
    torch.testing.assert_close(found[name], by_hand.detach())
    assert torch.linalg.matrix_rank(found[name]) <= RANK
    assert torch.equal(pair.base_layer.weight, before[name])


def test_merging_adds_the_updates_and_gives_our_own_class(tmp_path):
    adapted, before = trained()
    expected, found = logits(adapted), lora.updates(adapted)
    merged = lora.merge(adapted)
    assert type(merged) is PersimmonForCausalLM
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(weight, before[name] + found.get(name, 0.0))
    assert all(weight.requires_grad for weight in merged.parameters())
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(PersimmonForCausalLM.from_pretrained(tmp_path)), logits(merged))


def test_an_adapter_is_saved_whole_and_read_again(tmp_path):
    adapted, _ = trained()
    lora.save_adapter(adapted, tmp_path / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        path.name for path in (tmp_path / "adapter").iterdir()
    }
    again = lora.load_adapter(tiny(), tmp_path / "adapter")
    assert torch.equal(logits(again.eval()), logits(adapted))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(OSError):
        lora.save_adapter(adapted, tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "full"]


def test_the_seed_draws_the_pairs_and_nothing_else_is_drawn():
    model = tiny()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = lora.adapt(model, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = lora.adapt(tiny(), seed=1).state_dict(), lora.adapt(tiny(), seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_half_precision_loses_updates_in_proportion_to_its_steps():
    adapted, _ = trained(rate=1e-4)
    state = copy.deepcopy(adapted.state_dict())
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
    exact, single, half, brain = lora.merging_errors(adapted, ids(), dtypes)
    assert exact.error < 1e-6 and single.unmoved < 0.02 and single.error < 1e-3
    # A step of bfloat16 is eight times one of float16.
    assert 4 < brain.error / half.error < 10 and brain.unmoved > 0.5 > half.unmoved
    assert brain.kl > half.kl > single.kl
    assert all(torch.equal(weight, state[name]) for name, weight in adapted.state_dict().items())


def test_unmoved_and_error_by_hand():
    adapted, before = trained(rate=1e-4)
    (measured,) = lora.merging_errors(adapted, ids(), [torch.bfloat16])
    unmoved = moved = missing = length = 0.0
    for name, update in lora.updates(adapted).items():
        weight = before[name].bfloat16()
        after = (weight.float() + update).bfloat16()  # one rounding, of the sum
        unmoved += int(((after == weight) & (update != 0)).sum())
        moved += int((update != 0).sum())
        missing += float((after.double() - weight.double() - update.double()).square().sum())
        length += float(update.double().square().sum())
    assert measured.unmoved == pytest.approx(unmoved / moved)
    assert measured.error == pytest.approx((missing / length) ** 0.5)


def test_pairs_of_a_bfloat16_model_are_float32():
    adapted = lora.adapt(tiny().bfloat16())
    assert {weight.dtype for name, weight in adapted.named_parameters() if "lora_" in name} == {torch.float32}
    assert {weight.dtype for name, weight in adapted.named_parameters() if "lora_" not in name} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"rank": 0}, "rank is 0; give a whole number"),
        ({"alpha": -1.0}, "alpha is -1.0; give a number above 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"targets": ["q_proj"]}, "no linear module is called q_proj; there are dense, dense_4h_to_h"),
        ({"targets": []}, "no linear module is called nothing"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_changes(settings, told):
    model = tiny()
    with pytest.raises(ValueError, match=told):
        lora.adapt(model, **settings)
    assert model.state_dict().keys() == tiny().state_dict().keys()
    assert all(weight.requires_grad for weight in model.parameters())


def test_no_second_pairs_and_no_merging_of_what_has_none():
    model = tiny()
    adapted = lora.adapt(model)
    with pytest.raises(ValueError, match="adapters in it already"):
        lora.adapt(model)
    with pytest.raises(TypeError, match="PersimmonForCausalLM has no adapters"):
        lora.merge(tiny())
    with pytest.raises(ValueError, match="have not been trained"):
        lora.merging_errors(adapted, ids(), [torch.float32])


def test_a_bfloat16_run_is_merged_in_float32_and_rounded_once():
    adapted, before = trained(rate=1e-4)
    base = tiny()
    base.load_state_dict(before)
    low = lora.with_frozen_in(adapted, torch.bfloat16)
    exact = {name: (before[name] + update).bfloat16() for name, update in lora.updates(adapted).items()}
    merged = lora.merge_into(base, low, torch.bfloat16).state_dict()
    in_low = lora.merge(low).state_dict()

    def unmoved(found):
        """Of the weights that the updates take to another bfloat16, the share that stayed."""
        pairs = [(exact[name] != before[name].bfloat16(), found[name] == before[name].bfloat16()) for name in exact]
        return sum(int((m & s).sum()) for m, s in pairs) / sum(int(m.sum()) for m, _ in pairs)

    assert unmoved(merged) == 0 < unmoved(in_low)
    assert all(torch.equal(merged[name], weight) for name, weight in exact.items())
    with pytest.raises(ValueError, match="load it in float32"):
        lora.merge_into(tiny().bfloat16(), adapted, torch.bfloat16)


def test_whether_peft_is_there_is_found_before_it_is_needed(monkeypatch):
    assert lora.check_installed() is None
    monkeypatch.setitem(sys.modules, "peft", None)  # importing it fails as if it were not there
    with pytest.raises(ImportError, match=r"peft is not installed; pip install 'persimmon-lab\[lab\]' brings it"):
        lora.check_installed()


def test_merging_is_seen_by_the_engine_that_keeps_weights():
    """peft merges through `.data`, and of the numbers that are looked at all may round to what they were."""
    model, tokenizer = load_mini()
    model = copy.deepcopy(model).bfloat16()
    ids = tokenizer("The king and the queen said to the people that", return_tensors="pt").input_ids
    score_tokens(model, ids)
    adapted = lora.adapt(model, rank=4)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 1e-4, generator=generator)
    merged = lora.merge(adapted)
    assert torch.equal(score_tokens(merged, ids).tokens, score_tokens(copy.deepcopy(merged), ids).tokens)
