"""Ablation beside a second way: zeroed columns of `dense`, hand-made means, one at a time."""

import pytest
import torch
import torch.nn.functional as F

import persimmon_lab
from persimmon_lab.trace import progress
from persimmon_lab.trace.ablation import (
    ablate,
    all_heads,
    mean_outputs,
    own_outputs,
    pattern_by_path,
    resampled_outputs,
    sweep,
    token_losses,
)
from persimmon_lab.trace.capture import capture
from persimmon_lab.trace.heads import detect, patterns_of, stripe
from persimmon_lab.trace.patch import patch
from persimmon_lab.training.evaluate import copying_loss, induction_scores, repeated_rows
from tests.models import tiny

PHRASES = (
    "human: Do you have a dog?\n\nadept: I do not have a dog, but I have a cat.\n\nhuman: What is your cat called?",
    "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:",
)


@pytest.fixture
def model():
    return tiny()


@pytest.fixture
def rows():
    return torch.randint(3, 128, (3, 9), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model, rows):
    return model(rows).logits


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_token_losses_are_cross_entropies(model, rows):
    losses = token_losses(model, rows).detach()
    assert losses.shape == (3, 8)
    by_hand = F.cross_entropy(logits(model, rows)[2, 4], rows[2, 5])
    assert float(losses[2, 4]) == pytest.approx(float(by_hand), rel=1e-5)


def test_all_heads_go_layer_by_layer(model):
    assert all_heads(model) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]


@pytest.mark.parametrize("head", [(0, 0), (0, 3), (1, 2)])
def test_zero_ablation_of_a_head_zeroes_its_columns_in_dense(model, rows, head):
    whole = logits(model, rows)
    with ablate(model, [head]):
        ablated = logits(model, rows)
    weight = model.model.layers[head[0]].self_attn.dense.weight
    with torch.no_grad():
        weight[:, 16 * head[1] : 16 * (head[1] + 1)] = 0  # head_dim is 16
    torch.testing.assert_close(ablated, logits(model, rows))
    assert (ablated - whole).abs().max() > 1e-3


def test_several_heads_at_once(model, rows):
    with ablate(model, [(0, 1), (1, 0), (1, 3)]):
        together = logits(model, rows)
    with ablate(model, [(0, 1)]), ablate(model, [(1, 0)]), ablate(model, [(1, 3)]):
        nested = logits(model, rows)
    torch.testing.assert_close(together, nested)


def test_zero_ablation_of_modules_leaves_the_residual_stream(model, rows):
    with ablate(model, ["layers.0.self_attn", "layers.0.mlp"]):
        trace = capture(model, rows, only=["layers.0", "layers.0:input"])
    assert torch.equal(trace["model.layers.0"], trace["model.layers.0:input"])


def test_mean_ablation_of_a_head_by_hand(model, rows):
    others = rows.flip(1)
    made = capture(model, others, only=["layers.1.self_attn.head_output"])["model.layers.1.self_attn.head_output"]
    mean = made[:, 2].reshape(-1, 16).mean(dim=0)
    outputs = mean_outputs(model, others, [(1, 2)])
    torch.testing.assert_close(outputs[1, 2], mean)
    with ablate(model, [(1, 2)], outputs):
        ablated = logits(model, rows)
    attention = model.model.layers[1].self_attn
    with torch.no_grad():  # the same, as a bias
        attention.dense.bias += attention.dense.weight[:, 32:48] @ mean
        attention.dense.weight[:, 32:48] = 0
    torch.testing.assert_close(ablated, logits(model, rows))


def test_mean_ablation_of_a_module_by_hand(model, rows):
    outputs = mean_outputs(model, rows, ["layers.0.mlp"])
    made = capture(model, rows, only=["layers.0.mlp"])["model.layers.0.mlp"]
    torch.testing.assert_close(outputs["layers.0.mlp"], made.reshape(-1, 64).mean(dim=0))
    with ablate(model, ["layers.0.mlp"], outputs):
        seen = capture(model, rows, only=["layers.0.mlp"])["model.layers.0.mlp"]
    torch.testing.assert_close(seen, outputs["layers.0.mlp"].expand(3, 9, 64))


def test_resampling_takes_another_row_of_the_same_position(model, rows):
    targets = [(0, 1), "layers.1.mlp"]
    own, other = own_outputs(model, rows, targets), resampled_outputs(model, rows, targets, seed=0)
    shifts = [s for s in (0, 1, 2) if torch.equal(other[0, 1], own[0, 1].roll(s, dims=0))]
    assert shifts in ([1], [2])
    assert torch.equal(other["layers.1.mlp"], own["layers.1.mlp"].roll(shifts[0], dims=0))
    assert {int(own[0, 1].eq(resampled_outputs(model, rows, [(0, 1)], s)[0, 1]).all()) for s in range(20)} == {0}
    with ablate(model, targets, other):
        seen = own_outputs(model, rows, targets)
    assert torch.equal(seen[0, 1], other[0, 1])
    assert torch.equal(seen["layers.1.mlp"], other["layers.1.mlp"])


