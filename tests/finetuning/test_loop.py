"""The loop: accumulation is token-averaged, packing leaks nothing, an interrupted run goes on to the same bits."""

import pytest
import torch

from persimmon_lab.finetuning import Settings, conversation, encode_all, finetune, pack
from persimmon_lab.finetuning.loop import Learner
from persimmon_lab.mini import load_mini

EXAMPLES = [conversation(f"What is {n}?", " ".join(["A number"] * (1 + n)), name=str(n)) for n in range(8)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_read_as_they_do_alone(attention):
    model, tokenizer = load_mini()
    model.set_attn_implementation(attention)
    encoded = encode_all(EXAMPLES[:4], tokenizer, 64)
    packed = pack(encoded, 200)
    assert len(packed.input_ids) == 1
    with torch.no_grad():
        together = model(packed.input_ids, position_ids=packed.position_ids, use_cache=False).logits[0]
        alone = torch.cat([model(torch.tensor([e.input_ids]), use_cache=False).logits[0] for e in encoded])
    assert (together - alone).abs().max() <= 1e-5 * alone.abs().max()
    starts = (packed.position_ids[0] == 0).nonzero().flatten()
    assert (packed.labels[0, starts] == -100).all()


def test_accumulated_gradients_are_those_of_one_batch():
    gradients = []
    for parts in (1, 4):
        model, tokenizer = load_mini()
        encoded = encode_all(EXAMPLES, tokenizer, 64)
        learner = Learner(model, Settings())
        size = len(encoded) // parts
        batches = [pack(encoded[start : start + size], 64) for start in range(0, len(encoded), size)]
        learned = sum(batch.learned for batch in batches)
        assert parts == 1 or len({batch.learned for batch in batches}) > 1
        for batch in batches:
            learner.add_gradients(batch, learned)
        gradients.append(torch.cat([g.flatten() for g in learner.gradients.values()]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path):
    settings = Settings(epochs=2, rows=1, length=64, evaluate_every=2, packed=False, rate=1e-4)

    def stop(step):
        if step == 2:
            raise KeyboardInterrupt

    def run(folder, on_evaluation=None):
        model, tokenizer = load_mini()
        for layer in model.model.layers:
            layer.dropout.p = 0.1
        finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], settings, folder, False, on_evaluation)
        return model.state_dict()

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    torch.rand(1)  # another process has another random state
    again = run(tmp_path / "cut")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_gets_no_better_stops_early_and_leaves_the_best(tmp_path):
    model, tokenizer = load_mini()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = Settings(epochs=3, rows=1, length=64, rate=20.0, evaluate_every=1, patience=2)
    outcome = finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], settings, tmp_path, False)
    assert (outcome.steps, outcome.best_step) == (2, 0)
    assert outcome.best_loss == outcome.first_loss == outcome.history[0]["held_out"]["held out"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(ValueError, match="is of other examples, settings or weights"):
        finetune(model, tokenizer, EXAMPLES[:5], EXAMPLES[6:], settings, tmp_path, False)


def test_a_loss_that_is_not_finite_stops_by_name(tmp_path):
    model, tokenizer = load_mini()
    model.lm_head.weight.data[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="the loss of step 1 is nan"):
        finetune(model, tokenizer, EXAMPLES[:6], [], Settings(epochs=1), tmp_path, False)


def test_in_bfloat16_the_masters_take_the_updates(tmp_path):
    """What bfloat16 would round away adds up in float32: the model ends at its masters, rounded."""
    model, tokenizer = load_mini()
    settings = Settings(epochs=2, rows=1, length=64, dtype="bfloat16", rate=1e-5, patience=None)
    outcome = finetune(model, tokenizer, EXAMPLES[:6], EXAMPLES[6:], settings, tmp_path, False)
    assert model.dtype == torch.bfloat16
    for name, tensor in model.state_dict().items():
        assert outcome.weights[name].dtype == torch.float32
        assert torch.equal(outcome.weights[name].bfloat16(), tensor)
    assert outcome.best_loss < outcome.first_loss
