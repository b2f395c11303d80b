"""Recipes change the numbers and nothing else, and every diagnosis is found again by another computation."""

import copy
import dataclasses
import math

import pytest
import torch

from persimmon_lab.losses import causal_lm_loss
from persimmon_lab.numerics import diagnosis, recipes
from persimmon_lab.numerics.diagnosis import LONGEST_UPDATE, diagnose
from persimmon_lab.numerics.observation import Moments, Observation, largest
from persimmon_lab.numerics.recipes import (
    BFLOAT16,
    BFLOAT16_MASTERS,
    FLOAT16,
    FLOAT16_EPS,
    FLOAT16_MASTERS,
    FLOAT16_SCALED_EPS,
    FLOAT32,
    RECIPES,
    Recipe,
    fine_tune,
    ladder,
)
from persimmon_lab.numerics.stress import scale_mlp
from tests.models import ids, tiny

BETA1, BETA2 = 0.9, 0.999
FLOAT16_MASTERS_FIXED = dataclasses.replace(FLOAT16_MASTERS, name="masters, fixed", dynamic=False, loss_scale=3.0)
BATCHES = [ids(2, 9), ids(2, 12)]  # two lengths, so that a forgotten batch shows


def gradients(model, tokens, scale=1.0):
    model = copy.deepcopy(model)
    (causal_lm_loss(model(tokens).logits, tokens) * scale).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def plain_loop(recipe):
    """The same fine-tuning as one writes it by hand."""
    model = tiny().to(recipe.dtype)
    if recipe.masters:
        moved = [p.detach().clone().requires_grad_() for p in tiny().parameters()]
    else:
        moved = list(model.parameters())
    optimiser = torch.optim.AdamW(moved, lr=recipe.rate, eps=recipe.eps)
    scaler = torch.amp.GradScaler("cpu", init_scale=recipe.loss_scale)
    losses = []
    for step in range(recipe.steps):
        tokens = BATCHES[step % 2]
        loss = causal_lm_loss(model(tokens).logits, tokens)
        losses.append(loss.item())
        if recipe.dynamic:
            scaler.scale(loss).backward()
        else:
            loss.mul(recipe.loss_scale).backward()
        if recipe.masters:
            for master, parameter in zip(moved, model.parameters(), strict=True):
                master.grad = parameter.grad.float()
                if not recipe.dynamic:
                    master.grad /= recipe.loss_scale
                parameter.grad = None
        if recipe.dynamic:
            scaler.step(optimiser)
            scaler.update()
        else:
            optimiser.step()
        optimiser.zero_grad()
        if recipe.masters:
            with torch.no_grad():
                for master, parameter in zip(moved, model.parameters(), strict=True):
                    parameter.copy_(master)
    return losses, model.state_dict()


def same(one, other):
    """Bit for bit; nan equals nan."""
    return one.dtype == other.dtype and torch.equal(one.nan_to_num(7.25), other.nan_to_num(7.25))