def test_a_single_row_has_no_other(model, rows):
    with pytest.raises(ValueError, match="1 row has no other"):
        resampled_outputs(model, rows[:1], [(0, 1)], seed=0)


def test_what_is_replaced_by_itself_changes_nothing(model, rows):
    targets = [(0, 1), (1, 3), "layers.1.self_attn", "layers.0.mlp"]
    with ablate(model, targets, own_outputs(model, rows, targets)):
        same = logits(model, rows)
    assert torch.equal(same, logits(model, rows))


def test_outputs_of_whole_rows_fit_rows_cut_at_their_end(model, rows):
    targets = [(0, 1), "layers.1.self_attn"]
    with ablate(model, targets, own_outputs(model, rows, targets)):
        same = token_losses(model, rows)  # reads all but the last token
    torch.testing.assert_close(same, token_losses(model, rows))


def test_a_sweep_keeps_to_its_batch(model, rows):
    seen = []

    def measure(model, batch):
        seen.append(len(batch))
        return torch.zeros(len(batch))

    assert sweep(model, rows, all_heads(model), measure, rows_at_once=7, progress=False).shape == (8, 3)
    assert seen == [6, 6, 6, 6]
    sweep(model, rows, [(0, 0), (0, 1)], measure, rows_at_once=1, progress=False)
    assert seen[4:] == [3, 3]


def test_everything_is_restored_also_after_an_error(model, rows):
    before, count = logits(model, rows), hooks(model)
    with pytest.raises(RuntimeError, match="on purpose"), ablate(model, [(0, 0), "layers.1.mlp"]):
        raise RuntimeError("on purpose")
    sweep(model, rows, all_heads(model), progress=False)
    pattern_by_path(model, rows, [(0, 0)], (1, 1))
    assert hooks(model) == count
    assert torch.equal(logits(model, rows), before)


@pytest.mark.parametrize("head", [(2, 0), (0, 4), (-1, 0), (0, -1)])
def test_a_head_that_is_not_there(model, rows, head):
    said = f"no head {head[0]}.{head[1]}: layers are 0 … 1, heads 0 … 3"
    for use in (
        lambda: ablate(model, [head]).__enter__(),
        lambda: own_outputs(model, rows, [head]),
        lambda: pattern_by_path(model, rows, [(0, 0)], head),
    ):
        with pytest.raises(ValueError, match=said):
            use()


@pytest.mark.parametrize("rows_at_once", [1, 3, 7, 100])
@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_a_batched_sweep_is_one_at_a_time(model, rows, rows_at_once, how):
    targets = [*all_heads(model), "layers.0.mlp", "layers.1.self_attn"]
    outputs = {
        "zero": lambda: None,
        "mean": lambda: mean_outputs(model, rows.flip(1), targets),
        "resample": lambda: resampled_outputs(model, rows, targets, seed=3),
    }[how]()
    swept = sweep(model, rows, targets, outputs=outputs, rows_at_once=rows_at_once, progress=False)
    assert swept.shape == (10, 3, 8)
    for target, losses in zip(targets, swept, strict=True):
        with ablate(model, [target], outputs), torch.no_grad():
            torch.testing.assert_close(losses, token_losses(model, rows))


def test_a_sweep_measures_what_it_is_told(model, rows):
    def entropy(model, batch):
        patterns = patterns_of(model, batch)[1, :, 2]  # row query key
        return -(patterns * patterns.clamp(min=1e-9).log()).sum(dim=-1)

    swept = sweep(model, rows, [(0, 0), (0, 3)], entropy, progress=False)
    for target, each in zip([(0, 0), (0, 3)], swept, strict=True):
        with ablate(model, [target]):
            torch.testing.assert_close(each, entropy(model, rows))
    assert not torch.allclose(swept[0], swept[1])


def test_a_sweep_shows_its_progress_if_asked_or_long(model, rows, capsys, monkeypatch):
    sweep(model, rows, all_heads(model), progress=False)
    sweep(model, rows, all_heads(model))
    assert capsys.readouterr().err == ""
    sweep(model, rows, all_heads(model), progress=True)
    assert "8/8" in capsys.readouterr().err
    monkeypatch.setattr(progress, "LONG", 1e-9)
    sweep(model, rows, all_heads(model), rows_at_once=3)
    said = capsys.readouterr().err
    assert "ablate" in said and "8/8" in said


def test_a_sweep_makes_no_graph(model, rows):
    assert not sweep(model, rows, [(0, 0)], progress=False).requires_grad


def test_paths_to_a_pattern(model, rows):
    sources, reader = [(0, 1), "layers.0.mlp"], (1, 2)
    paths = pattern_by_path(model, rows, sources, reader)
    torch.testing.assert_close(paths.clean, patterns_of(model, rows)[1, :, 2])
    with ablate(model, sources):
        torch.testing.assert_close(paths.ablated, patterns_of(model, rows)[1, :, 2])
        trace = capture(model, rows, only=["layers.1.self_attn.rotated_key", "layers.1.self_attn.rotated_query"])
    for tap, mixed in (("rotated_key", paths.through_key), ("rotated_query", paths.through_query)):
        name = f"layers.1.self_attn.{tap}"
        with patch(model, {name: lambda _, new=trace[name]: new}):
            torch.testing.assert_close(mixed, patterns_of(model, rows)[1, :, 2])
    assert (paths.through_key - paths.through_query).abs().max() > 1e-3


