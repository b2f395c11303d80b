"""What a forward pass returns: an ordered dict, a dataclass and a node of torch's trees, all at once."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch.utils import _pytree as pytree

from persimmon_lab.outputs import CausalLMOutputWithPast
from tests.models import ids, tiny


@pytest.fixture
def output() -> CausalLMOutputWithPast:
    return tiny()(ids(), labels=ids(), use_cache=False)


def test_what_is_there_is_listed_and_nothing_else(output):
    assert isinstance(output, OrderedDict)
    assert list(output) == ["loss", "logits"] == list({**output})
    assert output.attentions is None
    assert "attentions" not in output
    assert output[0] is output.loss is output["loss"]
    assert output[:2] == (output.loss, output.logits) == output.to_tuple()
    assert output.get("attentions", 7) == 7
    with pytest.raises(KeyError):
        output["attentions"]


def test_attributes_and_keys_say_the_same(output):
    output.loss = torch.tensor(3.0)
    assert output["loss"] == 3
    output["attentions"] = (torch.zeros(1),)
    assert output.attentions is output["attentions"]
    output.loss = None
    assert list(output) == ["logits", "attentions"]
    output.loss = torch.tensor(4.0)
    assert list(output) == ["loss", "logits", "attentions"], "in the order of the fields"
    for refused in (lambda: output.pop("loss"), lambda: output.popitem(), output.clear):
        with pytest.raises(TypeError, match="set one to None"):
            refused()
    with pytest.raises(TypeError, match="set one to None"):
        del output["loss"]


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy])
@torch.no_grad()
def test_copies_are_alike(again):
    output = tiny()(ids(), output_hidden_states=True)
    copied = again(output)
    assert type(copied) is CausalLMOutputWithPast
    assert list(copied) == list(output) == ["logits", "past_key_values", "hidden_states"]
    assert torch.equal(copied.logits, output.logits)
    assert copied.loss is None


def test_trees_see_the_tensors(output, unchecked_annotations):
    leaves, spec = pytree.tree_flatten(output)
    assert [leaf is wanted for leaf, wanted in zip(leaves, output.to_tuple(), strict=True)] == [True, True]
    doubled = pytree.tree_map(lambda tensor: 2 * tensor, output)
    assert type(doubled) is CausalLMOutputWithPast
    assert torch.equal(doubled.logits, 2 * output.logits)
    assert list(pytree.tree_unflatten(["a", "b"], spec)) == ["loss", "logits"], "leaves may be anything"
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(output)[0]]
    assert paths == ["['loss']", "['logits']"]


def test_gathered_as_data_parallel_gathers(output, unchecked_annotations):
    gathered = type(output)((name, torch.stack([value, value])) for name, value in output.items())
    assert list(gathered) == ["loss", "logits"]
    assert gathered.loss.shape == (2,)
    assert list(type(output)(dict(output))) == ["loss", "logits"]
