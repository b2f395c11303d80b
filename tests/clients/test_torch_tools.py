"""Tools that walk through a model or its output: torchinfo, torch.export, DataParallel, torchao, pytrees."""

import copy
import pickle

import pytest
import torch
from torch.nn.parallel import scatter_gather
from torch.utils import _pytree as pytree

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from tests.clients.clients import mini, prompt, rows


def test_output_is_a_node_of_a_pytree():
    output = mini()(rows(), labels=rows())
    leaves, spec = pytree.tree_flatten(output)
    assert len(leaves) == 2 + 2 * mini().config.num_hidden_layers
    again = pytree.tree_unflatten([2 * leaf for leaf in leaves], spec)
    assert type(again) is type(output)
    assert list(again) == list(output)
    assert torch.equal(again.logits, 2 * output.logits)


def test_output_is_a_dict_that_copies_and_pickles():
    output = mini()(rows(), use_cache=False)
    assert isinstance(output, dict)
    assert dict(**output).keys() == {"logits"}
    for again in (copy.deepcopy(output.__class__(logits=output.logits.detach())), pickle.loads(pickle.dumps(output))):
        assert type(again) is type(output)
        assert torch.equal(again.logits, output.logits)
        assert again.loss is None


def test_gather_of_data_parallel(monkeypatch):
    """As two GPUs would give it: only the last step, which copies tensors, is made on the CPU here."""
    monkeypatch.setattr(scatter_gather.Gather, "apply", lambda device, dim, *tensors: torch.cat(tensors, dim))
    model = mini()
    with torch.no_grad():
        parts = [model(part, use_cache=False) for part in rows().chunk(2)]
        whole = model(rows(), use_cache=False)
    gathered = scatter_gather.gather(parts, 0)
    assert type(gathered) is type(whole)
    torch.testing.assert_close(gathered.logits, whole.logits)


def test_torchinfo():
    torchinfo = pytest.importorskip("torchinfo")
    model = mini()
    summary = torchinfo.summary(model, input_data={"input_ids": rows()}, verbose=0)
    assert summary.total_params == model.num_parameters()
    assert "PersimmonDecoderLayer" in str(summary)


@pytest.mark.usefixtures("unchecked_annotations")
def test_export_with_a_dynamic_length_and_a_mask():
    model = PersimmonForCausalLM(PersimmonConfig.tiny(), torch.Generator().manual_seed(0)).eval()
    length = torch.export.Dim("length", min=2, max=64)
    ids = torch.randint(3, 128, (2, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    shapes = {"input_ids": {1: length}, "attention_mask": {1: length}, "use_cache": None}
    inputs = {"input_ids": ids[:, :7].clone(), "attention_mask": mask[:, :7].clone(), "use_cache": False}
    program = torch.export.export(model, (), inputs, dynamic_shapes=shapes).module()
    mask[0, :4] = 0
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, use_cache=False).logits
        given = program(input_ids=ids, attention_mask=mask, use_cache=False)
    visible = mask.bool()
    torch.testing.assert_close(given["logits"][visible], expected[visible], atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("unchecked_annotations")
def test_int8_of_torchao():
    quantization = pytest.importorskip("torchao.quantization")
    plain, model = mini(), mini()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    with torch.no_grad():
        error = (model(rows()).logits - plain(rows()).logits).abs().mean()
    assert 0 < error < 0.1
    written = model.generate(prompt(), max_new_tokens=6)
    assert torch.equal(written, model.generate(prompt(), max_new_tokens=6, engine="plain"))