@pytest.mark.parametrize(
    "recipe",
    [FLOAT32, FLOAT16_SCALED_EPS, FLOAT16_MASTERS, FLOAT16_MASTERS_FIXED, BFLOAT16, BFLOAT16_MASTERS],
    ids=lambda recipe: recipe.name,
)
def test_a_recipe_is_the_loop_one_would_write(recipe):
    recipe = dataclasses.replace(recipe, steps=3, rate=1e-3)
    losses, weights = plain_loop(recipe)
    run = fine_tune(tiny(), BATCHES, recipe)
    assert run.losses == losses
    assert len(set(losses)) == 3
    assert all(same(run.model.state_dict()[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_twice_is_the_same_and_the_given_model_stays(recipe):
    recipe = dataclasses.replace(recipe, steps=2)
    model = tiny().train()
    before = copy.deepcopy(model.state_dict())
    first, second = fine_tune(model, BATCHES, recipe), fine_tune(model, BATCHES, recipe, twin=False)
    assert all(same(a, b) for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values()))
    assert [repr(step.loss) for step in first.steps] == [repr(step.loss) for step in second.steps]
    assert first.failure == second.failure
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not model.model._forward_hooks and not first.model.lm_head._forward_hooks


def test_dropout_plays_no_part():
    calm, shaky = tiny(), tiny(hidden_dropout=0.5, attention_dropout=0.5).train()
    recipe = dataclasses.replace(FLOAT32, steps=2)
    assert fine_tune(calm, BATCHES, recipe).losses == fine_tune(shaky, BATCHES, recipe).losses


@pytest.mark.parametrize("recipe", [FLOAT32, FLOAT16_MASTERS], ids=lambda recipe: recipe.name)
def test_frozen_weights_stay(recipe):
    model = tiny()
    model.model.requires_grad_(False)
    run = fine_tune(model, BATCHES, dataclasses.replace(recipe, steps=2))
    frozen = {name for name, w in run.model.named_parameters() if torch.equal(w, model.get_parameter(name).to(w.dtype))}
    assert {name for name, _ in model.named_parameters()} - frozen == {"lm_head.weight"}
    # With everything free, the head's first step is the same: AdamW knows no other weights.
    one = dataclasses.replace(recipe, steps=1)
    head, free = (fine_tune(m, BATCHES, one).model.lm_head.weight for m in (model, tiny()))
    assert torch.equal(head, free)


# Pure float16: division by zero


def first_moments(tokens, scale=1.0):
    """AdamW's two moments after one step, written out for numbers that are stored in float16."""
    found = gradients(tiny().half(), tokens, scale)
    first = {name: (g.float() * (1 - BETA1)).half() for name, g in found.items()}
    second = {name: (g.float().square() * (1 - BETA2)).half() for name, g in found.items()}
    return first, second


@pytest.mark.parametrize("loss_scale", [1.0, 16.0])
def test_float16_divides_by_zero_where_both_eps_and_the_second_moment_are_zero(loss_scale):
    assert torch.tensor(1e-8).half() == 0
    recipe = dataclasses.replace(FLOAT16, loss_scale=loss_scale)
    run = fine_tune(tiny(), BATCHES, recipe)
    assert len(run.steps) == 2 and math.isnan(run.losses[1])
    assert (run.failure.step, run.failure.quantity, run.failure.mechanism) == (1, "weight", diagnosis.DIVISION)
    assert run.failure.tensor == "model.embed_tokens.weight"
    first, second = first_moments(BATCHES[0], recipe.loss_scale)
    weights = dict(run.model.named_parameters())
    assert all(torch.equal(w.isnan(), (first[n] == 0) & (second[n] == 0)) for n, w in weights.items())
    assert all(torch.equal(w.isinf(), (first[n] != 0) & (second[n] == 0)) for n, w in weights.items())
    counts = {kind: sum(int(test(w).sum()) for w in weights.values()) for kind, test in
              {"nan": torch.isnan, "inf": torch.isinf}.items()}  # fmt: skip
    assert all(run.failure.evidence[kind] == count / run.model.num_parameters() for kind, count in counts.items())
    assert all(counts.values())
    assert run.failure.evidence["eps"] == 0
    assert run.steps[0].unnormalised == counts["inf"] / run.model.num_parameters()
    assert f"{run.failure.evidence['inf']:.1%} of the weights became x/0 = inf" in str(run.failure)


def test_the_rows_that_become_nan_are_those_of_tokens_without_a_gradient():
    run = fine_tune(tiny(), BATCHES, FLOAT16)
    table = run.model.model.embed_tokens.weight
    # The last token of a row predicts nothing, so it has no gradient where it stands there alone.
    expected = set(range(len(table))) - set(BATCHES[0][:, :-1].flatten().tolist())
    assert {row for row in range(len(table)) if table[row].isnan().all()} == expected


def test_the_second_moment_underflows_below_a_gradient_of_0_0054():
    edge = math.sqrt(2.0**-25 / (1 - BETA2))
    assert 0.0054 < edge < 0.0055
    weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.float16))
    optimiser = torch.optim.AdamW([weight], eps=1e-8)
    weight.grad = torch.tensor([edge * 0.99, edge * 1.01]).half()
    optimiser.step()
    assert (optimiser.state[weight]["exp_avg_sq"] == 0).tolist() == [True, False]
    assert weight.isinf().tolist() == [True, False]


# An eps that float16 holds, and loss scaling


def test_an_eps_that_float16_holds_leaves_updates_without_bound():
    assert torch.tensor(FLOAT16_EPS.eps).half() > 0
    run = fine_tune(tiny(), BATCHES, dataclasses.replace(FLOAT16_EPS, rate=1e-2))
    assert run.failure.mechanism == diagnosis.LEAP
    assert (run.failure.step, run.failure.quantity) == (2, "activation")
    first, second = first_moments(BATCHES[0])
    held = torch.tensor(FLOAT16_EPS.eps).half().double()
    updates = torch.cat([
        (first[n].double() / (1 - BETA1) / ((second[n].double() / (1 - BETA2)).sqrt() + held)).flatten() for n in first
    ])  # fmt: skip
    assert run.steps[0].longest_update == pytest.approx(float(updates.abs().max()), rel=2e-3)
    assert run.failure.evidence["longest_update"] == run.steps[0].longest_update > 1000
    assert run.failure.evidence["unnormalised"] == run.steps[0].unnormalised > 0.3


