"""The precision explorer shows what the comparison found, and every control moves it."""

import base64
import math

import pytest
import torch

from persimmon_lab.numerics.compare import compare, in_dtype
from persimmon_lab.numerics.islands import keep_in_float32
from persimmon_lab.numerics.stress import scale_mlp, scale_residual
from persimmon_lab.widgets.panels import precision
from persimmon_lab.widgets.panels.precision import Bench, PrecisionExplorer, Settings, render, told, verdict
from persimmon_lab.widgets.pictures import as_png

TEXT = "To be, or not to be"


@pytest.fixture
def explorer(model, tokenizer):
    return PrecisionExplorer(model, tokenizer, TEXT, "a tiny model")


def ids(tokenizer):
    return tokenizer(TEXT, return_tensors="pt").input_ids


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def crossed(axes) -> list[float]:
    return [float(y) for line in axes.get_lines() if line.get_marker() == "X" for y in line.get_ydata()]


@pytest.mark.parametrize(
    ("settings", "stress"),
    [
        (Settings("bfloat16", "heads"), lambda model: model),
        (Settings("float16", "squared ReLU", "MLP", 4.0), lambda model: scale_mlp(model, 4.0)),
        (Settings("float16", "residual stream", "residual stream", 16.0), lambda model: scale_residual(model, 16.0)),
    ],
)
def test_the_curves_are_the_comparison(model, tokenizer, settings, stress):
    path = {"heads": "self_attn.head_output", "squared ReLU": "mlp.activations"}.get(settings.module, "residual stream")
    left, right = render(Bench(model, ids(tokenizer)), settings, "a tiny model").axes
    stressed, calm = stress(model), model
    dtype = getattr(torch, settings.dtype)
    found, before = (compare(each, {"half": in_dtype(each, dtype)}, ids(tokenizer)) for each in (stressed, calm))
    moved = f"{settings.dtype}, as set" if settings.factor != 1 else settings.dtype
    assert list(lines(left)[moved].get_ydata()) == found.by_layer("half")[path].tolist()
    if settings.factor != 1:
        assert list(lines(left)[f"{settings.dtype}, left alone"].get_ydata()) == before.by_layer("half")[path].tolist()
    shown = lines(right)
    assert list(shown) == list(dict.fromkeys(["pre-activations", "squared ReLU", "residual stream", settings.module]))
    sizes = found.by_layer("half", "largest")
    assert list(shown["pre-activations"].get_ydata()) == sizes["mlp.dense_h_to_4h"].tolist()
    assert list(shown[settings.module].get_ydata()) == sizes[path].tolist()
    assert not crossed(right)


def test_what_overflows_is_crossed_out_and_named(model, tokenizer):
    bench, settings = Bench(model, ids(tokenizer)), Settings("float16", factor=2.0**10)
    left, right = render(bench, settings, "a tiny model").axes
    stressed = scale_mlp(model, 2.0**10)
    sizes = compare(stressed, {"half": in_dtype(stressed, torch.float16)}, ids(tokenizer)).by_layer("half", "largest")
    beyond = [each for each in sizes["mlp.activations"].tolist() if each > 65504]
    assert beyond
    assert crossed(right) == beyond
    assert any("not finite" in name for name in lines(left))
    done, became = told(bench, settings)
    assert done.startswith("stressed: MLP pre-activations of all layers times 1024")
    assert became.startswith("not finite from model.layers.")
    assert "float16 ends at 65,504" in became
    assert bench.compare(settings).predictions["float16"].kl.max() == math.inf


def test_islands_bring_it_back_and_are_not_crossed_out(model, tokenizer):
    bench = Bench(model, ids(tokenizer))
    left, right = render(bench, Settings("float16", factor=2.0**10, islands=True), "a tiny model").axes
    assert not crossed(left) + crossed(right)
    stressed = scale_mlp(model, 2.0**10)
    mixed = keep_in_float32(stressed, torch.float16, ["*.mlp"])
    found = compare(stressed, {"half": mixed}, ids(tokenizer))
    assert list(lines(left)["float16, as set"].get_ydata()) == found.growth()["half"].tolist()


