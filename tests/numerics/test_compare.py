"""What the comparison reports is what can be worked out from all activations, kept."""

import math

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab.numerics.compare import compare, in_dtype
from persimmon_lab.numerics.measures import distance, predictions
from persimmon_lab.numerics.stress import scale_mlp
from tests.models import ids, tiny
from tests.numerics.counting import Counter, alive_by_itself


@torch.no_grad()
def everything(model) -> dict[str, torch.Tensor]:
    """The outputs of all modules, by hooks that keep them."""
    seen, handles = {}, []
    for path, module in model.named_modules():

        def remember(_module, _given, output, path=path):
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                seen[path] = first

        handles.append(module.register_forward_hook(remember))
    model(ids(), use_cache=False)
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(scope="module")
def reference():
    return in_dtype(tiny(), torch.float64)


def test_every_module_is_measured_against_the_reference(reference):
    candidates = {str(dtype): in_dtype(tiny(), dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)}
    frame = compare(reference, candidates, ids()).frame()
    exact = everything(reference)
    assert len(frame) == 3 * len(exact)
    for name, candidate in candidates.items():
        made, rows = everything(candidate), frame[frame["candidate"] == name].set_index("path")
        assert list(rows.index) == list(made)
        for path, row in rows.iterrows():
            error = float((made[path].double() - exact[path]).norm() / exact[path].norm())
            assert row["relative error"] == pytest.approx(error, rel=1e-9)
            assert row["signal to noise (dB)"] == pytest.approx(-20 * math.log10(error) if error else math.inf)
            assert row["largest"] == float(exact[path].abs().max())
            assert row["share of the format"] == row["largest"] / torch.finfo(candidate.dtype).max
            assert row["overflowed"] == 0


def test_half_precision_loses_what_its_fraction_is_short_of(reference):
    growth = compare(reference, {name: in_dtype(tiny(), getattr(torch, name)) for name in
                                 ("float32", "float16", "bfloat16")}, ids()).growth()  # fmt: skip
    assert list(growth.columns) == ["float32", "float16", "bfloat16"]
    assert list(growth.index) == [0, 1]
    for layer in growth.index:
        assert 4 < growth.loc[layer, "bfloat16"] / growth.loc[layer, "float16"] < 16  # 3 bits: about 8
        # 13 bits, 8,192, if float32 were not also what sums are kept in
        assert 1024 < growth.loc[layer, "float16"] / growth.loc[layer, "float32"] < 16384


def test_a_table_of_layers_and_modules(reference):
    comparison = compare(reference, {"half": in_dtype(tiny(), torch.float16)}, ids())
    exact = everything(reference)
    table = comparison.by_layer("half", "largest")
    assert list(table.index) == [0, 1]
    assert list(table.columns)[:2] == ["input_layernorm", "self_attn.query_key_value"]
    assert list(table.columns)[-2:] == ["dropout", "residual stream"]
    for layer in (0, 1):
        assert table.loc[layer, "mlp.activations"] == float(exact[f"model.layers.{layer}.mlp.activations"].abs().max())
        assert table.loc[layer, "residual stream"] == float(exact[f"model.layers.{layer}"].abs().max())
    frame = comparison.frame().set_index("path")
    assert comparison.by_layer("half").loc[1, "self_attn"] == frame.loc["model.layers.1.self_attn", "relative error"]


def test_predictions_are_those_of_torch(reference):
    candidate = in_dtype(tiny(), torch.bfloat16)
    made = compare(reference, {"half": candidate}, ids()).predictions["half"]
    with torch.no_grad():
        exact, half = (model(ids()).logits.double() for model in (reference, candidate))
    kl = F.kl_div(half.log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    assert torch.allclose(made.kl, kl, rtol=1e-9, atol=1e-15)
    assert torch.equal(made.flipped, exact.argmax(-1) != half.argmax(-1))
    for logits, perplexity in ((exact, made.reference_perplexity), (half, made.perplexity)):
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids()[:, 1:].flatten())
        assert perplexity == pytest.approx(float(loss.exp()))


