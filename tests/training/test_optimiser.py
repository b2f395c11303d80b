"""Which weights Muon moves, which AdamW, and which of them decay."""

import pytest
import torch

from persimmon_lab.training.muon import Muon
from persimmon_lab.training.optimiser import optimisers_for
from tests.models import tiny


@pytest.mark.parametrize("matrix_rate", [0.02, None], ids=["muon", "adamw"])
def test_matrices_of_the_layers_are_muons_and_norms_and_biases_do_not_decay(matrix_rate):
    weights = dict(tiny().named_parameters())
    names = {id(weight): name for name, weight in weights.items()}
    optimisers = optimisers_for(weights, matrix_rate=matrix_rate, rate=0.01, weight_decay=0.1)
    found = {
        names[id(weight)]: (type(optimiser), group["lr"], group["weight_decay"])
        for optimiser in optimisers
        for group in optimiser.param_groups
        for weight in group["params"]
    }
    expected = {}
    for name, weight in weights.items():
        if weight.ndim != 2:
            expected[name] = (torch.optim.AdamW, 0.01, 0.0)
        elif ".layers." in name and matrix_rate:
            expected[name] = (Muon, matrix_rate, 0.1)
        else:
            expected[name] = (torch.optim.AdamW, 0.01, 0.1)
    assert found == expected
    assert len({kind for kind, *_ in found.values()}) == (2 if matrix_rate else 1)


def test_there_is_no_optimiser_without_weights():
    matrix = torch.nn.Parameter(torch.zeros(2, 2))
    only = optimisers_for({"model.layers.0.mlp.dense": matrix}, matrix_rate=0.1, rate=0.1, weight_decay=0.0)
    assert [type(optimiser) for optimiser in only] == [Muon]
