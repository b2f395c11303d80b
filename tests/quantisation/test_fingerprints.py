"""Two roundings of one model are two models to whoever tells models apart, and are counted whole."""

import pytest
import torch

from persimmon_lab import PersimmonForCausalLM, load_mini
from persimmon_lab.evaluation.fingerprint import made_with
from persimmon_lab.mini import MINI
from persimmon_lab.widgets.playground.fingerprint import fingerprint


@pytest.fixture(scope="module")
def models():
    return [PersimmonForCausalLM.from_pretrained(MINI, quantize=name) for name in ("int8", "int4", "int4")]


def test_of_a_tree(models):
    eight, four, again = map(fingerprint, models)
    assert four == again
    assert len({eight, four, fingerprint(load_mini(torch.bfloat16)[0])}) == 3


def test_of_an_evaluation(models):
    plain, tokenizer = load_mini(torch.bfloat16)
    eight, four, again = (made_with(model, tokenizer) for model in models)
    assert four == again
    assert eight["weights_sha256"] != four["weights_sha256"]
    assert (eight["dtype"], four["dtype"]) == ("bfloat16 int8", "bfloat16 int4")
    assert eight["parameters"] == four["parameters"] == plain.num_parameters()
