"""The marks of notebook 07 accept right answers, written here another way, and name what is wrong with wrong ones."""

import math

import pytest
import torch
import torch.nn.functional as F

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.checks import nb07_whole as checks
from persimmon_lab.config import PersimmonConfig
from tests.checks.verdicts import assert_no_answers, assert_recognised, assert_right, assert_told, mistakes_of

EXERCISES = {
    "answer_loss": checks.answer_loss,
    "parameter_count": checks.parameter_count,
    "clipping_factor": checks.clipping_factor,
    "post_norm_block": checks.post_norm_block,
}


def one_by_one(logits, ids, start, ahead=1, first=0, rows=None):
    """Each token of an answer and the logits that stand `ahead` before it."""
    losses = []
    for row in range(len(ids)):
        for place in range(int(start[row]) + first, ids.shape[1]):
            if 0 <= place - ahead < ids.shape[1]:
                losses.append(-logits[row, place - ahead].double().log_softmax(-1)[ids[row, place]])
    return torch.stack(losses).mean().float()


def built(vocab, hidden, mlp, layers, head_dim, **changes):
    """A model of these sizes on no device, and what it holds."""
    with torch.device("meta"):
        config = PersimmonConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=mlp,
            num_hidden_layers=layers,
            num_attention_heads=hidden // head_dim,
            **changes,
        )
        return PersimmonForCausalLM(config).num_parameters()


def without_biases(**sizes):
    with torch.device("meta"):
        config = PersimmonConfig(
            vocab_size=sizes["vocab"],
            hidden_size=sizes["hidden"],
            intermediate_size=sizes["mlp"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["hidden"] // sizes["head_dim"],
        )
        model = PersimmonForCausalLM(config)
    return sum(p.numel() for name, p in model.named_parameters() if not ("bias" in name and "norm" not in name))


def by_torch(gradients, most):
    """What torch's clipping leaves of a gradient, over what it was."""
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(parameters, most)
    return parameters[0].grad.flatten()[0] / gradients[0].flatten()[0]


def each_by_itself(gradients, most):
    return min(1.0, *(most / gradient.norm().item() for gradient in gradients))


def not_capped(gradients, most):
    return most / math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))


def normalised(x, norm):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def post_norm_by_hand(x, attention, mlp, first_norm, second_norm):
    middle = normalised(x + attention(x), first_norm)
    return normalised(middle + mlp(middle), second_norm)


def persimmons_own(x, attention, mlp, first_norm, second_norm):
    x = x + attention(normalised(x, first_norm))
    return x + mlp(normalised(x, second_norm))


def norm_on_the_branch(x, attention, mlp, first_norm, second_norm):
    x = x + normalised(attention(x), first_norm)
    return x + normalised(mlp(x), second_norm)


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.answer_loss, one_by_one),
        (checks.parameter_count, built),
        (checks.clipping_factor, by_torch),
        (checks.post_norm_block, post_norm_by_hand),
    ],
)
def test_a_right_answer_found_another_way_is_right(check, answer):
    assert_right(check, answer)


def test_the_praise_for_the_8b_is_true():
    assert f"{built(262144, 4096, 16384, 36, 64):,}" in repr(checks.parameter_count(built))


@pytest.mark.parametrize(
    ("check", "answer", "told"),
    [
        (checks.answer_loss, lambda **case: one_by_one(**case, ahead=0), "there is no shift"),
        (checks.answer_loss, lambda **case: one_by_one(**case, first=1), "first token of each answer is missing"),
        (checks.answer_loss, lambda logits, ids, start: one_by_one(logits, ids, start * 0 + 1), "prompt is marked too"),
        (
            checks.answer_loss,
            lambda logits, ids, start: one_by_one(logits, ids, start) * (ids.shape[1] - start).sum(),
            "this is the sum",
        ),
        (
            checks.answer_loss,
            lambda logits, ids, start: F.cross_entropy(
                logits[:, :-1].flatten(0, 1),
                ids.masked_fill(torch.arange(ids.shape[1]) < start[:, None], -100)[:, 1:].flatten(),
                reduction="none",
            ).mean(),
            "ignored positions count in the mean",
        ),
        (
            checks.answer_loss,
            lambda logits, ids, start: torch.stack(
                [one_by_one(logits[[row]], ids[[row]], start[[row]]) for row in range(len(ids))]
            ).mean(),
            "a mean of the rows' means",
        ),
        (checks.answer_loss, lambda **case: one_by_one(**case) / math.log(2), "should be"),
        (checks.parameter_count, lambda **sizes: built(**sizes, tie_word_embeddings=True), "are not tied"),
        (checks.parameter_count, lambda **sizes: built(**sizes, qk_layernorm=False), "norms of query and key are miss"),
        (checks.parameter_count, without_biases, "the biases of the four projections are missing"),
        (checks.parameter_count, lambda **sizes: built(**sizes | {"layers": 1}), "the numbers are not"),
        (checks.clipping_factor, each_by_itself, "takes the longest tensor alone"),
        (checks.clipping_factor, not_capped, "short gradients are made longer"),
        (checks.clipping_factor, lambda gradients, most: torch.tensor(1.0), "the numbers are not"),
        (checks.post_norm_block, persimmons_own, "Persimmon's own order"),
        (checks.post_norm_block, norm_on_the_branch, "the norm is on the branch alone"),
        (checks.post_norm_block, lambda x, **_: x, "the numbers are not"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_told_what_is_wrong(check, answer, told):
    assert_told(check, answer, told)


@pytest.mark.parametrize(("name", "message"), mistakes_of(EXERCISES))
def test_every_named_mistake_is_recognised_as_itself(name, message):
    assert_recognised(EXERCISES[name], message)


@pytest.mark.parametrize("check", EXERCISES.values())
def test_an_answer_that_is_no_answer(check):
    assert_no_answers(check)
