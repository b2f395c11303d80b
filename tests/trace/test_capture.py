"""What a capture holds is what the model itself reports, and what other libraries say of it."""

import copy

import pytest
import torch
import transformers

import persimmon_lab
from persimmon_lab import PersimmonForSequenceClassification, PersimmonModel, StaticCache
from persimmon_lab.anatomy import axes_of
from persimmon_lab.numerics.tolerances import ELEMENTS
from persimmon_lab.trace.capture import capture, capturing
from persimmon_lab.trace.heads import stripe_scores
from persimmon_lab.trace.record import SHOWN
from tests.models import ids, tiny
from tests.trace.hooks_left import left_behind


def close(one, other) -> bool:
    return torch.allclose(one, other, atol=ELEMENTS[torch.float32], rtol=0)


def padded():
    """Two rows, the first with three positions of padding on its left."""
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    return {"attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).clamp(min=0)}


@pytest.mark.parametrize("arguments", [{}, padded()], ids=["plain", "padded"])
def test_patterns_and_hidden_states_are_those_that_the_model_returns(arguments):
    model = tiny()
    trace = capture(model, ids(), only=["pattern", "layers.?", "layers.0:input", "final_layernorm"], **arguments)
    with torch.no_grad():
        output = model(ids(), output_attentions=True, output_hidden_states=True, **arguments)
    assert torch.equal(trace.stacked("pattern"), torch.stack(output.attentions))
    assert torch.equal(trace["model.layers.0:input"], output.hidden_states[0])
    assert torch.equal(trace["model.layers.0"], output.hidden_states[1])
    assert torch.equal(trace["final_layernorm"], output.hidden_states[2])
    assert torch.equal(trace.output.logits, output.logits)
    assert trace.output.past_key_values is None
    assert not left_behind(model)


def test_the_residual_stream_is_that_of_transformers():
    ours = tiny()
    theirs = transformers.PersimmonForCausalLM(transformers.PersimmonConfig(**vars(ours.config) | {"extra": None}))
    theirs.load_state_dict(ours.state_dict())
    mask = padded()
    expected = theirs.eval()(ids(), output_hidden_states=True, **mask).hidden_states
    trace = capture(ours, ids(), only=["layers.0:input", "layers.0", "final_layernorm"], **mask)
    sees = mask["attention_mask"].bool()
    for one, other in zip(trace.values(), expected, strict=True):
        assert close(one[sees], other[sees])


def test_transformers_own_model_can_be_captured():
    """Its layers are called by keyword, so an input is no positional argument."""
    theirs = transformers.PersimmonForCausalLM(transformers.PersimmonConfig(**vars(tiny().config) | {"extra": None}))
    names = ["layers.1:input", "layers.0", "self_attn:input", "input_layernorm"]
    trace = capture(theirs, ids(), only=names, gradient_of=lambda output: output.logits[0, -1, 5])
    expected = theirs(ids(), output_hidden_states=True).hidden_states
    assert torch.equal(trace["layers.1:input"], expected[1])
    assert torch.equal(trace["layers.0"], expected[1])
    assert torch.equal(trace["layers.1.self_attn:input"], trace["layers.1.input_layernorm"])
    assert len(trace) == 6
    assert not trace.output.logits.requires_grad
    with pytest.raises(ValueError, match=r"heads=\[1\], but no axis of heads is known"):
        capture(theirs, ids(), only=["q_layernorm"], heads=[1])


def test_inputs_are_what_the_module_before_made():
    model = tiny()
    trace = capture(model, ids(), only=["*", "*:input"])
    layer = "model.layers.1"
    assert torch.equal(trace[f"{layer}:input"], trace["model.layers.0"])
    assert torch.equal(trace[f"{layer}.mlp:input"], trace[f"{layer}.post_attention_layernorm"])
    middle = trace[f"{layer}.post_attention_layernorm:input"]
    assert torch.equal(middle, trace[f"{layer}:input"] + trace[f"{layer}.self_attn"])
    assert torch.equal(trace[layer], middle + trace[f"{layer}.mlp"])
    assert torch.equal(trace[f"{layer}.self_attn"], trace[f"{layer}.self_attn.dense"])
    assert "model.embed_tokens:input" not in trace  # token ids are no activation
    assert {name: axes_of(name) for name in trace} == trace.axes


def test_only_modules_that_match_carry_a_hook():
    model = tiny()
    with capturing(model, only=["layers.1.mlp", "layers.0.mlp:input"]):
        with_hooks = {path for path, module in model.named_modules() if module._forward_hooks}
        with_pre_hooks = {path for path, module in model.named_modules() if module._forward_pre_hooks}
        assert model.config.attn_implementation == "sdpa"
    assert with_hooks == {"", "model.layers.1.mlp"}
    assert with_pre_hooks == {"", "model.layers.0.mlp"}
    assert not left_behind(model)


def test_heads_and_positions_are_kept_alone():
    model = tiny()
    names = ["pattern", "rotated_key", "value", "mlp", "query_key_value", "lm_head"]
    whole = capture(model, ids(), only=names)
    some = capture(model, ids(), only=names, heads=[3, 1], positions=[0, -2])
    at = [0, 7]
    for name, tensor in whole.items():
        expected = tensor[:, [3, 1]][:, :, at] if tensor.ndim == 4 else tensor[:, at]
        assert torch.equal(some[name], expected)
    assert some["layers.0.self_attn.pattern"].shape == (2, 2, 2, 9)
    assert torch.equal(capture(model, ids(), only=names, heads=range(4))["lm_head"], whole["lm_head"])


@pytest.mark.parametrize("choice", [{}, {"heads": [2]}, {"positions": [-1]}, {"heads": [0], "positions": [4]}], ids=str)
def test_nothing_but_what_was_asked_for_stays_in_memory(choice):
    """`value` is a view of the fused projection, a slice a view of the whole: kept as they are, all would stay."""
    names = ["value", "pattern", "q_layernorm", "q_layernorm:input", "head_output"]
    trace = capture(tiny(), ids(), only=names, **choice)
    for name, tensor in trace.items():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, name


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({"only": ["pattern"], "heads": [4]}, IndexError, r"has 4 on its axis 'head'; \[4\]"),
        ({"only": ["pattern"], "heads": [0, -5]}, IndexError, r"\[-5\] was asked for"),
        ({"only": ["mlp"], "positions": [9]}, IndexError, r"layers.0.mlp has 9 on its axis 'position'"),
        ({"only": ["scores"], "positions": [9]}, IndexError, "axis 'query'"),
        ({"only": ["mlp"], "heads": [0]}, ValueError, "no axis of heads is known of model.layers.0.mlp"),
        ({"only": ["mlp"], "positions": []}, ValueError, "positions is empty"),
        ({"only": ["mlq"]}, ValueError, "did you mean 'mlp'"),
        ({"only": ["mlp", "embed_tokens:input"]}, ValueError, "'embed_tokens:input' made no tensor of floats"),
        ({"only": ["model"]}, ValueError, "'model' made no tensor"),
    ],
)
def test_what_cannot_be_kept_is_an_error(choice, error, message):
    model = tiny()
    with pytest.raises(error, match=message):
        capture(model, ids(), **choice)
    assert not left_behind(model)


