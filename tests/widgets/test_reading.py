"""What every widget that reads asks of its model: numbers, no dropout, and a name."""

import math

import ipywidgets
import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.mini import MINI
from persimmon_lab.modes import evaluating
from persimmon_lab.widgets import (
    AttentionExplorer,
    GainExplorer,
    GenerationPlayground,
    LensExplorer,
    PrecisionExplorer,
)
from persimmon_lab.widgets.reading import given_or_shipped, ids_to_read, name_of

TEXT = "To be, or not to be"
EXPLORERS = (LensExplorer, AttentionExplorer, GainExplorer, PrecisionExplorer)


@pytest.fixture
def dropping(tokenizer):
    """A model that trains, and drops three numbers of ten."""
    config = PersimmonConfig.tiny(
        vocab_size=tokenizer.vocab_size, max_position_embeddings=256, hidden_dropout=0.3, attention_dropout=0.3
    )
    return PersimmonForCausalLM(config, generator=torch.Generator().manual_seed(0)).train()


def numbers(explorer):
    """What an explorer shows, as tensors."""
    if isinstance(explorer, LensExplorer):
        return list(explorer.reading.streams.values())
    if isinstance(explorer, AttentionExplorer):
        return [explorer.reading.query, explorer.reading.key]
    if isinstance(explorer, GainExplorer):
        return [explorer.bench.queries, explorer.bench.keys]
    return [explorer.bench.compare(explorer.settings).predictions["float16"].kl]


@pytest.mark.parametrize("kind", EXPLORERS)
def test_a_model_that_trains_is_read_without_dropout_and_goes_on_training(kind, dropping, tokenizer):
    before = [module.training for module in dropping.modules()]
    readings = [numbers(kind(model=dropping, tokenizer=tokenizer, text=TEXT)) for _ in range(2)]
    assert [module.training for module in dropping.modules()] == before and all(before)
    expected = numbers(kind(model=dropping.eval(), tokenizer=tokenizer, text=TEXT))
    for reading in readings:
        for mine, right in zip(reading, expected, strict=True):
            assert torch.equal(mine, right)


def test_what_was_frozen_stays_so(dropping):
    dropping.model.layers[0].eval()
    before = [module.training for module in dropping.modules()]
    with pytest.raises(RuntimeError), evaluating(dropping):
        assert not any(module.training for module in dropping.modules())
        raise RuntimeError
    assert [module.training for module in dropping.modules()] == before
    assert True in before and False in before


