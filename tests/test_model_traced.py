"""Where nobody may ask for values: torch.compile, torch.export, torch.jit.trace, the meta device and fake tensors."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, PersimmonForSequenceClassification
from tests.models import ids, tiny

PADDED = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1, 1], [1] * 9])  # whose first queries see nothing


@pytest.fixture(autouse=True)
def unchecked(unchecked_annotations):
    """Here nothing is checked either."""


def test_compiled_in_one_piece():
    """By itself, because torch.compile cannot follow the checks that the tests put around every function."""
    done = subprocess.run([sys.executable, "-m", "tests.compiled"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["gradients", "documents"]


@torch.no_grad()
def test_exported_with_a_dynamic_length():
    model = tiny()
    length = torch.export.Dim("length", min=2, max=64)
    exported = torch.export.export(model, (ids(), PADDED), dynamic_shapes=({1: length}, {1: length}), strict=False)
    longer = torch.ones(2, 30, dtype=torch.long)
    longer[1, :5] = 0
    difference = exported.module()(ids(2, 30), longer).logits - model(ids(2, 30), longer).logits
    assert difference[longer.bool()].abs().max() < 1e-5


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, token_ids, mask):
        return self.model(token_ids, mask, use_cache=False).logits


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traced_it_serves_another_mask():
    model = tiny()
    traced = torch.jit.trace(Logits(model), (ids(), torch.ones(2, 9, dtype=torch.long)), check_trace=False)
    difference = traced(ids(), PADDED) - model(ids(), PADDED).logits
    assert difference[PADDED.bool()].abs().max() < 1e-5


def test_without_values():
    with torch.device("meta"):
        model, text = PersimmonForCausalLM(PersimmonConfig.tiny()), torch.zeros(2, 9, dtype=torch.long)
        assert model(text, torch.ones_like(text), labels=text).logits.shape == (2, 9, 128)
    with FakeTensorMode():
        model, text = PersimmonForCausalLM(PersimmonConfig.tiny()), torch.zeros(2, 9, dtype=torch.long)
        assert model(text, torch.ones_like(text), labels=text, position_ids=text).loss.shape == ()


class Loss(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, embeds, labels):
        output = self.model(inputs_embeds=embeds, labels=labels, use_cache=False)
        return output.loss, output.logits


@torch.no_grad()
def test_exported_with_embeddings_and_labels():
    model = tiny()
    length = torch.export.Dim("length", min=3, max=64)
    embeds, labels = model.model.embed_tokens(ids()), ids()
    exported = torch.export.export(
        Loss(model), (embeds, labels), dynamic_shapes=({1: length}, {1: length}), strict=False
    ).module()
    labels = ids(2, 20).clone()
    labels[0, :7] = -100
    embeds = model.model.embed_tokens(ids(2, 20))
    for given, expected in zip(exported(embeds, labels), Loss(model)(embeds, labels), strict=True):
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_exported_classifier_finds_the_ends_of_other_rows():
    model = tiny(PersimmonForSequenceClassification, num_labels=3, pad_token_id=0)
    length = torch.export.Dim("length", min=2, max=64)
    exported = torch.export.export(
        model,
        (ids(),),
        {"attention_mask": torch.ones_like(ids()), "use_cache": False},
        dynamic_shapes={"input_ids": {1: length}, "attention_mask": {1: length}, "use_cache": None},
        strict=False,
    ).module()
    longer = ids(2, 20).clone()
    longer[0, 12:] = 0
    given = exported(longer, attention_mask=(longer != 0).long(), use_cache=False)["logits"]
    torch.testing.assert_close(given, model(longer, attention_mask=(longer != 0).long()).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traced_with_labels_it_counts_others():
    model = tiny()
    embeds, labels = model.model.embed_tokens(ids()), ids().clone()
    traced = torch.jit.trace(Loss(model), (embeds, labels), check_trace=False)
    labels[1, 4:] = -100
    assert abs(traced(embeds, labels)[0] - Loss(model)(embeds, labels)[0]) < 1e-6
