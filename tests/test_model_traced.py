"""Where nobody may ask for values: torch.compile, torch.export, torch.jit.trace, the meta device and fake tensors."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
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
