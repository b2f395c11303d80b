"""What trains, changes or shares out weights refuses rounded ones by name, before it does anything."""

import pytest
import torch

from persimmon_lab import PersimmonForCausalLM
from persimmon_lab.finetuning import Settings
from persimmon_lab.finetuning.learner import Learner
from persimmon_lab.finetuning.lora import adapt
from persimmon_lab.fitting import drop_rows
from persimmon_lab.fitting.offload import load_over_devices
from persimmon_lab.numerics import computing_in, in_dtype
from tests.models import tiny


@pytest.fixture
def folder(tmp_path):
    tiny().save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (adapt, "adapting"),
        (lambda model: Learner(model, Settings()), "fine-tuning"),
        (lambda model: drop_rows(model, torch.tensor([3])), "dropping rows"),
        (lambda model: computing_in(model, torch.float32), "computing in another dtype"),
        (lambda model: in_dtype(model, torch.float32), "a copy in another dtype"),
    ],
    ids=["adapt", "Learner", "drop_rows", "computing_in", "in_dtype"],
)
def test_by_name(folder, act, what):
    model = PersimmonForCausalLM.from_pretrained(folder, quantize="int4")
    with pytest.raises(
        ValueError, match=f"{what} needs plain weights, and model.embed_tokens.weight is rounded to int4"
    ):
        act(model)


def test_over_devices(folder):
    pytest.importorskip("accelerate")
    with pytest.raises(ValueError, match="quantize is for from_pretrained"):
        load_over_devices(PersimmonForCausalLM, folder, quantize="int8")
