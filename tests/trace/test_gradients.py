"""Gradients of activations, against differences and against torch's own gradients of hidden states."""

import pytest
import torch

from persimmon_lab import PersimmonForSequenceClassification
from persimmon_lab.trace.capture import capture
from persimmon_lab.trace.patch import patch
from tests.models import ids, tiny
from tests.trace.hooks_left import left_behind

NAMES = [
    "layers.0:input", "layers.0", "layers.1", "post_attention_layernorm:input", "mlp", "head_output", "value",
    "pattern", "scores", "rotated_query",
]  # fmt: skip


def logit(output):
    return output.logits[0, -1, 7]


def by_differences(model, name: str, at: tuple[int, ...], step: float = 1e-6) -> float:
    """How the logit moves when one number of an activation does."""

    def moved(by: float) -> float:
        def move(x):
            x[at] += by
            return x

        with patch(model, {name: move}), torch.no_grad():
            return float(logit(model(ids())))

    return (moved(step) - moved(-step)) / (2 * step)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("layers.0:input", (0, 3, 5)),
        ("layers.0", (0, 8, 1)),
        ("layers.0.self_attn.head_output", (0, 2, 4, 3)),
        ("layers.0.self_attn.pattern", (0, 1, 6, 2)),
        ("layers.1.self_attn.scores", (0, 3, 8, 4)),
        ("layers.1.self_attn.rotated_key", (0, 0, 2, 9)),
        ("layers.0.mlp.activations", (0, 5, 77)),
        ("layers.1.mlp.dense_4h_to_h:input", (0, 8, 3)),
    ],
)
def test_a_gradient_is_what_the_logit_moves_by(name, at):
    model = tiny().double()
    trace = capture(model, ids(), only=[name], gradient_of=logit)
    gradient = trace.gradients[trace.names[0]]
    assert gradient.shape == trace[name].shape
    expected = by_differences(model, name, at)
    assert abs(expected) > 1e-5
    assert float(gradient[at]) == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert (gradient[1] == 0).all()  # the other row has no part in this logit


def test_gradients_are_those_of_torch():
    model = tiny()
    hidden = model.model.embed_tokens(ids()).detach().requires_grad_()
    output = model(inputs_embeds=hidden, output_hidden_states=True)
    expected = torch.autograd.grad(logit(output), output.hidden_states[:2])
    trace = capture(model, ids(), only=["layers.0:input", "layers.0"], gradient_of=logit)
    assert list(trace.gradients) == trace.names
    assert torch.allclose(trace.gradients["model.layers.0:input"], expected[0], atol=1e-6)
    assert torch.allclose(trace.gradients["model.layers.0"], expected[1], atol=1e-6)


@pytest.mark.parametrize("how", ["frozen", "no_grad", "checkpointed", "embeddings"])
def test_gradients_do_not_depend_on_what_else_needs_them(how):
    """Without any weight that needs a gradient, that of the middle of a layer is still one over norm and sum."""
    model = tiny()
    expected = capture(model, ids(), only=NAMES, gradient_of=logit)
    arguments = {"input_ids": ids()}
    if how == "frozen":
        model.requires_grad_(False)
    if how == "checkpointed":
        model.train().gradient_checkpointing_enable()
    if how == "embeddings":
        arguments = {"inputs_embeds": model.requires_grad_(False).model.embed_tokens(ids())}
    with torch.set_grad_enabled(how != "no_grad"):
        found = capture(model, only=NAMES, gradient_of=logit, **arguments)
    assert found.names == expected.names
    for name, gradient in expected.gradients.items():
        assert torch.allclose(found.gradients[name], gradient, atol=1e-6), name
    if how == "embeddings":
        assert not arguments["inputs_embeds"].requires_grad


def test_of_frozen_weights_any_one_place_has_the_whole_gradient():
    model = tiny()
    expected = capture(model, ids(), only=NAMES, gradient_of=logit).gradients
    model.requires_grad_(False)
    for name in expected:
        found = capture(model, ids(), only=[name], gradient_of=logit).gradients
        assert torch.allclose(found[name], expected[name], atol=1e-6), name


def test_nothing_is_left_on_the_model_or_the_results():
    model = tiny()
    trace = capture(model, ids(), only=NAMES, gradient_of=logit, output_hidden_states=True)
    assert not left_behind(model)
    tensors = [*trace.values(), *trace.gradients.values(), trace.output.logits, *trace.output.hidden_states]
    assert not any(tensor.requires_grad for tensor in tensors)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_gradients_are_cut_as_the_activations_are():
    model = tiny()
    whole = capture(model, ids(), only=["head_output"], gradient_of=logit)
    some = capture(model, ids(), only=["head_output"], heads=[3], positions=[-1, 2], gradient_of=logit)
    for name, gradient in whole.gradients.items():
        assert torch.equal(some.gradients[name], gradient[:, 3:4, [8, 2]])
        assert some.gradients[name].untyped_storage().nbytes() == some.gradients[name].nbytes


def test_what_has_no_part_in_the_number_has_gradient_zero():
    trace = capture(tiny(), ids(), only=["layers.0", "lm_head"], gradient_of=lambda output: output.logits[1, 0, 3])
    gradient = trace.gradients["lm_head"]
    assert gradient[1, 0, 3] == 1
    assert gradient.sum() == 1
    middle = capture(tiny(), ids(), only=["lm_head", "final_layernorm"], gradient_of=lambda _: kept[0].sum())
    assert not middle.gradients["lm_head"].any()


kept = []


@pytest.fixture(autouse=True)
def keep_the_final_norm(monkeypatch):
    """What the last `final_layernorm` made, with its graph."""
    forward = torch.nn.LayerNorm.forward

    def remembering(self, x):
        kept[:] = [forward(self, x)]
        return kept[0]

    monkeypatch.setattr(torch.nn.LayerNorm, "forward", remembering)
    yield
    kept.clear()


def test_a_patched_constant_has_a_gradient():
    model, constant = tiny(), torch.ones(2, 9, 64)
    with patch(model, {"layers.0": lambda x: constant}):
        trace = capture(model, ids(), only=["layers.0", "layers.1.input_layernorm:input"], gradient_of=logit)
    assert not constant.requires_grad
    stream = constant.clone().requires_grad_()
    with patch(model, {"layers.0": lambda x: stream}):
        (expected,) = torch.autograd.grad(logit(model(ids())), stream)
    for gradient in trace.gradients.values():
        assert torch.allclose(gradient, expected, atol=1e-6)


def test_the_classification_head():
    model = tiny(PersimmonForSequenceClassification, pad_token_id=0)
    trace = capture(model, ids(), only=["final_layernorm"], gradient_of=lambda output: output.logits[1, 0])
    gradient = trace.gradients["model.final_layernorm"]
    assert torch.allclose(gradient[1, -1], model.score.weight[0])
    assert gradient[0].abs().sum() == gradient[1, :-1].abs().sum() == 0


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (lambda output: output.logits[0, -1], ValueError, r"returned the shape \(128,\); return one number"),
        (lambda output: output.logits[0, -1, 7].item(), TypeError, "returned float; return a tensor"),
        (lambda output: torch.tensor(1.0), ValueError, "depends on none of the activations"),
    ],
)
def test_what_is_no_number_of_the_output_is_an_error(number, error, message):
    model = tiny()
    with pytest.raises(error, match=message):
        capture(model, ids(), only=["mlp"], gradient_of=number)
    assert not left_behind(model)
