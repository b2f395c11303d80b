"""What learns: packing leaks nothing, accumulation is token-averaged, the gradient is clipped."""

import pytest
import torch

from persimmon_lab.finetuning import Settings, conversation, encode_all, pack
from persimmon_lab.finetuning.learner import Learner, batch_loss, loss_of
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


def test_the_loss_is_of_the_answers_and_their_end_alone():
    """By hand, from the text: the prompt is read and not learned, whatever it costs."""
    model, tokenizer = load_mini(torch.float32)
    losses = []
    for question, answer in (("What is the weather like?", "Fine."), ("Who are you, my lord?", "A number, and you?")):
        prompt = tokenizer.apply_chat_template([{"role": "human", "content": question}], add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(
            [{"role": "human", "content": question}, {"role": "adept", "content": answer}], add_generation_prompt=False
        )
        ids = torch.tensor([[*whole, tokenizer.eos_token_id]])
        with torch.no_grad():
            said = model(ids, use_cache=False).logits[0].log_softmax(dim=-1)
        learned = range(len(prompt), ids.shape[1])
        losses.append([-said[place - 1, ids[0, place]].item() for place in learned])
        packed = pack(encode_all([conversation(question, answer)], tokenizer, 64), 64)
        assert torch.equal(packed.input_ids, ids)
        assert batch_loss(model, packed).item() == pytest.approx(sum(losses[-1]) / len(losses[-1]), abs=1e-4)
        with torch.no_grad():
            of_all = model(ids, labels=ids, use_cache=False).loss.item()
        assert abs(of_all - batch_loss(model, packed).item()) > 1e-2, "the question costs something else"
    both = [
        conversation("What is the weather like?", "Fine."),
        conversation("Who are you, my lord?", "A number, and you?"),
    ]
    packed = pack(encode_all(both, tokenizer, 64), 64)
    expected = sum(map(sum, losses)) / sum(map(len, losses))
    assert loss_of(model, [packed]) == pytest.approx(expected, abs=1e-4)


def test_accumulated_gradients_are_those_of_one_batch():
    gradients = []
    for parts in (1, 4):
        model, tokenizer = load_mini()
        encoded = encode_all(EXAMPLES, tokenizer, 64)
        learner = Learner(model, Settings())
        size = len(encoded) // parts
        batches = [pack(encoded[start : start + size], 64) for start in range(0, len(encoded), size)]
        learned = sum(batch.target_count for batch in batches)
        assert parts == 1 or len({batch.target_count for batch in batches}) > 1
        for batch in batches:
            learner.add_gradients(batch, learned)
        gradients.append(torch.cat([g.flatten() for g in learner.gradients.values()]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()


def test_the_gradient_is_clipped_and_its_norm_told_unclipped():
    model, tokenizer = load_mini()
    learner = Learner(model, Settings(clip=0.01))
    batch = pack(encode_all(EXAMPLES, tokenizer, 64), 64)
    learner.add_gradients(batch, batch.target_count)
    norm = torch.cat([gradient.flatten() for gradient in learner.gradients.values()]).double().norm()
    taken = []
    learner.optimisers[0].register_step_pre_hook(
        lambda optimiser, *_: taken.extend(
            w.grad.flatten() for group in optimiser.param_groups for w in group["params"]
        )
    )
    assert learner.step(0.0) == pytest.approx(float(norm), rel=1e-4)
    assert norm > 0.1
    assert torch.cat(taken).double().norm() == pytest.approx(0.01, rel=1e-3)