def test_a_text_without_a_batch_is_an_error():
    # jaxtyping's check is a test's; a reader has this one
    model = tiny()
    with pytest.raises(Exception, match=r"expected \(batch, position\)|Int\[Tensor, \"batch position\"\]|ids"):
        capture(model, ids()[0])


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_attention_is_eager_for_the_call_alone(before):
    model = tiny(attn_implementation=before)
    with capturing(model, only=["scores"]) as outer:
        assert model.config.attn_implementation == before
        capture(model, ids(), only=["pattern"])
        assert model.config.attn_implementation == before
        model(ids())
    assert model.config.attn_implementation == before
    assert len(outer) == 2
    assert [step.names for step in outer] == [[f"model.layers.{i}.self_attn.scores" for i in (0, 1)]] * 2


def test_an_error_inside_leaves_nothing_behind():
    model = tiny()
    with pytest.raises(IndexError, match="token id"):
        capture(model, ids() + 1000, only=["pattern", "layers.0:input"])
    assert not left_behind(model)
    with pytest.raises(RuntimeError, match="mine"), capturing(model, only=["scores"]):
        raise RuntimeError("mine")
    assert not left_behind(model)


@pytest.mark.parametrize("cache", [None, StaticCache(14)], ids=["growing", "static"])
def test_generation_gives_one_trace_per_pass(cache):
    """The prompt at once, then one query a step, whose rows are those of the whole text read in one go."""
    model = tiny()
    arguments = {"max_new_tokens": 5, "eos_token_id": None} | ({} if cache is None else {"past_key_values": cache})
    with capturing(model, only=["pattern", "head_output", "layers.1"]) as steps:
        text = model.generate(ids(), **arguments)
    assert [step["layers.0.self_attn.pattern"].shape for step in steps] == [
        (2, 4, 9, 9), (2, 4, 1, 10), (2, 4, 1, 11), (2, 4, 1, 12), (2, 4, 1, 13)
    ]  # fmt: skip
    whole = capture(model, text[:, :-1], only=["pattern", "head_output", "layers.1"])
    for name in ("layers.1.self_attn.head_output", "layers.1"):
        assert close(torch.cat([step[name] for step in steps], dim=-2), whole[name])
    for row, step in enumerate(steps[1:], start=9):
        assert close(step.stacked("pattern")[..., 0, :], whole.stacked("pattern")[..., row, : row + 1])
    assert torch.equal(steps[2].output.logits.argmax(-1)[:, 0], text[:, 11])
    assert not left_behind(model)


