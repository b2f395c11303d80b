"""Detectors on patterns whose answer is known, their null distributions, and the two parts of a score."""

import pytest
import torch

import persimmon_lab
from persimmon_lab.attention import causal_mask
from persimmon_lab.trace.capture import capture
from persimmon_lab.trace.heads import (
    Detection,
    detect,
    offsets,
    patterns_of,
    rotated_share,
    rotated_shares,
    score_parts,
    shuffled_copies,
    spread,
    stripe,
    stripe_scores,
)
from persimmon_lab.training.evaluate import induction_scores, repeated_rows
from tests.models import tiny


def looking(length, offset):
    """A pattern that looks `offset` back, and at the first token where it cannot."""
    pattern = torch.zeros(length, length)
    for query in range(length):
        pattern[query, max(query - offset, 0)] = 1.0
    return pattern


def test_a_stripe_is_the_mean_over_the_queries_that_have_such_a_key():
    pattern = torch.arange(25.0).reshape(5, 5)  # pattern[query, key] = 5 query + key
    assert float(stripe(pattern, 1)) == pytest.approx((5 + 11 + 17 + 23) / 4)
    assert float(stripe(pattern, 1, first=3)) == pytest.approx((17 + 23) / 2)
    assert float(stripe(pattern, 3, first=1)) == pytest.approx((15 + 21) / 2)
    assert float(stripe(pattern, 0)) == pytest.approx((0 + 6 + 12 + 18 + 24) / 5)
    assert stripe(torch.rand(2, 3, 5, 5), 2).shape == (2, 3)


@pytest.mark.parametrize(("offset", "first"), [(5, 0), (1, 5), (-1, 0)])
def test_a_stripe_without_a_query_is_refused(offset, first):
    with pytest.raises(ValueError, match=f"no query of 0 … 4 from {first} on has a key {offset} positions"):
        stripe(torch.ones(5, 5), offset, first)


@pytest.mark.parametrize("kind", ["previous token", "duplicate token", "induction"])
def test_each_detector_finds_its_own_kind_alone(kind):
    period = 7
    back = {"previous token": 1, "duplicate token": 7, "induction": 6}[kind]
    uniform = torch.ones(14, 14).tril() / torch.arange(1, 15)[:, None]
    patterns = torch.stack([looking(14, back), uniform])[None, None]  # layer row head query key
    for name, scores in stripe_scores(patterns, period).items():
        assert scores.shape == (1, 2)
        assert float(scores[0, 0]) == (1.0 if name == kind else 0.0)
        assert float(scores[0, 1]) == pytest.approx(float((1 / torch.arange(8.0, 15.0)).mean()))


def test_scores_are_a_mean_over_rows():
    patterns = torch.stack([looking(14, 6), looking(14, 1)])[None, :, None]
    scores = stripe_scores(patterns, 7)
    assert [float(scores[kind]) for kind in offsets(7)] == [0.5, 0.0, 0.5]


