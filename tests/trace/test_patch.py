"""Activations in: what is replaced is what the model goes on with, and only within the block."""

import pytest
import torch

from persimmon_lab import PersimmonForSequenceClassification, PersimmonModel
from persimmon_lab.anatomy import axes_of
from persimmon_lab.numerics.tolerances import ELEMENTS
from persimmon_lab.trace.capture import capture, capturing
from persimmon_lab.trace.names import sites
from persimmon_lab.trace.patch import patch
from tests.models import ids, tiny
from tests.trace.hooks_left import left_behind


def other_ids():
    return ids().flip(0).roll(2, dims=1)


@torch.no_grad()
def logits(model, of=None):
    return model(ids() if of is None else of).logits


def names_with_axes(model) -> list[str]:
    return [site.name for site in sites(model, ["*", "*:input"]) if axes_of(site.name)]


def test_everything_from_another_prompt_is_the_other_prompt():
    model = tiny(attn_implementation="eager")
    other = capture(model, other_ids(), only=["*", "*:input"])
    with patch(model, {name: lambda x, name=name: other[name] for name in other}):
        assert torch.equal(logits(model), other.output.logits)
    assert not torch.allclose(logits(model), other.output.logits, atol=0.1)


@pytest.mark.parametrize("name", ["embed_tokens", "layers.0", "layers.1:input", "layers.1", "final_layernorm:input",
                                  "final_layernorm", "lm_head:input", "lm_head"])  # fmt: skip
def test_what_all_must_pass_through_decides_all(name):
    """The stream at one place from another prompt, and everything after it is that of the other prompt."""
    model = tiny()
    other = capture(model, other_ids(), only=[name])
    with patch(model, {name: lambda x: other[name]}):
        assert torch.equal(logits(model), other.output.logits)


def test_attention_and_mlp_of_another_prompt_leave_the_embedding():
    """Stream = embedding + what the layers add, so exchanging all that is added leaves a difference of embeddings."""
    model = tiny()
    mine, other = (capture(model, each, only=["layers.0:input", "layers.1"]) for each in (ids(), other_ids()))
    added = capture(model, other_ids(), only=["self_attn", "mlp"])
    with patch(model, {name: lambda x, name=name: added[name] for name in added}):
        patched = capture(model, ids(), only=["layers.1"])
    expected = other["layers.1"] - other["layers.0:input"] + mine["layers.0:input"]
    assert torch.allclose(patched["layers.1"], expected, atol=ELEMENTS[torch.float32])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_every_name_can_be_patched_with_what_it_was(implementation):
    model = tiny(attn_implementation=implementation)
    seen = []
    names = [name for name in names_with_axes(model) if not name.endswith(("scores", "pattern", ":input"))]
    before = logits(model)
    with patch(model, {name: lambda x, name=name: seen.append(name) or x for name in names}):
        assert torch.equal(logits(model), before)
    assert sorted(seen) == sorted(names)


def test_zeroing_a_head_is_zeroing_its_columns_of_dense():
    model, without = tiny(), tiny()

    def zero(x):
        x[:, 2] = 0
        return x

    with torch.no_grad():
        without.model.layers[1].self_attn.dense.weight[:, 2 * 16 : 3 * 16] = 0
    with patch(model, {"layers.1.self_attn.head_output": zero}):
        assert torch.allclose(logits(model), logits(without), atol=1e-6)


def test_a_function_may_write_into_what_it_is_given():
    """It gets a copy: the norm's input is the stream itself, which the sum after it must find unchanged."""
    model = tiny()

    def zero(x):
        return x.zero_()

    stream = capture(model, ids(), only=["layers.0:input"])["layers.0:input"]
    with patch(model, {"layers.0.input_layernorm:input": zero, "layers.0.mlp": zero}):
        trace = capture(model, ids(), only=["layers.0", "layers.0.self_attn", "layers.0:input"])
    assert torch.equal(trace["layers.0:input"], stream)
    assert torch.equal(trace["layers.0"], stream + trace["layers.0.self_attn"])


def test_an_input_is_what_one_module_is_given():
    """The stream between attention and MLP, patched at the norm, changes what the MLP reads and not what it adds to."""
    model = tiny()
    name = "layers.0.post_attention_layernorm:input"
    before = capture(model, ids(), only=[name, "layers.0"])
    with patch(model, {name: lambda x: 2 * x + 1}):
        after = capture(model, ids(), only=[name, "layers.0", "layers.0.mlp", "layers.0.mlp:input"])
    layer = model.model.layers[0]
    assert torch.equal(after[name], 2 * before[name] + 1)
    assert torch.equal(after["layers.0.mlp:input"], layer.post_attention_layernorm(2 * before[name] + 1))
    assert torch.equal(after["layers.0"], before[name] + after["layers.0.mlp"])


def test_a_uniform_pattern_makes_each_head_the_mean_of_values():
    model = tiny()
    uniform = (torch.ones(9, 9).tril() / torch.arange(1, 10)[:, None]).expand(2, 4, 9, 9)
    with patch(model, {"pattern": lambda _: uniform}):
        trace = capture(model, ids(), only=["pattern", "value", "head_output"], output_attentions=True)
    assert torch.equal(trace["layers.0.self_attn.pattern"], uniform)
    assert torch.equal(trace.output.attentions[1], uniform)
    means = trace["layers.1.self_attn.value"].cumsum(2) / torch.arange(1, 10)[:, None]
    assert torch.allclose(trace["layers.1.self_attn.head_output"], means, atol=1e-6)
    assert not left_behind(model)


