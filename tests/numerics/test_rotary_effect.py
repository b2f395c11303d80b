"""A model run with other phases: the same numbers as the model's own arithmetic gives, and hooks that always go."""

import copy
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.numerics.rotary import ROUNDINGS, STEPS, phase_tables, phases
from persimmon_lab.numerics.rotary_effect import effect, swapped_tables

LENGTH = 300  # past 256
CONFIG = PersimmonConfig.tiny(max_position_embeddings=512, initializer_range=0.2)


def tiny(**overrides):
    config = dataclasses.replace(CONFIG, **overrides)
    return PersimmonForCausalLM(config, generator=torch.Generator().manual_seed(0)).eval()


def tokens(rows=2, length=LENGTH):
    return torch.randint(CONFIG.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


def tables(rounded=(), length=LENGTH):
    return phase_tables(phases(torch.arange(length), CONFIG, rounded, dtype=torch.float32))


def logits(model, ids):
    with torch.no_grad():
        return model(ids).logits


# Swapping


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_swapped_tables_are_the_models_own_arithmetic_to_the_bit(dtype, attention):
    """Tables that the model would make itself change nothing; Adept's give what `rope_precision="adept"` gives."""
    model = tiny(attn_implementation=attention).to(dtype)
    adept = tiny(attn_implementation=attention, rope_precision="adept").to(dtype)
    ids = tokens()
    with swapped_tables(model, *tables()):
        assert torch.equal(logits(model, ids), logits(tiny(attn_implementation=attention).to(dtype), ids))
    with swapped_tables(model, *tables(STEPS)):
        swapped = logits(model, ids)
    assert torch.equal(swapped, logits(adept, ids))
    assert not torch.equal(swapped, logits(model, ids))
    with swapped_tables(adept, *tables()):
        assert torch.equal(logits(adept, ids), logits(model, ids))


def test_every_layer_is_swapped():
    """With tables of position 0 everywhere nothing turns, and the order of the tokens before the last is lost."""
    model, ids = tiny(num_hidden_layers=1), tokens(rows=1, length=9)
    shuffled = torch.cat((ids[:, :-1].flip(-1), ids[:, -1:]), dim=-1)
    still = torch.ones(1, 9, 8), torch.zeros(1, 9, 8)
    with swapped_tables(model, *still):
        torch.testing.assert_close(logits(model, ids)[:, -1], logits(model, shuffled)[:, -1])
    assert not torch.allclose(logits(model, ids)[:, -1], logits(model, shuffled)[:, -1])

    seen = []
    deep = tiny(num_hidden_layers=3)
    for layer in deep.model.layers:
        layer.self_attn.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    with swapped_tables(deep, *still):
        logits(deep, ids)
    assert len(seen) == 3 and all(torch.equal(cos, still[0]) for cos in seen)


def test_hooks_go_with_the_block_and_with_an_error():
    model, ids = tiny(), tokens()
    before = logits(model, ids)
    with pytest.raises(KeyError), swapped_tables(model, *tables(STEPS)):
        raise KeyError
    assert torch.equal(logits(model, ids), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_tables_of_another_size_are_refused_and_the_model_stays_whole():
    model = tiny()
    needs = r"needs tables of \(position, rotary\) \(299, 8\), the swapped ones have \(300, 8\)"
    with pytest.raises(ValueError, match=needs), swapped_tables(model, *tables()):
        logits(model, tokens(length=299))
    assert logits(model, tokens(length=299)).isfinite().all()


def test_a_model_without_layers_to_swap():
    with (
        pytest.raises(ValueError, match="a Linear has no PersimmonDecoderLayer"),
        swapped_tables(torch.nn.Linear(2, 2), *tables()),
    ):
        pass


# Effect


@pytest.fixture(scope="module")
def measured():
    model = tiny()
    variants = {name: tables(rounded) for name, rounded in ROUNDINGS.items()}
    return effect(model, tokens(), variants, noise=copy.deepcopy(model).bfloat16())


def test_the_columns_are_what_they_say(measured):
    """A second way: torch's own divergence and the model's own loss, on all rows at once."""
    model, adept, ids = tiny(), tiny(rope_precision="adept"), tokens()
    reference, other = logits(model, ids), logits(adept, ids)
    run = measured.frame.query("run == 'adept'")
    assert run["position"].tolist() == list(range(LENGTH))
    divergence = F.kl_div(other.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="none")
    assert run["kl"].to_numpy() == pytest.approx(divergence.sum(-1).mean(0).numpy(), rel=1e-3, abs=1e-6)
    changed = (reference.argmax(-1) != other.argmax(-1)).double().mean(0)
    assert run["flipped"].tolist() == changed.tolist()
    with torch.no_grad():
        assert run["loss"].mean() == pytest.approx(float(adept(ids, labels=ids).loss), rel=1e-5)
        own = measured.frame.query("run == 'float32'")
        assert own["loss"].mean() == pytest.approx(float(model(ids, labels=ids).loss), rel=1e-5)
    assert math.isnan(run["loss"].iloc[-1])
    assert not own["kl"].any() and not own["flipped"].any()


def test_a_rounded_position_changes_nothing_before_257(measured):
    curves = measured.curves("kl")
    assert not curves["position"][:257].any()  # the same bits
    assert curves["position"][257:].min() > 1e-6
    assert curves["frequency"][:257].max() > 1e-6


def test_the_noise_is_the_other_model(measured):
    model, ids = tiny(), tokens()
    reference, half = logits(model, ids), logits(copy.deepcopy(model).bfloat16(), ids).float()
    divergence = F.kl_div(half.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="none")
    expected = divergence.sum(-1).mean(0).double()
    torch.testing.assert_close(measured.curves("kl")["noise"], expected, rtol=1e-2, atol=1e-6)
    assert list(measured.curves("kl")) == ["float32", *ROUNDINGS, "noise"]
    assert list(effect(model, ids[:1, :5], {}).curves("kl")) == ["float32"]


def test_bands_are_means(measured):
    bands = measured.by_band(128)
    frame = measured.frame.query("run == 'both' and position >= 256")
    last = bands.loc[("both", 256)]
    assert last["kl"] == pytest.approx(frame["kl"].mean())
    assert last["perplexity"] == pytest.approx(math.exp(frame["loss"].mean()))  # 43 losses of 44 positions
    assert measured.curves("loss", 128)["both"].tolist() == bands.loc["both"]["loss"].tolist()
    assert len(measured.curves("loss", 128)["both"]) == 3


def test_past_384_the_effect_stands_far_above_the_noise():
    """On a random model it is about two hundredths of a nat, against a few ten-thousandths of rounding elsewhere."""
    model, ids = tiny(), tokens(rows=4, length=512)
    found = effect(model, ids, {"adept": tables(STEPS, 512)}, noise=copy.deepcopy(model).bfloat16())
    adept, noise = (float(found.curves("kl")[run][384:].mean()) for run in ("adept", "noise"))
    assert adept > 10 * noise


def test_bands_and_columns_that_are_not_there(measured):
    with pytest.raises(ValueError, match="width is 0"):
        measured.by_band(0)
    with pytest.raises(ValueError, match="no column is called 'losses'; there are kl, loss, flipped, perplexity"):
        measured.curves("losses")
    assert repr(measured).startswith("<RotaryEffect over ")