def test_shuffled_copies_keep_the_tokens_and_leave_none_in_its_place():
    rows = repeated_rows(100, 10, period=9, rows=20, seed=0)
    shuffled = shuffled_copies(rows, seed=1)
    first, second = shuffled[:, :9], shuffled[:, 9:]
    assert torch.equal(first, rows[:, :9])
    assert torch.equal(second.sort(dim=1).values, first.sort(dim=1).values)
    assert not (second == first).any()
    assert torch.equal(shuffled, shuffled_copies(rows, seed=1))
    assert not torch.equal(shuffled, shuffled_copies(rows, seed=2))
    state = torch.get_rng_state()
    shuffled_copies(rows, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_tokens_that_stand_twice_in_a_half_leave_their_places_too():
    half = torch.tensor([[5, 5, 6, 7, 8, 9]])
    for seed in range(30):
        shuffled = shuffled_copies(torch.cat((half, half), dim=1), seed)
        assert not (shuffled[:, 6:] == half).any()


def test_a_row_of_one_token_cannot_be_shuffled():
    with pytest.raises(ValueError, match="one token too often"):
        shuffled_copies(torch.full((1, 8), 4), seed=0)


@pytest.mark.parametrize("rows", [torch.arange(8)[None], torch.tensor([[1, 2, 1, 2, 1]])])
def test_rows_that_do_not_repeat_are_refused(rows):
    for detector in (lambda: detect(tiny(), rows), lambda: shuffled_copies(rows, 0)):
        with pytest.raises(ValueError, match="is not their first half again"):
            detector()


def test_too_little_for_a_null_is_refused():
    with pytest.raises(ValueError, match="period of 3 tokens and 5 draws"):
        detect(tiny(), repeated_rows(128, 5, period=3, rows=2, seed=0), draws=5)
    with pytest.raises(ValueError, match="period of 8 tokens and 0 draws"):
        detect(tiny(), repeated_rows(128, 5, period=8, rows=2, seed=0), draws=0)


NULL = torch.tensor([[[0.0, 0.1], [0.2, 0.3]], [[0.1, 0.1], [0.1, 0.3]]])
DETECTION = Detection("induction", torch.tensor([[0.31, 0.3], [0.9, 0.15]]), NULL)


def test_heads_stand_out_above_the_highest_null_of_any_head():
    assert DETECTION.bar == pytest.approx(0.3)
    assert DETECTION.standing_out() == [(1, 0), (0, 0)]


def test_heads_are_named_where_layers_and_heads_differ_in_number():
    wide = Detection("induction", torch.tensor([[0.0, 0.0, 0.9, 0.0], [0.0, 0.5, 0.0, 0.0]]), torch.zeros(3, 2, 4))
    assert wide.standing_out() == [(0, 2), (1, 1)]


def test_z_and_percentile_by_hand():
    values = [0.0, 0.1, 0.2, 0.3, 0.1, 0.1, 0.1, 0.3]
    mean = sum(values) / 8
    deviation = (sum((value - mean) ** 2 for value in values) / 7) ** 0.5
    assert float(DETECTION.z[1, 0]) == pytest.approx((0.9 - mean) / deviation, rel=1e-5)
    assert DETECTION.percentile.tolist() == [[100.0, 75.0], [100.0, 62.5]]


def test_detection_is_made_of_the_models_own_patterns():
    model, rows = tiny(), repeated_rows(128, 5, period=8, rows=3, seed=0)
    found = detect(model, rows, seed=4, draws=3)
    with torch.no_grad():
        patterns = torch.stack(model(rows, output_attentions=True).attentions)
        nulls = [
            torch.stack(model(shuffled_copies(rows, seed), output_attentions=True).attentions) for seed in (4, 5, 6)
        ]
    assert list(found) == ["previous token", "duplicate token", "induction"]
    for kind, offset in {"previous token": 1, "duplicate token": 8, "induction": 7}.items():
        by_hand = torch.stack([patterns[..., query, query - offset] for query in range(8, 16)]).mean(dim=(0, 2))
        torch.testing.assert_close(found[kind].scores, by_hand)
        assert found[kind].kind == kind
        if kind != "previous token":
            by_hand = [
                torch.stack([null[..., query, query - offset] for query in range(8, 16)]).mean(dim=(0, 2))
                for null in nulls
            ]
            torch.testing.assert_close(found[kind].null, torch.stack(by_hand))
    other_stripes = [
        torch.stack([nulls[0][..., query, query - offset] for query in range(8, 16)]).mean(dim=(0, 2))
        for offset in (2, 3, 4, 5, 6)
    ]
    torch.testing.assert_close(found["previous token"].null, torch.stack(other_stripes))
    torch.testing.assert_close(induction_scores(model, rows), found["induction"].scores)


def test_the_heads_of_the_shipped_model(report_table):
    model, _ = persimmon_lab.load_mini()
    found = detect(model, repeated_rows(4096, 261, period=40, rows=8, seed=0), draws=20)
    previous, induction = found["previous token"], found["induction"]
    assert previous.scores.max() > 0.8 > 2 * previous.bar
    assert len(induction.standing_out()) >= 3
    assert induction.scores.max() > 0.8 > 10 * induction.bar
    # A head can only find what another wrote before it: none copies below the first that looks one back.
    strong = [head for head in induction.standing_out() if induction.scores[head] > 0.5]
    assert min(strong)[0] > min(previous.standing_out())[0]
    rows = [
        {
            "kind": kind,
            "bar of the null": each.bar,
            "standing out": len(each.standing_out()),
            "highest": float(each.scores.max()),
            "its z": float(each.z.max()),
        }
        for kind, each in found.items()
    ]
    report_table("Heads of persimmon-mini by detector", rows)


# The two parts of a score


def test_the_parts_sum_to_the_models_scores():
    model, ids = tiny(), torch.randint(3, 128, (2, 9), generator=torch.Generator().manual_seed(0))
    taps = ("rotated_query", "rotated_key", "scores")
    trace = capture(model, ids, only=[f"layers.1.self_attn.{tap}" for tap in taps])
    query, key, scores = (trace[f"layers.1.self_attn.{tap}"] for tap in taps)
    rotated, passed = score_parts(query, key, model.config.rotary_dim)
    visible = torch.ones(9, 9).tril().bool()
    torch.testing.assert_close((rotated + passed)[..., visible], scores[..., visible])
    masked = rotated + passed + causal_mask(None, 9, 9, torch.float32, torch.device("cpu"))
    torch.testing.assert_close(masked, scores)


def test_the_passed_part_does_not_know_the_position():
    model = tiny()
    ids = torch.randint(3, 128, (1, 9), generator=torch.Generator().manual_seed(0))
    names = ["layers.0.self_attn.rotated_query", "layers.0.self_attn.rotated_key"]
    parts = []
    for positions in (torch.arange(9)[None], 2 * torch.arange(9)[None]):
        trace = capture(model, ids, only=names, position_ids=positions)
        parts.append(score_parts(trace[names[0]], trace[names[1]], model.config.rotary_dim))
    (rotated, passed), (stretched, passed_again) = parts
    torch.testing.assert_close(passed, passed_again)
    assert (rotated - stretched).abs().max() > 0.01


def test_spread_is_blind_to_what_all_keys_share_and_to_the_future():
    part = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(1))
    changed = part + torch.randn(2, 6, 1, generator=torch.Generator().manual_seed(2))
    changed += torch.full((6, 6), 50.0).triu(diagonal=1)
    torch.testing.assert_close(spread(changed), spread(part), rtol=1e-4, atol=1e-5)
    deviations = [row[: q + 1] - row[: q + 1].mean() for q, row in enumerate(part[0])]
    by_hand = (torch.cat(deviations) ** 2).mean().sqrt()
    torch.testing.assert_close(spread(part)[0], by_hand)