def test_scores_of_minus_infinity_blind_a_position():
    model = tiny()

    def blind(scores):
        return scores.index_fill(3, torch.tensor([0]), -1e30)

    with patch(model, {"scores": blind}):
        trace = capture(model, ids(), only=["pattern"])
    assert not trace.stacked("pattern")[..., 1:, 0].any()


def test_functions_for_one_activation_act_in_their_order():
    model = tiny()
    embedded = capture(model, ids(), only=["embed_tokens"])["embed_tokens"]
    functions = {"embed_tokens": lambda x: x + 1, "model.embed_tokens": lambda x: x * 3, "embed_*": lambda x: x - 2}
    with patch(model, functions), patch(model, {"embed_tokens": lambda x: x * 5}):
        seen = capture(model, ids(), only=["layers.0:input"])["layers.0:input"]
    assert torch.equal(seen, ((embedded + 1) * 3 - 2) * 5)


@pytest.mark.parametrize("kind", ["mlp", "mlp:input"])
def test_a_capture_sees_what_was_patched_whichever_was_opened_first(kind):
    model, name = tiny(), f"model.layers.1.{kind}"
    before = capture(model, ids(), only=[name])[name]

    def double(x):
        return 2 * x

    with patch(model, {name: double}), capturing(model, only=[name]) as inner:
        model(ids())
    with capturing(model, only=[name]) as outer, patch(model, {name: double}), patch(model, {name: double}):
        model(ids())
    assert torch.equal(inner[0][name], 2 * before)
    assert torch.equal(outer[0][name], 4 * before)


def test_during_generation_each_pass_is_patched():
    """Zeroed heads while generating are zeroed columns of the weights, also with a cache."""
    model, without = tiny(), tiny()
    shapes = []

    def zero(x):
        shapes.append(tuple(x.shape))
        x[:, 1] = 0
        return x

    with torch.no_grad():
        for layer in without.model.layers:
            layer.self_attn.dense.weight[:, 16:32] = 0
    arguments = {"max_new_tokens": 6, "eos_token_id": None}
    with patch(model, {"head_output": zero}):
        patched = model.generate(ids(), **arguments)
    assert torch.equal(patched, without.generate(ids(), **arguments))
    assert not torch.equal(patched, model.generate(ids(), **arguments))
    assert shapes == [(2, 4, 9, 16)] * 2 + [(2, 4, 1, 16)] * 10


def test_generation_with_a_patched_pattern_is_eager():
    model, seen = tiny(), []
    with patch(model, {"layers.0.self_attn.pattern": lambda x: seen.append(tuple(x.shape)) or x}):
        model.generate(ids(), max_new_tokens=2, eos_token_id=None)
    assert seen == [(2, 4, 9, 9), (2, 4, 1, 10)]


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_afterwards_everything_is_as_it_was(before):
    model = tiny(attn_implementation=before)
    expected = logits(model)
    functions = {"layers.0:input": lambda x: x * 0, "scores": lambda x: x * 0}
    with pytest.raises(RuntimeError, match="mine"), patch(model, functions):
        raise RuntimeError("mine")
    with pytest.raises(ZeroDivisionError), patch(model, {"pattern": lambda x: 1 / 0}):
        logits(model)

    def steps():
        with patch(model, functions):
            yield logits(model)
            yield logits(model)

    walk = steps()
    assert not torch.equal(next(walk), expected)
    walk.close()
    with pytest.raises(ValueError, match="no module matches"), patch(model, functions | {"mlb": lambda x: x}):
        pass
    assert model.config.attn_implementation == before
    assert not [each for each in left_behind(model) if each != "eager"]
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize(
    ("name", "function", "error", "message"),
    [
        ("layers.0", lambda x: x[:, -1:], ValueError, r"layers.0 returned shape \(2, 1, 64\).* shape \(2, 9, 64\)"),
        ("layers.0:input", lambda x: x[0], ValueError, r"layers.0:input returned shape \(9, 64\)"),
        ("mlp", lambda x: x.double(), ValueError, "returned dtype torch.float64.* dtype torch.float32"),
        ("mlp", lambda x: x.to("meta"), ValueError, "returned device meta.* device cpu"),
        ("mlp", lambda x: None, TypeError, "layers.0.mlp returned NoneType; return the tensor"),
        ("mlp:input", lambda x: 0.0, TypeError, "returned float"),
        ("model", lambda x: x, TypeError, "model is no tensor of floats"),
        ("embed_tokens:input", lambda x: x, TypeError, "no tensor of floats"),
    ],
)
def test_a_result_that_does_not_fit_is_an_error(name, function, error, message):
    model = tiny()
    with pytest.raises(error, match=message), patch(model, {name: function}):
        logits(model)
    assert not left_behind(model)


def test_the_body_and_the_classification_head():
    body, classifier = tiny(PersimmonModel), tiny(PersimmonForSequenceClassification, pad_token_id=0)
    with patch(body, {"layers.1": lambda x: torch.ones_like(x)}):
        expected = body.final_layernorm(torch.ones(2, 9, 64))
        assert torch.equal(body(ids()).last_hidden_state, expected)
    with patch(classifier, {"score": lambda x: x * 0 + 4}):
        assert torch.equal(classifier(ids()).logits, torch.full((2, 2), 4.0))


def test_gradients_flow_through_a_patch():
    model, scale = tiny(), torch.tensor(2.0, requires_grad=True)
    with patch(model, {"layers.0.mlp": lambda x: scale * x}):
        model(ids()).logits.sum().backward()
    assert scale.grad.abs() > 0
    assert model.model.embed_tokens.weight.grad is not None