def test_paths_may_replace_by_the_mean(model, rows):
    outputs = mean_outputs(model, rows, [(0, 1)])
    paths = pattern_by_path(model, rows, [(0, 1)], (1, 0), outputs)
    with ablate(model, [(0, 1)], outputs):
        torch.testing.assert_close(paths.ablated, patterns_of(model, rows)[1, :, 0])


# The shipped model: what the detectors found is what copies


def test_induction_heads_matter_for_repetition_and_not_elsewhere(report_table):
    model, tokenizer = persimmon_lab.load_mini()
    rows = repeated_rows(4096, 261, period=40, rows=4, seed=0)
    texts = [tokenizer(phrase, return_tensors="pt").input_ids for phrase in PHRASES]

    def measured():
        with torch.no_grad():
            elsewhere = torch.cat([token_losses(model, text)[0] for text in texts]).mean()
        return (*copying_loss(model, rows), float(elsewhere))

    first, second, ordinary = measured()
    found = detect(model, rows, seed=0, draws=5)
    copiers, [back, *_] = found["induction"].standing_out(), found["previous token"].standing_out()
    idle = [head for head in all_heads(model) if head[0] == copiers[0][0] and head not in copiers][:2]
    table = []
    for heads in (copiers[:1], copiers[1:2], copiers, [back], idle):
        with ablate(model, heads):
            new = measured()
        table.append(
            {
                "without": " and ".join(f"{layer}.{head}" for layer, head in heads[:4]),
                "repeated, first time": new[0] - first,
                "repeated, second time": new[1] - second,
                "ordinary text": new[2] - ordinary,
            }
        )
    report_table("What ablation costs persimmon-mini, nats per token", table)
    every, control = table[2], table[4]
    assert every["repeated, second time"] > 2.5
    assert abs(every["repeated, first time"]) < 0.2 * every["repeated, second time"]
    assert every["ordinary text"] < 0.5 * every["repeated, second time"]
    assert abs(control["repeated, second time"]) < 0.2 * every["repeated, second time"]
    # They stand in for one another: two alone cost less than all together.
    assert table[0]["repeated, second time"] + table[1]["repeated, second time"] < every["repeated, second time"]


def test_the_previous_token_head_feeds_the_induction_heads_through_their_keys():
    model, _ = persimmon_lab.load_mini()
    rows = repeated_rows(4096, 261, period=40, rows=4, seed=0)
    before = induction_scores(model, rows)
    sources = detect(model, rows, seed=0, draws=5)["previous token"].standing_out()[:3]
    with ablate(model, sources):
        after = induction_scores(model, rows)
    lost = before - after
    for reader in (divmod(int(index), 8) for index in lost.flatten().topk(2).indices):
        assert lost[reader] > 0.25
        paths = pattern_by_path(model, rows, sources, reader)
        clean, query, key, both = (float(stripe(each, 39, first=40).mean()) for each in paths)
        assert clean == pytest.approx(float(before[reader]), abs=1e-4)
        assert both == pytest.approx(float(after[reader]), abs=1e-4)
        assert clean - key > 2 * (clean - query)


@pytest.mark.parametrize("targets", [(1, 2), "layers.1.mlp", [1, 2]])
def test_targets_are_a_list(model, rows, unchecked_annotations, targets):
    for use in (
        lambda: ablate(model, targets).__enter__(),
        lambda: own_outputs(model, rows, targets),
        lambda: sweep(model, rows, targets),
        lambda: pattern_by_path(model, rows, targets, (1, 0)),
    ):
        with pytest.raises(TypeError, match=r"targets are .*; give a list of heads and modules"):
            use()


def test_a_sweep_of_nothing_is_refused(model, rows):
    with pytest.raises(ValueError, match="0 targets and 3 rows"):
        sweep(model, rows, [])
    with pytest.raises(ValueError, match="1 targets and 0 rows"):
        sweep(model, rows[:0], [(0, 0)])


@pytest.mark.parametrize(
    ("targets", "outputs"),
    [(["layers.1.mlp"], ["model.layers.1.mlp"]), ([(1, 2)], [(1, 1)]), ([(1, 2), (1, 1)], [(1, 1)])],
)
def test_targets_without_an_output_are_refused(targets, outputs):
    """Else they would be replaced by zeros, without a word."""
    rows = torch.randint(1, 64, (2, 6), generator=torch.Generator().manual_seed(0))
    model = tiny()
    means = mean_outputs(model, rows, outputs)
    with pytest.raises(ValueError, match="outputs has nothing for .*1.*; it has"), ablate(model, targets, means):
        pass
