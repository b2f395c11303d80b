"""The gain explorer shows what the layer would compute, and every control moves it."""

import base64
import dataclasses
import math

import pytest
import torch
from einops import rearrange

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, load_mini
from persimmon_lab.numerics.bounds import layer_bound
from persimmon_lab.trace.capture import capture
from persimmon_lab.widgets import reading
from persimmon_lab.widgets.panels import gain
from persimmon_lab.widgets.panels.gain import GAINS, Bench, GainExplorer, Settings, render, told
from tests.viz.drawing import lines

TEXT = "To be, or not to be"


@pytest.fixture
def model(model):
    """Norms whose weights and biases are not 1 and 0, as training leaves them."""
    generator = torch.Generator().manual_seed(1)
    for layer in model.model.layers:
        for norm in (layer.self_attn.q_layernorm, layer.self_attn.k_layernorm):
            with torch.no_grad():
                norm.weight += 0.5 * torch.randn(norm.weight.shape, generator=generator)
                norm.bias += 0.5 * torch.randn(norm.bias.shape, generator=generator)
        with torch.no_grad():
            layer.self_attn.query_key_value.weight *= 20
    return model


@pytest.fixture
def bench(model, tokenizer):
    return Bench(model, tokenizer, TEXT)


@pytest.fixture
def explorer(model, tokenizer):
    return GainExplorer(model, tokenizer, TEXT, "a tiny model", Settings(0, 0))


def grown(model, layer, factor):
    """The model with the weights and biases that make one layer's queries and keys multiplied."""
    linear, heads = model.model.layers[layer].self_attn.query_key_value, model.config.num_attention_heads
    with torch.no_grad():
        for parameter in (linear.weight, linear.bias):
            rows = rearrange(parameter, "(head three channel) ... -> three head channel ...", three=3, head=heads)
            rows[:2] *= factor
    return model


@pytest.mark.parametrize(("layer", "head"), [(0, 0), (1, 2)])
@pytest.mark.parametrize("factor", [1.0, 0.5, 4.0])
def test_with_the_norm_the_scores_are_those_of_a_model_with_larger_weights(model, tokenizer, layer, head, factor):
    mine = Bench(model, tokenizer, TEXT).scores(Settings(layer, head, factor))
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    theirs = capture(grown(model, layer, factor), ids, only=["scores"]).stacked("scores")[layer, 0, head]
    assert torch.allclose(mine, theirs, atol=1e-4)


def test_without_the_norm_they_are_those_of_a_model_without_it(model, tokenizer):
    """In the first layer, whose input is the same."""
    mine = Bench(model, tokenizer, TEXT).scores(Settings(0, 1, 2.0, norm=False))
    bare = PersimmonForCausalLM(dataclasses.replace(model.config, qk_layernorm=False))
    bare.load_state_dict({name: each for name, each in model.state_dict().items() if "self_attn.q_l" not in name
                          and "self_attn.k_l" not in name})  # fmt: skip
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    theirs = capture(grown(bare.eval(), 0, 2.0), ids, only=["scores"]).stacked("scores")[0, 0, 1]
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_without_the_norm_scores_grow_with_the_square_of_the_gain(bench):
    once, thrice = (bench.scores(Settings(1, 1, factor, norm=False))[bench.visible] for factor in (1.0, 3.0))
    assert torch.allclose(thrice, 9 * once, rtol=1e-4, atol=1e-5)


def test_entropy_is_of_the_queries_with_a_choice_in_bits(bench):
    settings = Settings(1, 0, 0.5)
    rows = bench.scores(settings).double().softmax(dim=-1)[1:]
    expected = sum(-sum(p * math.log2(p) for p in row if p > 0) for row in rows.tolist()) / len(rows)
    assert bench.entropy(settings) == pytest.approx(expected, rel=1e-5)
    nearly_flat = bench.entropy(Settings(1, 0, 1e-4, norm=False))
    choices = [math.log2(count) for count in range(2, len(bench.tokens) + 1)]
    assert nearly_flat == pytest.approx(sum(choices) / len(choices), rel=1e-4)