def test_bfloat16_does_not_overflow(model, tokenizer):
    bench, settings = Bench(model, ids(tokenizer)), Settings("bfloat16", factor=2.0**10)
    left, right = render(bench, settings, "a tiny model").axes
    assert not crossed(left) + crossed(right)
    assert told(bench, settings)[1].startswith("mean KL")
    assert [text.get_text() for text in right.texts] == ["bfloat16\nends far above,\nat 3.4e38 ↑"]


def test_the_verdict_in_numbers(model, tokenizer):
    comparison = compare(model, {"bfloat16": in_dtype(model, torch.bfloat16)}, ids(tokenizer))
    made = comparison.predictions["bfloat16"]
    positions = ids(tokenizer).shape[1]
    assert verdict(comparison, "bfloat16") == (
        f"mean KL {float(made.kl.mean()):.1e} nats, {int(made.flipped.sum())} of {positions} likeliest tokens differ, "
        f"perplexity {made.perplexity:.4g} (in float32 {made.reference_perplexity:.4g})"
    )


@pytest.mark.parametrize(
    ("control", "value"),
    [("dtype", "bfloat16"), ("module", "heads"), ("factor", 2.0**10), ("islands", True)],
)
def test_every_control_changes_the_picture_and_the_settings(explorer, control, value):
    before = bytes(explorer.picture.value)
    assert before.startswith(b"\x89PNG")
    assert explorer.settings == Settings()
    getattr(explorer, control).value = value
    assert bytes(explorer.picture.value) != before
    assert explorer.settings == Settings(**{control: value})


def test_the_stress_counts_where_there_is_a_factor(explorer):
    before = bytes(explorer.picture.value)
    explorer.stress.value = "residual stream"
    assert bytes(explorer.picture.value) == before
    explorer.factor.value = 2.0**13
    stressed = bytes(explorer.picture.value)
    explorer.stress.value = "MLP"
    assert len({before, stressed, bytes(explorer.picture.value)}) == 3


def test_what_was_computed_once_is_only_drawn_again(explorer, monkeypatch):
    explorer.factor.value = 8.0
    monkeypatch.setattr(precision, "compare", None)
    explorer.module.value = "MLP"
    explorer.factor.value = 1.0
    explorer.stress.value = "residual stream"
    explorer.stress.value = "MLP"
    explorer.factor.value = 8.0


def test_a_model_in_half_precision_is_explored_in_float32(model, tokenizer):
    bench = Bench(in_dtype(model, torch.bfloat16), ids(tokenizer))
    assert bench.model.dtype is torch.float32
    assert verdict(bench.compare(Settings("bfloat16")), "bfloat16").startswith("mean KL")


def test_it_says_in_words_what_was_done_and_what_became_of_it(explorer):
    assert explorer.told.value.startswith("not stressed<br>mean KL")
    explorer.factor.value = 2.0**10
    done, became = explorer.told.value.split("<br>")
    assert "times 1024" in done
    assert became.startswith("not finite from")
    explorer.islands.value = True
    assert "times 1024" in explorer.told.value
    assert "<br>mean KL" in explorer.told.value
    explorer.islands.value = False
    assert "<br>not finite" in explorer.told.value
    explorer.factor.value = 2.0
    assert "<br>mean KL" in explorer.told.value


def test_what_it_says_is_text(explorer, monkeypatch):
    monkeypatch.setattr(precision, "told", lambda bench, settings: ("<script>", "a & b"))
    explorer.draw()
    assert explorer.told.value == "&lt;script&gt;<br>a &amp; b"


def test_a_page_that_cannot_run_it_shows_its_figure_and_its_words(explorer):
    data, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]) == as_png(explorer.static())
    assert metadata["image/png"]["width"] == 900
    title, note = (text.get_text() for text in explorer.static().texts)
    assert title == "a tiny model in float16, against float32: residual stream"
    assert note == "\n".join(told(explorer.bench, explorer.settings))


def test_its_name_is_what_it_shows(explorer):
    explorer.factor.value = 64.0
    assert repr(explorer) == "PrecisionExplorer(float16, residual stream, MLP × 64)"


def test_the_shipped_model_is_explored_by_default():
    explorer = PrecisionExplorer(text=TEXT)
    assert explorer.bench.model.config.num_hidden_layers == 8
    assert explorer.static().texts[0].get_text().startswith("persimmon-mini in float16")


def test_a_model_without_its_tokenizer_is_refused(model):
    with pytest.raises(ValueError, match="a model together with its tokenizer"):
        PrecisionExplorer(model)
