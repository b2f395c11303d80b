"""A model of rounded weights takes the fast engine: nothing is copied, and the tokens are those of the plain one."""

import copy
import warnings

import pytest
import torch
from torch import nn

from persimmon_lab import PersimmonForCausalLM
from persimmon_lab.generation.engines.choosing import runner_for, why_not_fast
from persimmon_lab.generation.engines.fast import FastRunner
from persimmon_lab.generation.engines.packed import Int8WeightLinear, RoundedLinear
from persimmon_lab.quantisation import FORMATS
from persimmon_lab.trace import attribute, capture
from tests.models import ids, tiny

every_format = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture
def rounded(tmp_path):
    def load(name: str, dtype=torch.float32, **overrides) -> PersimmonForCausalLM:
        tiny(**overrides).save_pretrained(tmp_path / "plain")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of emulation
            return PersimmonForCausalLM.from_pretrained(tmp_path / "plain", quantize=name, dtype=dtype)

    return load


@every_format
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_logits_of_prompts_and_steps(rounded, name, tied):
    model = rounded(name, tie_word_embeddings=tied)
    assert why_not_fast(model) is None
    run = runner_for(model)
    assert isinstance(run, FastRunner)
    prompt, cache = ids(), run.new_cache(16, rows=2)
    right = model(prompt).logits
    torch.testing.assert_close(run(prompt[:, :7], past_key_values=cache).logits, right[:, 6:7], rtol=1e-4, atol=1e-4)
    for position in (7, 8):
        step = run(prompt[:, position : position + 1], past_key_values=cache).logits
        torch.testing.assert_close(step, right[:, position : position + 1], rtol=1e-4, atol=1e-4)


@every_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_tokens(rounded, name, dtype):
    model = rounded(name, dtype)
    tokens = [model.generate(ids(), max_new_tokens=12, engine=engine, eos_token_id=None) for engine in ("plain", None)]
    if dtype == torch.float32:
        assert torch.equal(*tokens)
    assert tokens[1].shape == (2, 21)


@every_format
def test_nothing_is_copied_and_nothing_is_stale(rounded, name):
    model = rounded(name)
    run = runner_for(model)
    assert runner_for(model) is run
    assert runner_for(model, rows=3) is run
    assert isinstance(run.lm_head, RoundedLinear)
    assert run.lm_head.weight is model.lm_head.weight
    prompt = ids(1, 5)
    before = run(prompt).logits
    with torch.no_grad():
        model.lm_head.weight.scales.mul_(2)
    torch.testing.assert_close(
        runner_for(model)(prompt).logits, 2 * before, rtol=1e-4, atol=1e-3 if name == "int4" else 1e-4
    )
    model.lm_head = nn.Linear(64, 128, bias=False)
    assert runner_for(model) is not run
    torch.testing.assert_close(runner_for(model)(prompt).logits, model(prompt).logits[:, -1:], rtol=1e-4, atol=1e-4)


@every_format
def test_engines_that_round_or_compile_say_no(rounded, name):
    model = rounded(name)
    for engine in ("int8", "int8-weight-only", "compiled"):
        with pytest.raises(
            ValueError, match=f"engine='{engine}' cannot serve this model: its weights are rounded already"
        ):
            runner_for(model, engine)


@every_format
def test_a_subclass_is_not_known(rounded, name):
    model = rounded(name)

    class Doubled(type(model.lm_head)):
        def forward(self, x):
            return 2 * super().forward(x)

    model.lm_head.__class__ = Doubled
    assert "lm_head is a" in why_not_fast(model)


@every_format
def test_what_is_seen_inside(rounded, name):
    """Captures and gradients of a rounded model are those of its numbers."""
    model = rounded(name)
    trace = capture(model, ids(), only=["layers.1.mlp", "layers.0.self_attn"])
    assert trace
    embedded = model.get_input_embeddings()(ids()).requires_grad_()
    model(inputs_embeds=embedded).logits.logsumexp(-1).sum().backward()
    plain = tiny()
    state = model.state_dict()
    for path, module in model.named_modules():
        if hasattr(module, "dequantized"):
            state[path] = module.dequantized()
    plain.load_state_dict({n: state[n] for n in plain.state_dict()})
    other = plain.get_input_embeddings()(ids()).detach().requires_grad_()
    plain(inputs_embeds=other).logits.logsumexp(-1).sum().backward()
    torch.testing.assert_close(embedded, other, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embedded.grad, other.grad, rtol=1e-3, atol=1e-3 * float(other.grad.abs().max()))


def test_the_engine_that_rounds_rounds_as_loading_does(rounded):
    model = rounded("int8")
    linear = tiny().lm_head
    product, x = Int8WeightLinear(linear), torch.randn(3, 64)
    torch.testing.assert_close(product(x), model.lm_head(x), rtol=1e-6, atol=1e-6)
    assert torch.equal(product.weight.codes, model.lm_head.weight.codes)
    assert copy.copy(product).bias is None


@every_format
def test_a_logit_taken_apart(rounded, name):
    """The parts of a rounded model's logit add up to it, and are those of a plain model of the same numbers."""
    model = rounded(name)
    attribution = attribute(model, ids(1, 5), 7, against=9)
    logits = model(ids(1, 5)).logits[0, -1]
    assert attribution.total == pytest.approx(float(logits[7] - logits[9]), abs=1e-4)