def test_adamw_keeps_its_bound_in_float32_and_with_masters():
    for recipe in (FLOAT32, FLOAT16_MASTERS, BFLOAT16_MASTERS):
        run = fine_tune(tiny(), BATCHES, dataclasses.replace(recipe, steps=6, rate=1e-3))
        assert all(0.9 < step.longest_update < LONGEST_UPDATE for step in run.steps)
        assert all(step.unnormalised == 0 for step in run.steps)


def test_scaling_loss_and_eps_together_is_the_same_adamw():
    """In float32, where nothing underflows, 2^14 drops out again to the bit."""
    plain = fine_tune(tiny(), BATCHES, FLOAT32)
    scaled = dataclasses.replace(FLOAT32, loss_scale=2.0**14, eps=FLOAT32.eps * 2**14)
    run = fine_tune(tiny(), BATCHES, scaled)
    assert run.losses == plain.losses
    assert [step.gradient_norm for step in run.steps] == [step.gradient_norm for step in plain.steps]


def test_what_vanishes_and_what_the_loss_scale_brings_back():
    exact = gradients(tiny().half().float(), BATCHES[0])
    shares = []
    for scale in (1.0, 2.0**14):
        held = gradients(tiny().half(), BATCHES[0], scale)
        lost = sum(int(((held[n] == 0) & (exact[n] != 0)).sum()) for n in exact)
        recipe = dataclasses.replace(FLOAT16, loss_scale=scale, steps=1)
        shares.append(fine_tune(tiny(), BATCHES, recipe).steps[0].vanished)
        assert shares[-1] == lost / tiny().num_parameters()
    assert shares[0] > 10 * shares[1]
    # Micikevicius et al.: what vanishes is what is too small.
    small = sum(int(((g != 0) & (g.abs() < 2.0**-25)).sum()) for g in exact.values())
    assert small > 0


def test_the_twin_sees_the_weights_of_each_step():
    run = fine_tune(tiny(), BATCHES, dataclasses.replace(BFLOAT16, steps=2, rate=1e-2))
    after_one = fine_tune(tiny(), BATCHES, dataclasses.replace(BFLOAT16, steps=1, rate=1e-2)).model
    exact, held = gradients(copy.deepcopy(after_one).float(), BATCHES[1]), gradients(after_one, BATCHES[1])
    lost = sum(int(((held[n] == 0) & (exact[n] != 0)).sum()) for n in exact)
    assert run.steps[1].vanished == lost / after_one.num_parameters()
    assert math.isnan(fine_tune(tiny(), BATCHES, BFLOAT16, twin=False).steps[0].vanished)


def test_a_loss_scale_that_is_too_large():
    run = fine_tune(tiny(), BATCHES, dataclasses.replace(FLOAT16, loss_scale=2.0**40))
    assert (run.failure.step, run.failure.quantity, run.failure.mechanism) == (1, "gradient", diagnosis.LOSS_SCALE)
    assert run.failure.tensor == "lm_head.weight"  # the first parameter that the backward pass comes to
    assert gradients(tiny(), BATCHES[0])["lm_head.weight"].abs().max() * 2.0**40 > 65504


def test_a_loss_scale_that_overflows_the_second_moment_alone():
    top = max(float(g.abs().max()) for g in gradients(tiny(), BATCHES[0]).values())
    scale = 30_000 / top  # its gradient fits, its square times 0.001 is 900,000
    run = fine_tune(tiny(), BATCHES, dataclasses.replace(FLOAT16, loss_scale=scale, steps=1, eps=1e-4))
    assert (run.failure.quantity, run.failure.mechanism) == ("moment", diagnosis.LOSS_SCALE)
    moved = run.model.get_parameter(run.failure.tensor) != tiny().half().get_parameter(run.failure.tensor)
    worst = gradients(tiny(), BATCHES[0])[run.failure.tensor].abs()
    assert not moved[worst * scale > 8100].any()  # divided by inf
    assert (worst * scale > 8100).any()