def test_long_texts_and_large_tensors_are_measured_in_pieces(monkeypatch):
    """Whatever the size of a piece, the numbers are the same."""
    generator = torch.Generator().manual_seed(0)
    exact, other = torch.randn(2, 2, 5, 7, generator=generator)
    other[1, 3, 2] = math.inf
    whole = distance(exact, other), predictions(exact, other, torch.arange(10).reshape(2, 5) % 7)
    monkeypatch.setattr("persimmon_lab.numerics.measures.PIECE", 3)
    monkeypatch.setattr("persimmon_lab.numerics.measures.POSITIONS", 2)
    pieces = distance(exact, other), predictions(exact, other, torch.arange(10).reshape(2, 5) % 7)
    assert pieces[0] == whole[0]
    assert whole[0].first_bad == (1, 3, 2)
    assert torch.equal(pieces[1].kl, whole[1].kl)
    assert pieces[1].reference_perplexity == pytest.approx(whole[1].reference_perplexity)


def test_overflow_and_underflow_are_counted():
    exact = torch.tensor([1e-9, 2.9e-8, 3.1e-8, 0.0, 1.0, 70000.0, -1e9, 2.0], dtype=torch.float64)
    half = exact.half()
    half[2] = half[4] = 0  # wrong, but no underflow: they are not too small for float16
    there = distance(exact, half)
    assert (there.overflowed, there.underflowed) == (2, 2)
    assert there.first_bad == (5,)
    assert there.relative_error == math.inf
    assert there.signal_to_noise == -math.inf
    assert there.largest == 1e9
    assert there.share == 1e9 / 65504


def test_what_the_reference_cannot_hold_either_is_no_overflow():
    exact = torch.tensor([math.inf, math.nan, 1.0])
    there = distance(exact, exact.half())
    assert (there.overflowed, there.first_bad) == (0, None)
    assert there.relative_error == math.inf


def test_equal_tensors_and_zero_references():
    zeros = torch.zeros(3)
    assert distance(zeros, zeros).relative_error == 0
    assert distance(zeros, zeros).signal_to_noise == math.inf
    assert distance(zeros, zeros + 1e-3).relative_error == math.inf


def test_models_of_two_shapes_are_refused(reference):
    narrow = tiny(hidden_size=32)
    with pytest.raises(ValueError, match=r"embed_tokens has shape \(2, 9, 64\) in .* \(2, 9, 32\) in 'narrow'"):
        compare(reference, {"narrow": narrow}, ids())


def test_scores_are_compared_where_they_are_visible(reference):
    """Behind the mask stands each dtype's lowest number, which is no error."""
    eager = [in_dtype(tiny(attn_implementation="eager"), dtype) for dtype in (torch.float64, torch.float16)]
    frame = compare(eager[0], {"half": eager[1]}, ids()).frame()
    rows = frame[frame["operation"] == "scores"]
    assert len(rows) == 2
    assert (rows["relative error"] < 2e-3).all()
    assert (rows["largest"] < 100).all()


def test_the_first_number_that_is_not_finite_and_what_made_it():
    """Planted: layer 1 alone squares beyond float16's end; the second number from the same forward pass."""
    stressed = scale_mlp(tiny(), 128.0, layers=[1])
    comparison = compare(in_dtype(stressed, torch.float64), {"float16": in_dtype(stressed, torch.float16),
                                                             "bfloat16": in_dtype(stressed, torch.bfloat16)},
                         ids())  # fmt: skip
    first = comparison.first_non_finite["float16"]
    assert first.path == "model.layers.1.mlp.activations"
    exact, made = everything(in_dtype(stressed, torch.float64)), everything(in_dtype(stressed, torch.float16))
    index = tuple(made[first.path].isinf().nonzero()[0].tolist())
    assert (first.index, first.value) == (index, math.inf)
    squared = float(exact[first.path][index])
    assert first.exact == squared > 65504
    given = float(exact["model.layers.1.mlp.dense_h_to_4h"][index])
    assert given == pytest.approx(squared**0.5)
    assert str(first) == (
        f"model.layers.1.mlp.activations {list(index)}: squared ReLU of {given:.4g} is {squared:,.0f}; "
        "float16 ends at 65,504"
    )
    assert comparison.first_non_finite["bfloat16"] is None
    summary = comparison.summary()
    assert summary.loc["float16", "first not finite"] == str(first)
    assert summary.loc["bfloat16", "first not finite"] == "none"
    assert summary.loc["float16", "mean KL (nats)"] == math.inf
    assert summary.loc["bfloat16", "flipped"] <= 3
    assert not comparison.predictions["float16"].is_finite


