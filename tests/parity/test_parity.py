"""persimmon_lab against transformers 4.37.2 (stored) and transformers 5.x (live), case by case, tensor by tensor."""

import functools
from types import ModuleType

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.loss import loss_utils
from transformers.models.persimmon import modeling_persimmon

import persimmon_lab
from persimmon_lab.losses import causal_lm_loss
from persimmon_lab.rotary import rotary_tables
from tests.parity.cases import BASE_CONFIG, CASES, REFERENCE, Case, Results, compute, greedy, training
from tests.parity.compare import largest_difference, without_blind_queries
from tests.tolerances import TOLERANCE

# Five steps magnify a rounding error and a greedy choice may flip on one, so these two are float32 and float64 only.
SMOOTH = {name: case for name, case in CASES.items() if case.run not in (training, greedy)}
SMOOTH_UNDER_SDPA = {name: case for name, case in SMOOTH.items() if "sdpa" in case.live}


def each(cases: dict[str, Case]):
    return pytest.mark.parametrize("case", cases.values(), ids=cases.keys())


@pytest.fixture(scope="module")
def reference() -> dict[str, dict[str, torch.Tensor]]:
    """What 4.37.2 computed, by case and tensor."""
    by_case = {}
    for name, tensor in load_file(REFERENCE).items():
        case, tensor_name = name.split("/")
        by_case.setdefault(case, {})[tensor_name] = tensor
    return by_case


@functools.cache
def results(name: str, library: ModuleType, dtype: torch.dtype, implementation: str) -> Results:
    return compute(CASES[name], library, dtype, implementation)


def seen(name: str, library: ModuleType, dtype: torch.dtype, implementation: str) -> Results:
    """Without what transformers' sdpa makes of queries that see nothing."""
    return without_blind_queries(CASES[name], results(name, library, dtype, implementation))


def differences_from_5(case: Case, dtype: torch.dtype) -> dict[str, float]:
    """Of both of our attention implementations from theirs of the same name."""
    errors = {}
    for implementation in case.live:
        look = seen if implementation == "sdpa" else results
        ours, theirs = (look(case.name, library, dtype, implementation) for library in (persimmon_lab, transformers))
        errors[f"5.x {implementation}"] = largest_difference(ours, theirs)
    return errors


def test_reference_holds_exactly_the_cases(reference):
    assert reference.keys() == {case.name for case in CASES.values() if case.in_reference}


@each(CASES)
def test_float32(case, reference, report_table):
    errors = {}
    if case.in_reference:
        for implementation in ("eager", "sdpa"):
            ours = results(case.name, persimmon_lab, torch.float32, implementation)
            errors[f"4.37.2 {implementation}"] = largest_difference(ours, reference[case.name])
    errors |= differences_from_5(case, torch.float32)
    report_table("Parity with transformers, float32: largest difference of any tensor", [{"case": case.name} | errors])
    assert max(errors.values()) <= TOLERANCE[torch.float32], errors


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@each(SMOOTH)
def test_half_precision(case, dtype, report_table):
    errors = differences_from_5(case, dtype)
    report_table(f"Parity with transformers 5.x, {dtype}".replace("torch.", ""), [{"case": case.name} | errors])
    assert max(errors.values()) <= TOLERANCE[dtype], errors


@pytest.fixture
def transformers_in_float64(monkeypatch):
    """Lifts what transformers computes in float32 even in a float64 model: the rotary phases and the causal loss.

    Both become ours (test_float32 compares them). The third such place, the softmax of eager, is left out by sdpa.
    """

    def use(case: Case):
        def phases(rotary_embedding, x, position_ids):
            config = persimmon_lab.PersimmonConfig(**BASE_CONFIG | case.config)
            return rotary_tables(position_ids, config, int(position_ids.max()) + 1, x.dtype)

        def loss(logits, labels, **ignored):
            return causal_lm_loss(logits, labels)

        monkeypatch.setattr(modeling_persimmon.PersimmonRotaryEmbedding, "forward", phases)
        monkeypatch.setitem(loss_utils.LOSS_MAPPING, "ForCausalLM", loss)

    return use


@each(SMOOTH_UNDER_SDPA)
def test_the_difference_is_rounding(case, transformers_in_float64, report_table):
    """In float64 nothing is left, and in float32 we lie no further from float64 than transformers does."""
    exact = seen(case.name, persimmon_lab, torch.float64, "sdpa")
    ours = largest_difference(seen(case.name, persimmon_lab, torch.float32, "sdpa"), exact)
    theirs = largest_difference(seen(case.name, transformers, torch.float32, "sdpa"), exact)
    transformers_in_float64(case)
    left = largest_difference(exact, seen(case.name, transformers, torch.float64, "sdpa"))

    row = {"case": case.name, "float64": left, "ours from float64": ours, "theirs from float64": theirs}
    report_table("The difference is rounding: float64, and float32 from float64", [row])
    assert left <= TOLERANCE[torch.float64]
    assert ours <= 2 * theirs + 1e-7
