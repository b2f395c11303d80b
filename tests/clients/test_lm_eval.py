"""lm-eval's HFLM: log-likelihoods and generated text."""

import pytest
import torch

from persimmon_lab.generation.scoring import score_tokens
from tests.clients.clients import TEXTS, mini, tokenizer

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def evaluated():
    from lm_eval.models.huggingface import HFLM

    # It takes a tokenizer of transformers alone, or where to find one: without it, it looks at model.name_or_path.
    return HFLM(pretrained=mini(), backend="causal", batch_size=2)


def request(kind, *arguments):
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_log_likelihood(evaluated):
    pairs = [(text[:14], text[14:]) for text in TEXTS]
    answers = evaluated.loglikelihood([request("loglikelihood", *pair) for pair in pairs], disable_tqdm=True)
    for (context, continuation), (value, is_greedy) in zip(pairs, answers, strict=True):
        before, after = evaluated._encode_pair(context, continuation)
        ids = torch.tensor([[*before, *after]])
        expected = score_tokens(mini(), ids).tokens[0, -len(after) :].sum().item()
        assert value == pytest.approx(expected, abs=1e-3)
        assert isinstance(is_greedy, bool)


def test_rolling_log_likelihood(evaluated):
    [value] = evaluated.loglikelihood_rolling([request("loglikelihood_rolling", TEXTS[0])], disable_tqdm=True)
    ids = torch.tensor([[evaluated.prefix_token_id, *evaluated.tok_encode(TEXTS[0])]])
    assert value == pytest.approx(score_tokens(mini(), ids).tokens.sum().item(), abs=1e-3)


def test_generate_until(evaluated):
    settings = {"until": ["\n", "."], "max_gen_toks": 12, "do_sample": False}
    answers = evaluated.generate_until(
        [request("generate_until", text, dict(settings)) for text in TEXTS], disable_tqdm=True
    )
    model, tokens = mini(), tokenizer()
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = tokens(text, return_tensors="pt").input_ids
        made = model.generate(ids, max_new_tokens=12)[0, ids.shape[1] :]
        written = tokens.decode(made, skip_special_tokens=True)
        for stop in settings["until"]:
            written = written.split(stop)[0]
        assert answer == written