def test_a_sum_that_is_too_large():
    model = tiny()
    with torch.no_grad():
        model.model.layers[0].mlp.dense_4h_to_h.weight *= 30000
    found = compare(model, {"half": in_dtype(model, torch.float16)}, ids()).first_non_finite["half"]
    assert found.path == "model.layers.0.mlp.dense_4h_to_h"
    assert abs(found.exact) > 65504
    assert str(found).endswith(f"linear map is {found.exact:,.0f}; float16 ends at 65,504")


def test_a_weight_that_was_lost_in_conversion():
    model = tiny()
    with torch.no_grad():
        model.model.layers[0].mlp.dense_4h_to_h.bias[3] = 70000
    found = compare(model, {"half": in_dtype(model, torch.float16)}, ids()).first_non_finite["half"]
    assert str(found) == (
        "model.layers.0.mlp.dense_4h_to_h [0, 0, 3]: linear map gives inf; its bias is not finite in float16"
    )


def test_an_operation_that_fails_on_numbers_it_could_hold():
    broken = tiny()
    broken.model.layers[1].mlp.act = lambda x: x.sqrt()
    found = compare(tiny(), {"broken": broken}, ids()).first_non_finite["broken"]
    assert found.path == "model.layers.1.mlp.activations"
    assert math.isnan(found.value)
    assert f"squared ReLU gives nan, where the reference has {found.exact:.4g}" in str(found)


def test_a_comparison_keeps_no_activations():
    models = [tiny(num_hidden_layers=4), tiny(num_hidden_layers=4)]
    counter = Counter(*models)
    compare(models[0], {"other": models[1]}, ids())
    alone = alive_by_itself(tiny(num_hidden_layers=4), lambda model: model(ids(), use_cache=False))
    assert counter.counts[0::2] == [own + other for own, other in zip(alone, [0, *alone])]
    assert counter.counts[1::2] == [2 * count for count in alone]


def test_only_some_modules_and_always_the_predictions(reference):
    candidate = {"half": in_dtype(tiny(), torch.bfloat16)}
    some = compare(reference, candidate, ids(), only=["*.mlp"])
    assert [module.path for module in some.modules] == ["model.layers.0.mlp", "model.layers.1.mlp"]
    assert torch.equal(some.predictions["half"].kl, compare(reference, candidate, ids()).predictions["half"].kl)


@pytest.mark.parametrize("nothing", [[], (), iter(())])
def test_no_pattern_at_all_is_refused(reference, nothing):
    with pytest.raises(ValueError, match="only is empty.*leave it out for all"):
        compare(reference, {"half": in_dtype(tiny(), torch.bfloat16)}, ids(), only=nothing)


@pytest.mark.parametrize(
    ("given", "message"), [([5], "5 is no pattern"), (5, "5 is no pattern"), ([None], "None is no")]
)
def test_patterns_that_are_no_text_are_named(reference, given, message, unchecked_annotations):
    with pytest.raises(TypeError, match=message):
        compare(reference, {"other": tiny()}, ids(), only=given)