def test_dynamic_scaling_halves_until_the_gradients_fit():
    recipe = dataclasses.replace(FLOAT16_MASTERS, loss_scale=2.0**30, steps=24)
    run = fine_tune(tiny(), BATCHES[:1], recipe)
    skipped = [step.skipped for step in run.steps]
    count = sum(skipped)
    assert 0 < count < 24 and skipped == sorted(skipped, reverse=True)
    assert [step.loss_scale for step in run.steps[: count + 1]] == [2.0 ** (30 - i) for i in range(count + 1)]
    assert run.failure is None
    assert len({step.loss for step in run.steps[: count + 1]}) == 1  # nothing moved
    assert all(step.longest_update == step.rounded_away == 0 for step in run.steps[:count])
    fitting = dataclasses.replace(recipe, loss_scale=2.0 ** (30 - count), steps=24 - count)
    assert fine_tune(tiny(), BATCHES[:1], fitting).losses == run.losses[count:]


# Squared ReLU, on a model stressed without changing its function


def stressed():
    model = tiny()
    with torch.no_grad():
        model.model.layers[0].mlp.dense_h_to_4h.bias[7] = -20.0  # a large number that ReLU makes 0
    return scale_mlp(model, 256.0)


def pre_activations(model, tokens):
    found = {}
    for name, module in model.named_modules():
        if name.endswith("dense_h_to_4h"):
            module.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out}))
        if name.endswith("mlp.activations"):
            module.register_forward_hook(lambda _m, _i, out, name=name: found.update({name: out}))
    with torch.no_grad():
        model(tokens)
    return found


def test_squared_relu_overflows_where_the_float32_twin_reaches_256():
    run = fine_tune(stressed(), BATCHES, FLOAT16)
    assert (run.failure.step, run.failure.quantity, run.failure.mechanism) == (1, "activation", diagnosis.SQUARE)
    assert run.failure.tensor == "model.layers.0.mlp.activations"
    half, exact = pre_activations(stressed().half(), BATCHES[0]), pre_activations(stressed(), BATCHES[0])
    before = exact["model.layers.0.mlp.dense_h_to_4h"]
    clear = (before < 255) | (before > 257)  # between them float16's own rounding decides
    assert 0 < (clear & (before >= 256)).sum() < clear.sum()
    assert torch.equal(half["model.layers.0.mlp.activations"].isinf() & clear, (before >= 256) & clear)
    assert run.failure.evidence["before"] == pytest.approx(float(before.max()), rel=2e-3)
    assert before.abs().max() > 2 * before.max()
    assert f"{run.failure.evidence['before']:,.1f}, and its square is beyond 65,504" in str(run.failure)


def test_no_loss_scale_brings_an_activation_back_and_bfloat16_does():
    run = fine_tune(stressed(), BATCHES, FLOAT16_MASTERS)
    assert run.failure.mechanism == diagnosis.SQUARE
    assert len(run.steps) == FLOAT16_MASTERS.steps and all(step.skipped for step in run.steps)
    assert run.steps[-1].loss_scale == FLOAT16_MASTERS.loss_scale / 2 ** (FLOAT16_MASTERS.steps - 1)
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), stressed().half().parameters()))
    healthy = fine_tune(stressed(), BATCHES, BFLOAT16_MASTERS)
    assert healthy.failure is None and healthy.losses[-1] < healthy.losses[0]
    assert healthy.steps[0].largest_activation > 65504


# bfloat16: updates that are rounded away


@pytest.mark.parametrize(("recipe", "least", "most"), [(BFLOAT16, 0.3, 1.0), (FLOAT32, 0.0, 0.01)])
def test_updates_that_leave_their_weight_as_it_was(recipe, least, most):
    recipe = dataclasses.replace(recipe, steps=1)
    run = fine_tune(tiny(), BATCHES, recipe)
    model = tiny().to(recipe.dtype)
    still = 0
    for name, gradient in gradients(model, BATCHES[0]).items():
        unmoved = run.model.get_parameter(name) == model.get_parameter(name)
        still += int((unmoved & (gradient * (1 - BETA1) != 0)).sum())
    assert run.steps[0].rounded_away == still / model.num_parameters()
    assert least <= run.steps[0].rounded_away <= most


def test_masters_keep_the_small_updates_for_later():
    weights = fine_tune(tiny(), BATCHES, BFLOAT16_MASTERS), fine_tune(tiny(), BATCHES, BFLOAT16)
    with_masters, without = (run.losses[-1] for run in weights)
    exact = fine_tune(tiny(), BATCHES, FLOAT32).losses[-1]
    assert abs(with_masters - exact) < abs(without - exact)
    assert weights[0].steps[0].rounded_away < 0.01


# The record


