"""The lens reads what the model would say, and an attribution's parts add up to what it says."""

import pytest
import torch
import transformers

import persimmon_lab
from persimmon_lab.numerics.tolerances import ELEMENTS
from persimmon_lab.trace.ablation import ablate
from persimmon_lab.trace.capture import capture
from persimmon_lab.trace.lens import attribute, decode, logit_lens, residual_streams
from tests.models import ids, tiny


def close(one, other, dtype=torch.float32) -> bool:
    return torch.allclose(one.double(), other.double(), atol=ELEMENTS[dtype], rtol=0)


def exact():
    return tiny().double()


def test_streams_are_the_hidden_states_of_transformers():
    model, peer_folder = persimmon_lab.load_mini()[0], persimmon_lab.mini.MINI
    peer = transformers.AutoModelForCausalLM.from_pretrained(peer_folder, dtype=torch.float32).eval()
    rows = ids(length=12)
    with torch.no_grad():
        theirs = peer(rows, output_hidden_states=True)
    ours = residual_streams(model, rows)
    assert len(ours) == 9
    for mine, their in zip(ours, theirs.hidden_states[:-1]):
        assert (mine - their).abs().max() < 1e-4
    # transformers' last hidden state is after the norm, which is how the lens reads every one.
    assert (decode(model, ours[-1]) - theirs.logits).abs().max() < 1e-4


def test_a_stream_after_attention_is_the_one_before_and_what_attention_adds():
    model, rows = exact(), ids()
    before, between = residual_streams(model, rows), residual_streams(model, rows, after="attention")
    added = capture(model, rows, only=["self_attn.dense"]).stacked("dense")
    assert torch.equal(between[0], before[0])
    assert close(between[1:], before[:-1] + added, torch.float64)


def test_the_last_reading_is_the_models_and_others_are_a_truncated_models():
    model, rows = exact(), ids()
    lens = logit_lens(model, rows)
    with torch.no_grad():
        assert torch.equal(lens[-1], model(rows).logits)
        with ablate(model, ["layers.1.self_attn", "layers.1.mlp"]):  # what is left is the first layer alone
            assert close(lens[1], model(rows).logits, torch.float64)
        with ablate(model, [f"layers.{layer}.{part}" for layer in (0, 1) for part in ("self_attn", "mlp")]):
            assert close(lens[0], model(rows).logits, torch.float64)


def test_some_positions_alone():
    model, rows = exact(), ids()
    assert torch.equal(residual_streams(model, rows, positions=[1, 4]), residual_streams(model, rows)[:, :, [1, 4]])
    chosen = logit_lens(model, rows, after="attention", positions=[2])
    assert close(chosen, decode(model, residual_streams(model, rows, after="attention"))[:, :, [2]], torch.float64)


def test_another_place_is_refused():
    with pytest.raises(ValueError, match="'norm'.*'mlp' or 'attention'"):
        residual_streams(tiny(), ids(), after="norm")


@pytest.mark.parametrize("against", [None, 9])
@pytest.mark.parametrize("position", [-1, 3])
def test_parts_add_up_to_the_logit(against, position):
    model, row = exact(), ids(batch=1)
    found = attribute(model, row, target=5, against=against, position=position)
    with torch.no_grad():
        logits = model(row).logits[0, position]
    expected = logits[5] - (0 if against is None else logits[against])
    assert torch.equal(found.logit, expected)
    assert close(found.total, expected, torch.float64)
    assert sum(found.parts().values()) == pytest.approx(float(expected), abs=1e-11)
    assert list(found.parts())[:3] == ["embedding", "layer 0 attention", "layer 0 MLP"]


def test_the_shipped_models_logits_add_up_in_float32():
    model, tokenizer = persimmon_lab.load_mini()
    row = tokenizer("the king gave seven golden", return_tensors="pt").input_ids
    found = attribute(model, row, target=100, against=200)
    assert close(found.total, found.logit)


def test_parts_are_what_each_component_adds_to_the_normed_stream():
    """Each component's own tensor, put through the frozen norm by hand."""
    model, row = exact(), ids(batch=1)
    found = attribute(model, row, target=5, against=9)
    trace = capture(model, row, only=["self_attn.dense", "mlp", "layers.0:input", "final_layernorm:input"])
    last, norm = trace["final_layernorm:input"][0, -1], model.model.final_layernorm
    scale = ((last - last.mean()) ** 2).mean().add(norm.eps).sqrt()
    rows = model.lm_head.weight.detach()

    def share(part):
        return (rows[5] - rows[9]) @ (norm.weight.detach() * (part - part.mean()) / scale)

    assert close(found.embedding, share(trace["layers.0:input"][0, -1]), torch.float64)
    for layer in range(2):
        assert close(found.attention[layer], share(trace[f"layers.{layer}.self_attn.dense"][0, -1]), torch.float64)
        assert close(found.mlp[layer], share(trace[f"layers.{layer}.mlp"][0, -1]), torch.float64)
    assert close(found.norm_bias, (rows[5] - rows[9]) @ norm.bias.detach(), torch.float64)


def test_a_heads_share_is_what_the_reading_loses_without_its_columns():
    """In the last layer nothing but the norm comes after attention's own part, so cutting a head shows its share."""
    model, row = exact(), ids(batch=1)
    found = attribute(model, row, target=5)
    trace = capture(model, row, only=["layers.1.self_attn.head_output", "final_layernorm:input"])
    last, norm = trace["final_layernorm:input"][0, -1], model.model.final_layernorm
    scale = last.var(correction=0).add(norm.eps).sqrt()
    dense = model.model.layers[1].self_attn.dense.weight.detach()
    for head in range(4):
        added = dense[:, head * 16 : (head + 1) * 16] @ trace["head_output"][0, head, -1]
        seen = norm.weight.detach() * (added - added.mean()) / scale
        assert close(found.heads[1, head], model.lm_head.weight[5].detach() @ seen, torch.float64)


def test_a_neurons_share():
    model, row = exact(), ids(batch=1)
    whole = attribute(model, row, target=5)
    gradient = capture(
        model,
        row,
        only=["layers.1.mlp.activations"],
        gradient_of=lambda output: output.logits[0, -1, 5],
    )
    assert whole.neurons.shape == (2, model.config.intermediate_size)
    assert close(whole.neurons.sum(dim=-1) + whole.mlp_bias, whole.mlp, torch.float64)
    # Silent neurons have no share; of the others the share has the activation as a factor.
    silent = gradient["mlp.activations"][0, -1] == 0
    assert silent.any() and not silent.all()
    assert torch.equal(whole.neurons[1] == 0, silent)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"target": 128}, "target is 128; token ids are 0 … 127"),
        ({"target": 5, "against": -1}, "against is -1"),
        ({"target": 5, "position": 9}, "position is 9; the text has 9 tokens"),
    ],
)
def test_what_is_not_there_is_named(wrong, says):
    with pytest.raises(IndexError, match=says):
        attribute(tiny(), ids(batch=1), **wrong)
