"""Log-probabilities beside the log_softmax of all logits at once, and beside transformers' transition scores."""

import pytest
import torch

from persimmon_lab.generation import score_tokens, scoring


def by_definition(model, ids, mask=None, positions=None):
    log_probs = model(ids, attention_mask=mask, position_ids=positions).logits.float().log_softmax(dim=-1)
    return log_probs, log_probs[:, :-1].gather(2, ids[:, 1:, None])[..., 0]


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 100])
def test_equals_the_log_softmax(tiny_model, chunk_size):
    model, ids = tiny_model(), torch.randint(3, 128, (2, 11), generator=torch.Generator().manual_seed(0))
    log_probs, expected = by_definition(model, ids)
    result = score_tokens(model, ids, token_set=[7, 3, 99], chunk_size=chunk_size)
    torch.testing.assert_close(result.tokens, expected, atol=2e-5, rtol=0)
    torch.testing.assert_close(result.token_set, log_probs[..., [7, 3, 99]], atol=2e-5, rtol=0)
    assert score_tokens(model, ids).token_set is None
    assert not result.tokens.requires_grad


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_counts_nothing(tiny_model, side):
    model, text = tiny_model(), torch.tensor([[5, 6, 7, 8]])
    padding = torch.zeros(1, 3, dtype=torch.int64)
    rows = [padding, text] if side == "left" else [text, padding]
    mask = [torch.zeros_like(padding), torch.ones_like(text)]
    ids, mask = torch.cat(rows, dim=1), torch.cat(mask if side == "left" else mask[::-1], dim=1)
    alone = score_tokens(model, text).tokens
    scores = score_tokens(model, ids, mask, chunk_size=2).tokens
    torch.testing.assert_close(scores[:, 3:] if side == "left" else scores[:, :3], alone, atol=2e-5, rtol=0)
    assert torch.equal(scores[:, :3] if side == "left" else scores[:, 3:], torch.zeros(1, 3))


def test_scores_of_the_output_equal_transition_scores(twins, padded_prompts):
    ids, mask = padded_prompts
    ours, theirs = twins(eos_token_id=None)
    output = theirs.generate(
        ids, attention_mask=mask, max_new_tokens=8, return_dict_in_generate=True, output_scores=True
    )
    expected = theirs.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    whole = torch.cat([mask, mask.new_ones(3, 8)], dim=1)
    result = score_tokens(ours, output.sequences, whole).tokens[:, ids.shape[1] - 1 :]
    torch.testing.assert_close(result, expected, atol=5e-5, rtol=0)


def test_logits_of_a_long_text_are_never_all_there(tiny_model, monkeypatch):
    """A budget of 1,000 numbers: 3 positions of 2 rows of 128."""
    monkeypatch.setattr(scoring, "LOGITS_AT_ONCE", 1000)
    model, sizes = tiny_model(), []
    model.lm_head.register_forward_hook(lambda module, arguments, output: sizes.append(output.shape[1]))
    score_tokens(model, torch.full((2, 8), 5), engine="plain")
    assert sizes == [3, 3, 2]


def test_half_precision_is_scored_in_float32(tiny_model):
    model, ids = tiny_model().to(torch.bfloat16), torch.tensor([[5, 6, 7, 8]])
    scores = score_tokens(model, ids, engine="plain").tokens  # the fast engine rounds in other places
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, by_definition(model, ids)[1], atol=1e-4, rtol=0)


def test_what_cannot_be_is_named(tiny_model):
    with pytest.raises(ValueError, match="0 positions"):
        score_tokens(tiny_model(), torch.empty(1, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match="chunks of 0"):
        score_tokens(tiny_model(), torch.tensor([[5]]), chunk_size=0)


def test_training_mode_drops_nothing(tiny_model):
    """A score is a measurement; the model is afterwards in the mode that it was in."""
    model, ids = tiny_model(hidden_dropout=0.5, attention_dropout=0.5), torch.tensor([[5, 6, 7, 8, 9]])
    right = score_tokens(model, ids).tokens
    model.train()
    for engine in (None, "plain"):
        torch.testing.assert_close(score_tokens(model, ids, engine=engine).tokens, right)
    assert all(module.training for module in model.modules())