def test_the_record_of_a_step():
    run = fine_tune(tiny(), BATCHES, dataclasses.replace(FLOAT32, steps=3, rate=1e-3))
    found = gradients(tiny(), BATCHES[0])
    norm = torch.cat([g.flatten() for g in found.values()]).double().norm()
    assert run.steps[0].gradient_norm == pytest.approx(float(norm), rel=1e-5)
    outputs = []
    model = tiny()
    for module in model.modules():
        module.register_forward_hook(lambda _m, _i, out: outputs.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        model(BATCHES[0])
    assert run.steps[0].largest_activation == max(
        float(out.abs().max()) for out in outputs if isinstance(out, torch.Tensor)
    )
    largest = max(float(p.detach().abs().max()) for p in run.model.parameters())
    assert run.steps[-1].largest_weight == largest
    assert [step.step for step in run.steps] == [1, 2, 3] and not any(step.skipped for step in run.steps)
    assert list(run.frame().index) == [1, 2, 3]
    assert run.frame().loc[1, "loss"] == run.losses[0]


def test_the_ladder_has_a_row_for_each_run():
    runs = [fine_tune(tiny(), BATCHES, dataclasses.replace(r, steps=2)) for r in (FLOAT32, FLOAT16)]
    table = ladder(runs)
    assert list(table.index) == ["float32", "float16"]
    assert list(table["last loss"].isna()) == [False, True]
    assert list(table["mechanism"]) == ["", diagnosis.DIVISION]
    assert table["failed at step"].isna().tolist() == [True, False] and table.loc["float16", "failed at step"] == 1
    for column, share in {
        "vanished": "vanished",
        "unnormalised": "unnormalised",
        "rounded away": "rounded_away",
    }.items():
        assert table[column].tolist() == [getattr(run.steps[0], share) for run in runs]
    assert table["first loss"].tolist() == [run.losses[0] for run in runs]
    assert table.loc["float32", "last loss"] == runs[0].losses[-1]


def observation(**changes):
    one, weight = torch.tensor(1.0), torch.zeros(3, dtype=torch.float16)
    healthy = dict(
        step=4, dtype=torch.float16, rate=1e-4, eps=1e-4, loss_scale=1.0, activations={"a": one, "b": one},
        highest={"a": one, "b": one}, loss=1.0,
        gradients={"w": one}, gradient_norm=1.0, vanished=0.0, skipped=False, moments={"w": Moments(weight, weight)},
        before={"w": weight}, weights={"w": weight},
    )  # fmt: skip
    return Observation(**healthy | changes)


def test_the_earliest_quantity_is_blamed():
    inf, nan = torch.tensor(torch.inf), torch.tensor([0.0, torch.nan, 0.0], dtype=torch.float16)
    changes = {
        "activation": {"activations": {"a": torch.tensor(1.0), "b": inf, "c": inf}},
        "loss": {"loss": math.nan},
        "gradient": {"gradients": {"w": inf}},
        "moment": {"moments": {"w": Moments(nan, nan)}},
        "weight": {"weights": {"w": nan}},
    }
    assert diagnose(observation(), None) is None
    together = {}
    for quantity, change in reversed(changes.items()):
        together |= change
        for broken in (change, together):
            failure = diagnose(observation(**broken), None)
            assert (failure.quantity, failure.step, failure.mechanism) == (quantity, 4, diagnosis.RANGE)
    assert diagnose(observation(**together), None).tensor == "b"


def test_a_skipped_step_rounds_nothing_away():
    one = torch.ones(4)
    still = dict(moments={"w": Moments(one, one)}, before={"w": one}, weights={"w": one})
    assert observation(**still).summary().rounded_away == 1.0
    assert observation(**still, skipped=True).summary().rounded_away == 0.0


def test_magnitudes_have_no_sign_and_keep_nan():
    assert largest(torch.tensor([-3.0, 2.0])) == 3
    assert largest(torch.tensor([-3.0, torch.nan])).isnan()


def test_dynamic_scaling_needs_masters():
    with pytest.raises(ValueError, match="masters=True"):
        Recipe("wishful", torch.float16, dynamic=True)
    assert recipes.RECIPES[0] is FLOAT32


def test_nothing_to_do_is_refused_and_a_run_shows_itself_in_a_line():
    with pytest.raises(ValueError, match="steps is 0"):
        dataclasses.replace(FLOAT32, steps=0)
    with pytest.raises(ValueError, match="batches is empty"):
        fine_tune(tiny(), [], FLOAT32)
    with pytest.raises(ValueError, match="runs is empty"):
        ladder([])
    run = fine_tune(tiny(), BATCHES, dataclasses.replace(FLOAT32, steps=1))
    assert repr(run).startswith("<Run of 'float32': 1 steps, loss ") and repr(run).endswith("; no failure>")
    assert "\n" not in repr(observation())