def test_the_last_position_of_each_pass_and_one_head():
    model = tiny()
    with capturing(model, only=["pattern"], heads=[2], positions=[-1]) as steps:
        model.generate(ids(), max_new_tokens=3, eos_token_id=None)
    assert [step["layers.0.self_attn.pattern"].shape for step in steps] == [(2, 1, 1, 9 + n) for n in range(3)]


def test_captures_may_be_nested():
    model = tiny()
    with capturing(model, only=["mlp"]) as outer, capturing(model, only=["mlp", "layers.0"]) as inner:
        trace = capture(model, ids(), only=["layers.1.mlp"])
    assert torch.equal(outer[0]["layers.1.mlp"], trace["layers.1.mlp"])
    assert torch.equal(inner[0]["layers.1.mlp"], trace["layers.1.mlp"])
    assert "model.layers.0" in inner[0]
    assert "model.layers.0" not in outer[0]


def test_a_part_that_runs_by_itself_is_not_a_pass():
    model = tiny()
    with capturing(model, only=["mlp"]) as steps:
        model.model.layers[0].mlp(torch.zeros(1, 2, 64))
        model.model(ids())
        assert steps == []
        model(ids())
        model.model.layers[0].mlp(torch.zeros(1, 2, 64))
    assert len(steps) == 1
    assert steps[0]["layers.0.mlp"].shape == (2, 9, 64)


def test_the_body_and_the_classification_head():
    body, classifier = tiny(PersimmonModel), tiny(PersimmonForSequenceClassification, pad_token_id=0)
    trace = capture(body, ids(), only=["layers.1.mlp", "final_layernorm", "pattern"], heads=[1])
    assert torch.equal(trace["final_layernorm"], trace.output.last_hidden_state)
    assert trace.names == [
        "layers.0.self_attn.pattern",
        "layers.1.self_attn.pattern",
        "layers.1.mlp",
        "final_layernorm",
    ]
    scored = capture(classifier, ids(), only=["score", "score:input", "final_layernorm"])
    assert torch.equal(scored["score"], scored.output.logits)
    assert torch.equal(scored["score:input"], scored["final_layernorm"][:, -1])