@pytest.mark.parametrize(
    ("given", "message"),
    [("hi", "is a str"), ([1, 2], "is a list"), (ids()[0], r"shape \(9,\)"), (ids()[:, :0], r"shape \(2, 0\)")],
)
def test_ids_that_are_no_batch_are_named(reference, given, message, unchecked_annotations):
    with pytest.raises(TypeError, match=f"ids is .*{message.removeprefix('is ')}.*tokenizer"):
        compare(reference, {"other": tiny()}, given)


def test_a_converted_copy_is_tied_where_the_original_is():
    tied = tiny(tie_word_embeddings=True)
    half = in_dtype(tied, torch.float16)
    assert half.lm_head.weight is half.model.embed_tokens.weight
    assert half.lm_head.weight.dtype is torch.float16
    assert tied.lm_head.weight.dtype is torch.float32
    same = in_dtype(tied, torch.float32)
    assert same.lm_head.weight.data_ptr() != tied.lm_head.weight.data_ptr()
    assert all(torch.equal(one, other.float().half().float()) or one.dtype is torch.float16
               for one, other in zip(half.parameters(), tied.parameters()))  # fmt: skip


@pytest.mark.parametrize(
    ("only", "said"),
    [
        (["mlp.activation"], "no module of all models matches 'mlp.activation'; did you mean 'mlp.activations'"),
        (["layers.99"], "no module of all models matches 'layers.99'; did you mean 'layers."),
        (["*.mlp", "zzz"], "no module of all models matches 'zzz'"),
        (["mlp:input"], "no module of all models matches 'mlp:input'"),
        (["model"], "what matches 'model' made no tensor"),
    ],
)
def test_a_pattern_for_nothing_is_refused(reference, only, said):
    with pytest.raises(ValueError, match=said):
        compare(reference, {"half": in_dtype(tiny(), torch.bfloat16)}, ids(), only=only)


def test_one_pattern_may_come_without_a_list(reference):
    candidate = {"half": in_dtype(tiny(), torch.bfloat16)}
    alone, listed = (compare(reference, candidate, ids(), only=only) for only in ("mlp", ["mlp"]))
    assert alone.modules == listed.modules and len(alone.modules) == 2


def test_candidates_have_names(reference, unchecked_annotations):
    for candidates in (tiny(), [tiny()]):
        with pytest.raises(TypeError, match=f"candidates is a {type(candidates).__name__}; give the models by name"):
            compare(reference, candidates, ids())
    with pytest.raises(ValueError, match="candidates is empty"):
        compare(reference, {}, ids())


def test_a_comparison_shows_itself_in_a_few_lines():
    stressed = scale_mlp(tiny(), 2.0**9)
    halves = {f"half {number}": in_dtype(stressed, torch.float16) for number in range(5)}
    lines = repr(compare(in_dtype(stressed, torch.float64), halves, ids())).split("\n")
    assert lines[0].startswith("Comparison with float64, ")
    assert lines[1].startswith("  half 0: mean KL ") and "first not finite: model.layers.0.mlp" in lines[2]
    assert lines[-1] == "  and 2 more" and len(lines) <= 8
    assert max(map(len, lines)) < 160
    body = in_dtype(tiny(), torch.float64).model
    assert repr(compare(body, {"half": in_dtype(tiny(), torch.bfloat16).model}, ids())).endswith("half: no predictions")


def test_what_was_not_compared_is_said(reference):
    candidate = {"half": in_dtype(tiny(), torch.bfloat16)}
    head = compare(reference, candidate, ids(), only=["lm_head"])
    with pytest.raises(ValueError, match="no module of a layer was compared"):
        head.growth()
    with pytest.raises(ValueError, match="the residual stream was not compared"):
        compare(reference, candidate, ids(), only=["mlp"]).growth()
    with pytest.raises(ValueError, match="no candidate is called 'full'; there are half"):
        head.by_layer("full")
    with pytest.raises(ValueError, match="no column is called 'error'; there are candidate, path"):
        compare(reference, candidate, ids(), only=["mlp"]).by_layer("half", "error")
    with pytest.raises(ValueError, match="no lm_head"):
        compare(reference.model, {"half": candidate["half"].model}, ids()).summary()