def test_the_share_of_the_rotated_part():
    part = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    assert float(rotated_share(3 * part, part)) == pytest.approx(0.75)
    assert float(rotated_share(torch.zeros(6, 6), part)) == 0.0


def test_the_table_of_shares_is_that_of_each_row_and_head():
    model, ids = tiny(), torch.randint(3, 128, (2, 9), generator=torch.Generator().manual_seed(0))
    shares = rotated_shares(model, ids)
    assert shares.shape == (2, 4)
    trace = capture(model, ids, only=["rotated_query", "rotated_key"])
    channels = model.config.rotary_dim
    for layer in range(2):
        query, key = (trace[f"layers.{layer}.self_attn.rotated_{tap}"] for tap in ("query", "key"))
        for head in range(4):
            each = [
                rotated_share(
                    q[:, :channels] @ k[:, :channels].T / 4, q[:, channels:] @ k[:, channels:].T / 4
                )  # head_dim is 16
                for q, k in zip(query[:, head], key[:, head])
            ]
            assert float(shares[layer, head]) == pytest.approx(float(sum(each)) / 2, rel=1e-4)


def test_patterns_have_a_layer_axis_and_leave_the_model_as_it_was():
    model, ids = tiny(), torch.randint(3, 128, (2, 9), generator=torch.Generator().manual_seed(0))
    before = model.config.attn_implementation
    patterns = patterns_of(model, ids)
    assert patterns.shape == (2, 2, 4, 9, 9)
    assert model.config.attn_implementation == before
    torch.testing.assert_close(patterns.sum(dim=-1), torch.ones(2, 2, 4, 9))