def test_a_trace_reads_like_a_dictionary():
    trace = capture(tiny(), ids(), only=["mlp", "layers.0.mlp:input", "input_layernorm", "post_attention_layernorm"])
    assert list(trace) == trace.names == list(trace.keys())
    assert len(trace) == 7
    assert "model.layers.0.mlp" in trace
    assert "layers.0.mlp" in trace
    assert "mlp" not in trace
    assert "layers.1.mlp:input" not in trace
    assert torch.equal(trace["layers.0.mlp"], trace["model.layers.0.mlp"])
    assert torch.equal(trace.stacked("mlp"), torch.stack([trace["layers.0.mlp"], trace["layers.1.mlp"]]))
    assert repr(trace).startswith(
        f"Trace of 7 activations, {7 * 2 * 9 * 64 * 4:,} bytes\n  model.layers.0.input_layernorm (2, 9, 64)"
    )
    with pytest.raises(KeyError, match="the end of 2 names, 'model.layers.0.mlp' first"):
        trace["mlp"]
    with pytest.raises(KeyError, match="was not captured; there are model.layers.0.input_layernorm, "):
        trace["lm_head"]
    with pytest.raises(KeyError, match="nothing that was captured matches 'pattern'"):
        trace.stacked("pattern")
    with pytest.raises(
        ValueError, match="layers.N.input_layernorm and model.layers.N.post_attention_layernorm; stack one"
    ):
        trace.stacked("*_layernorm")


def test_stacks_are_in_layer_order_past_ten_layers():
    trace = capture(tiny(num_hidden_layers=12), ids(), only=["layers.*.mlp"])
    assert torch.equal(trace.stacked("mlp")[10], trace["layers.10.mlp"])
    assert torch.equal(trace.stacked("mlp")[2], trace["layers.2.mlp"])


def test_of_a_module_that_runs_twice_the_last_run_is_kept():
    model = tiny()
    layers = model.model.layers
    layers[1].mlp = layers[0].mlp
    inputs = []
    layers[0].mlp.register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
    trace = capture(model, ids(), only=["layers.0.mlp:input", "layers.0"])
    assert torch.equal(trace["layers.0.mlp:input"], inputs[1])
    assert trace.names == ["model.layers.0", "model.layers.0.mlp:input"]


def test_what_is_kept_is_not_changed_by_the_next_run():
    model = tiny()
    trace = capture(model, ids())
    copies = copy.deepcopy(dict(trace))
    capture(model, ids().flip(0))
    assert all(torch.equal(trace[name], copies[name]) for name in trace)
    assert not any(tensor.requires_grad for tensor in trace.values())


def test_a_cache_is_made_only_where_it_is_asked_for():
    trace = capture(tiny(), ids(), only=["rotated_key"], use_cache=True)
    assert torch.equal(trace.output.past_key_values[1][0], trace["layers.1.self_attn.rotated_key"])


def test_induction_heads_look_where_the_tour_says():
    """On a phrase said twice one head of persimmon-mini looks at the token before, wherever it stands, and one at the
    token after the earlier copy."""
    model, tokenizer = persimmon_lab.load_mini()
    words = tokenizer(" the king gave seven golden rings to Hannah", add_special_tokens=False).input_ids
    patterns = capture(model, torch.tensor([[tokenizer.bos_token_id, *words, *words]]), only=["pattern"])
    scores = stripe_scores(patterns.stacked("pattern"), len(words))
    assert scores["previous token"].max() > 0.7
    assert scores["induction"].max() > max(0.3, float(scores["duplicate token"].max()))


def test_a_long_trace_shows_its_beginning():
    said = repr(capture(tiny(num_hidden_layers=6), ids()))
    assert said.count("\n") == SHOWN
    assert said.endswith("more; .names has all")
    assert f"{capture(tiny(num_hidden_layers=6), ids(), only=['mlp'])}".count("\n") == 6


def test_no_pattern_at_all_is_refused():
    with pytest.raises(ValueError, match="only is empty"):
        capture(tiny(), ids(), only=[])
    with pytest.raises(ValueError, match="only is empty"), capturing(tiny(), only=iter(())):
        pass


@pytest.mark.parametrize("wanted", [[1.5], -1, "0", [True, "x"]])
@pytest.mark.parametrize("what", ["heads", "positions"])
def test_what_counts_no_head_or_position_is_refused(unchecked_annotations, what, wanted):
    with pytest.raises(TypeError, match=f"{what} is .*; give whole numbers in a list"):
        capture(tiny(), ids(), only=["head_output"], **{what: wanted})