def test_the_playground_writes_and_reads_again_without_dropout(dropping, tokenizer):
    one = GenerationPlayground(dropping, tokenizer, TEXT, temperature=0.0, max_new_tokens=8).generate().wait()
    index = 7
    kept = one.session.logits_at(one.branch, index)
    again = GenerationPlayground.from_json(dropping, tokenizer, one.tree.to_json())
    torch.testing.assert_close(again.session.logits_at(again.branch, index), kept, rtol=1e-4, atol=1e-4)
    assert dropping.training and dropping.model.training
    still = GenerationPlayground(dropping.eval(), tokenizer, TEXT, temperature=0.0, max_new_tokens=8).generate().wait()
    assert still.text == one.text


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("adept/persimmon-8b-base", "persimmon-8b-base"),
        ("/data/runs/mine/", "mine"),
        (str(MINI), "persimmon-mini"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_model_is_called_as_its_folder_is(model, origin, name):
    model.name_or_path = origin
    assert name_of(model) == name


def test_no_figure_calls_a_model_by_the_shipped_one_s_name(model, tokenizer):
    assert name_of(None) == "persimmon-mini"
    gain = GainExplorer(model, tokenizer, TEXT).static().get_suptitle()
    assert gain.startswith("Layer 1, head 3: ")
    precision = PrecisionExplorer(model, tokenizer, TEXT).static().texts[0].get_text()
    assert precision.startswith("In float16, against float32")
    model.name_or_path = "somebody/a $model$ of mine"
    assert GainExplorer(model, tokenizer, TEXT).static().get_suptitle().startswith("a $model$ of mine, layer 1")
    assert GainExplorer(model, tokenizer, TEXT, "another").static().get_suptitle().startswith("another, layer 1")


@pytest.mark.parametrize(
    ("kind", "axes", "said"), [(LensExplorer, -2, "Layer 1, after MLP, after"), (AttentionExplorer, -1, "Layer ")]
)
def test_the_still_pictures_of_texts_say_whose_they_are(kind, axes, said, model, tokenizer):
    def title(**options):
        explorer = kind(TEXT, model, tokenizer, **options)
        if kind is LensExplorer:
            explorer.stream = 2
        figure = explorer.static()
        figure.draw_without_rendering()
        return [title for each in figure.axes if (title := each.get_title(loc="left")) and said in title][-1]

    assert title().startswith(said)
    model.name_or_path = "somebody/a $model$ of mine"
    assert title().startswith(f"a $model$ of mine · {said}")
    assert title(name="another").startswith(f"another · {said}")


def test_one_is_not_many(tokenizer):
    config = PersimmonConfig.tiny(
        vocab_size=tokenizer.vocab_size, num_hidden_layers=1, num_attention_heads=1, hidden_size=16
    )
    model = PersimmonForCausalLM(config, generator=torch.Generator().manual_seed(0)).eval()
    assert ", 1 layer of 1 head, layer 0 head 0" in repr(AttentionExplorer(TEXT, model, tokenizer))
    with pytest.raises(ValueError, match="no head 1 in layer 0: the model has 1 layer of 1 head$"):
        AttentionExplorer(TEXT, model, tokenizer, layer=0, head=1)


@pytest.mark.parametrize("kind", [LensExplorer, GainExplorer])
def test_a_model_without_numbers_is_refused_in_words(kind, model, tokenizer):
    with pytest.raises(ValueError, match="the model is on the meta device"):
        kind(model=model.to("meta"), tokenizer=tokenizer, text=TEXT)


def test_counts_agree_with_their_nouns(model, tokenizer):
    length = tokenizer(TEXT, return_tensors="pt").input_ids.shape[1]
    model.config.max_position_embeddings = length - 1
    with pytest.raises(ValueError, match="shorten it by 1 token$"):
        ids_to_read(model, tokenizer, TEXT)
    assert "(1 token, " not in repr(LensExplorer("To", model, tokenizer))


WEIGHTS = {
    "model.layers.1.mlp.dense_h_to_4h.weight": "layer 1, its MLP",
    "model.layers.1.self_attn.query_key_value.weight": "layer 1, its attention",
    "model.layers.0.self_attn.q_layernorm.weight": "layer 0, its attention",
    "model.final_layernorm.bias": "the final norm or lm_head",
    "lm_head.weight": "the final norm or lm_head",
}


def poisoned(model, name):
    """The model with one weight that is NaN."""
    with torch.no_grad():
        model.get_parameter(name).flatten()[0] = math.nan
    return model


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("kind", EXPLORERS)
def test_a_model_with_a_weight_that_is_nan_is_displayed(kind, weight, model, tokenizer):
    explorer = kind(model=poisoned(model, weight), tokenizer=tokenizer, text=TEXT)
    data, metadata = explorer._repr_mimebundle_()
    assert data["image/png"] and metadata["image/png"]["alt"]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("value", [math.inf, -math.inf, 3e38])
def test_so_is_one_whose_numbers_grow_too_large(value, weight, model, tokenizer):
    """An infinite weight, and one that float32 holds while its products leave it: no NaN stands in the model."""
    with torch.no_grad():
        model.get_parameter(weight).flatten()[0] = value
    for kind in EXPLORERS:
        data, metadata = kind(model=model, tokenizer=tokenizer, text=TEXT)._repr_mimebundle_()
        assert data["image/png"] and metadata["image/png"]["alt"]


def test_a_playground_says_on_the_screen_that_float16_overflowed(tokenizer):
    model = PersimmonForCausalLM.from_pretrained(MINI, torch_dtype=torch.float16)
    with torch.no_grad():
        model.model.layers[2].mlp.dense_h_to_4h.weight.mul_(3000)
    playground = GenerationPlayground(model, tokenizer, TEXT, max_new_tokens=2, seed=1).generate().wait()
    assert "nan or infinity" in playground.view.error and "float16" in playground.view.error
    assert "application/vnd.jupyter.widget-view+json" in playground._repr_mimebundle_()


@pytest.mark.parametrize(("weight", "place"), WEIGHTS.items())
def test_the_lens_says_where_numbers_end(weight, place, model, tokenizer):
    explorer = LensExplorer(model=model, tokenizer=tokenizer, text=TEXT)
    assert explorer.warning == ""
    explorer = LensExplorer(model=poisoned(model, weight), tokenizer=tokenizer, text=TEXT)
    assert f"begin in {place};" in explorer.warning
    cells = explorer._window("mlp", 0)["cells"]
    assert [share for _, share, _ in cells[-1]] == [None] * len(cells[-1]), "JSON has no NaN"
    assert {(piece, follows) for piece, _, follows in cells[-1]} == {("⟨NaN⟩", 0)}
    is_lost = [row[1][1] is None for row in cells]
    assert is_lost == sorted(is_lost), "what comes before is shown"
    if place.startswith("layer 1"):
        assert is_lost == [False, False, True]
    html = explorer.details(len(cells) - 1, 1)
    assert "no token is the likeliest" in html and "nan" not in html.replace("(NaN or infinite)", "")
    assert explorer.static().get_suptitle() == explorer.warning
    with torch.no_grad():
        model.get_parameter(weight).flatten()[0] = 0.0
    explorer.text = "not to be"
    assert explorer.warning == "", "it is of the present reading"


def test_the_gain_explorer_says_how_many_scores_are_lost(model, tokenizer):
    weight = "model.layers.0.mlp.dense_h_to_4h.weight"
    explorer = GainExplorer(poisoned(model, weight), tokenizer, TEXT)
    explorer.layer.value = 0
    assert "largest score" in explorer.told.value
    explorer.layer.value = 1
    count = int(explorer.bench.visible.sum())
    assert f"{count} of {count} scores are not finite" in explorer.told.value
    above, below, _ = explorer.static().axes
    assert above.get_title(loc="left") == f"{count} of {count} scores not finite"
    assert below.get_title(loc="left") == "mean entropy not finite"
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")


def test_the_others_say_it_too(model, tokenizer):
    poisoned(model, "model.layers.0.mlp.dense_h_to_4h.weight")
    explorer = AttentionExplorer(model=model, tokenizer=tokenizer, text=TEXT)
    assert "begin in layer 1, head 0" in explorer.warning
    assert "not finite" in PrecisionExplorer(model, tokenizer, TEXT).told.value


def test_pictures_have_a_text(model, tokenizer):
    explorer = GainExplorer(model, tokenizer, TEXT)
    before = explorer.keeper.alt
    assert explorer.told.value and "largest score" in before
    explorer.head.value = 1
    assert explorer.keeper.alt != before and "head 1" in explorer.keeper.alt
    assert isinstance(explorer.picture, ipywidgets.Image)
    assert given_or_shipped(model, tokenizer) == (model, tokenizer)


@pytest.mark.parametrize("first_leaves_first", [True, False])
def test_of_two_that_read_at_once_the_last_one_ends_it(first_leaves_first):
    """A playground writes in its thread while another widget reads: neither may get the other's dropout back."""
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Dropout(0.5)).train()
    model[1].eval()
    one, other = evaluating(model), evaluating(model)
    one.__enter__()
    other.__enter__()
    first, last = (one, other) if first_leaves_first else (other, one)
    first.__exit__(None, None, None)
    assert not any(module.training for module in model.modules())
    last.__exit__(None, None, None)
    assert [module.training for module in model.modules()] == [True, True, False]
    with evaluating(model):
        assert not model.training
    assert model.training