def test_the_figure_shows_the_heads_numbers(bench, model):
    settings = Settings(1, 3, GAINS[-1], norm=False)
    above, below, right = render(bench, settings, "a tiny model").axes
    scores = bench.scores(settings)
    assert sum(bar.get_height() for bar in above.patches) == int(bench.visible.sum())
    largest, bound = scores[bench.visible].abs().max(), layer_bound(model.model.layers[1].self_attn)
    assert above.get_title(loc="left") == f"largest {largest:,.1f}, bound {bound:.1f}"
    for name, norm in (("with the norm", True), ("without the norm", False)):
        expected = [bench.entropy(Settings(1, 3, each, norm)) for each in GAINS]
        assert list(lines(below)[name].get_ydata()) == pytest.approx(expected)
    (mark,) = [line for line in below.get_lines() if line.get_marker() == "o"]
    assert mark.get_ydata()[0] == pytest.approx(bench.entropy(settings))
    shown = torch.tensor(right.get_images()[0].get_array().data)
    assert torch.allclose(shown, scores.softmax(dim=-1).double(), atol=1e-6)


def test_the_axis_of_scores_does_not_move_with_the_slider(bench):
    limits = [
        render(bench, Settings(0, 0, each, norm), "").axes[0].get_xlim()
        for each in GAINS[::7]
        for norm in (True, False)
    ]
    assert len(set(limits)) == 1


def test_what_is_told_is_what_is_shown(bench):
    settings = Settings(0, 2, 2.0, norm=False)
    sentence = told(bench, settings)
    largest = bench.scores(settings)[bench.visible].abs().max()
    assert sentence.startswith("Layer 0, head 2, queries and keys × 2, without the norm: ")
    assert f"largest score {largest:,.1f} (bound with the norm {bench.bounds[0]:.1f})" in sentence
    for each in (settings, Settings(0, 2, GAINS[0], norm=False)):
        pattern = bench.scores(each).softmax(dim=-1)  # of queries with a choice: the first has none
        assert f"on average {float(pattern[1:].amax(dim=-1).mean()):.0%} of" in told(bench, each)
    assert ", with the norm: " in told(bench, Settings(0, 2, 2.0))


@pytest.mark.parametrize(
    ("control", "value", "fields"),
    [
        ("gain", 4.0, {"gain": 4.0}),
        ("norm", False, {"norm": False}),
        ("layer", 1, {"layer": 1}),
        ("head", 2, {"head": 2}),
    ],
)
def test_every_control_changes_picture_and_words(explorer, control, value, fields):
    before, words = bytes(explorer.picture.value), explorer.told.value
    assert before.startswith(b"\x89PNG")
    getattr(explorer, control).value = value
    assert bytes(explorer.picture.value) != before
    assert explorer.told.value != words
    assert explorer.settings == dataclasses.replace(Settings(0, 0), **fields)


def test_words_are_escaped(explorer, monkeypatch):
    monkeypatch.setattr(gain, "told", lambda *_: "<script>")
    explorer.gain.value = 2.0
    assert explorer.told.value == "&lt;script&gt;"


def test_it_runs_the_model_once_and_leaves_it_as_it_was(model, tokenizer):
    before = {name: each.clone() for name, each in model.state_dict().items()}
    model.bfloat16()
    explorer = GainExplorer(model, tokenizer, TEXT)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    explorer.gain.value = 4.0
    explorer.norm.value = False
    assert not calls
    assert {each.dtype for each in model.state_dict().values()} == {torch.bfloat16}
    assert all(torch.equal(each, before[name].bfloat16()) for name, each in model.state_dict().items())


def test_start_and_name_and_a_page_that_cannot_run_it(explorer, model, tokenizer):
    assert repr(explorer) == "GainExplorer(layer 0, head 0, × 1, with norm)"
    data, metadata = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base64.b64decode(data["image/png"]) == bytes(explorer.picture.value)
    assert metadata["image/png"]["width"] == 900
    assert explorer.static().get_suptitle() == "a tiny model, layer 0, head 0: queries and keys × 1, with the norm"
    # The default layer and head are those of the shipped model; a smaller one starts at its last.
    assert GainExplorer(model, tokenizer, TEXT).settings.layer == model.config.num_hidden_layers - 1


def test_the_shipped_model_is_the_default():
    explorer = GainExplorer()
    assert (explorer.layer.max, explorer.head.max, len(explorer.bench.tokens)) == (
        7,
        7,
        len(load_mini()[1](reading.TEXT).input_ids),
    )
    assert explorer.settings == Settings(6, 3, 1.0, True)


def test_a_model_alone_and_a_model_without_the_norm_are_refused(model, tokenizer):
    with pytest.raises(ValueError, match="together with its tokenizer"):
        GainExplorer(model)
    bare = PersimmonForCausalLM(PersimmonConfig.tiny(vocab_size=tokenizer.vocab_size, qk_layernorm=False))
    with pytest.raises(ValueError, match="no norm on queries and keys"):
        GainExplorer(bare, tokenizer, TEXT)
