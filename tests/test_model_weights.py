"""Weights: how they start, that they stay tied, what resizing and training do to them."""

import copy
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch
import transformers

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, PersimmonForSequenceClassification, PersimmonModel
from persimmon_lab.elsewhere import require_own_inputs
from tests.models import ids, tiny
from tests.parity.cases import uniform
from tests.tolerances import TOLERANCE


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_initial_weights():
    model = PersimmonForCausalLM(PersimmonConfig.tiny(pad_token_id=5, initializer_range=0.03), generator())
    for name, parameter in model.named_parameters():
        if "layernorm" in name:
            assert (parameter == float(name.endswith("weight"))).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            assert parameter.std().item() == pytest.approx(0.03, rel=0.05)
            assert abs(parameter.mean().item()) < 0.002
    padding_row = model.model.embed_tokens.weight[5]
    assert (padding_row == 0).all()
    assert (model.lm_head.weight[5] != 0).all()


@pytest.mark.parametrize("head", [PersimmonModel, PersimmonForCausalLM, PersimmonForSequenceClassification])
def test_a_generator_decides_every_weight(head):
    first, same, other = (head(PersimmonConfig.tiny(), generator(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_names_are_those_of_transformers():
    layer = {
        "input_layernorm", "self_attn.query_key_value", "self_attn.dense", "self_attn.q_layernorm",
        "self_attn.k_layernorm", "post_attention_layernorm", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h",
    }  # fmt: skip
    expected = {"model.embed_tokens.weight", "lm_head.weight"} | {
        f"model.{module}.{kind}"
        for module in {f"layers.{index}.{name}" for index in range(2) for name in layer} | {"final_layernorm"}
        for kind in ("weight", "bias")
    }
    assert tiny().state_dict().keys() == expected
    assert "q_layernorm" not in " ".join(tiny(qk_layernorm=False).state_dict())
    assert "score.weight" in tiny(PersimmonForSequenceClassification).state_dict()


def test_tied_weights_are_one_tensor_and_count_once():
    tied, untied = tiny(tie_word_embeddings=True), tiny()
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    assert untied.num_parameters() - tied.num_parameters() == 128 * 64
    assert "lm_head.weight" not in dict(tied.named_parameters())


def test_tied_weights_stay_tied_when_copied_cast_and_trained():
    model = copy.deepcopy(tiny(tie_word_embeddings=True)).double()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    model(ids(), labels=ids()).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("size", [128, 150, 100])
def test_resizing_keeps_what_both_vocabularies_have(tied, size):
    model = tiny(tie_word_embeddings=tied)
    before, old_rows = model(ids()).logits, model.model.embed_tokens.weight.detach().clone()
    embedding = model.resize_token_embeddings(size, generator())
    assert embedding is model.get_input_embeddings()
    assert model.config.vocab_size == size == model.get_output_embeddings().out_features
    after = model(ids()).logits
    kept = min(size, 128)
    assert after.shape == (2, 9, size)
    assert torch.equal(embedding.weight[:kept], old_rows[:kept])
    assert torch.allclose(after[..., :kept], before[..., :kept], atol=1e-6)
    assert (model.lm_head.weight is embedding.weight) == tied
    if size > 128:
        assert embedding.weight[128:].std().item() == pytest.approx(0.02, rel=0.1)
        model(torch.full((1, 3), size - 1), labels=torch.full((1, 3), size - 1)).loss.backward()
        assert model.lm_head.weight.grad[size - 1].abs().max() > 0
    else:
        with pytest.raises(IndexError, match=f"token id {size}"):
            model(torch.full((1, 3), size))


def test_resizing_keeps_dtype_device_and_padding():
    model = tiny(pad_token_id=3).to(torch.bfloat16)
    embedding = model.resize_token_embeddings(140, generator())
    assert embedding.weight.dtype == model.lm_head.weight.dtype == torch.bfloat16
    assert embedding.padding_idx == 3


@pytest.mark.parametrize("size", [0, 5])
def test_resizing_away_the_padding_is_refused(size):
    with pytest.raises(ValueError, match=f"cannot resize the vocabulary to {size} tokens"):
        tiny(pad_token_id=5).resize_token_embeddings(size)


def test_a_list_of_ends_is_held_against_a_new_size():
    model = tiny(eos_token_id=[3, 90])
    with pytest.raises(ValueError, match=r"to 90 tokens \(eos_token_id is \[3, 90\]\)"):
        model.resize_token_embeddings(90)
    assert model.resize_token_embeddings(91).num_embeddings == 91


def test_a_body_and_a_classifier_resize_too():
    for model in (tiny(PersimmonModel), tiny(PersimmonForSequenceClassification, pad_token_id=0)):
        model.resize_token_embeddings(140, generator())
        model(torch.full((1, 3), 139))


def test_through_bfloat16_and_back_only_the_weights_are_rounded():
    """The peers keep rotary tables in buffers that are rounded with the model and stay so."""
    model = tiny(max_position_embeddings=64)
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    long = ids(1, 60)
    assert torch.equal(model.bfloat16().float()(long).logits, rounded(long).logits)
    assert not list(model.buffers())


def test_resizing_to_a_multiple():
    """As tensor cores like it; without a size it is that of now."""
    model = tiny()
    assert model.resize_token_embeddings(130, generator(), pad_to_multiple_of=8).num_embeddings == 136
    assert model.resize_token_embeddings().num_embeddings == model.vocab_size == 136
    assert model.resize_token_embeddings(pad_to_multiple_of=64, generator=generator()).num_embeddings == 192
    for wrong in (0, -8, True):
        with pytest.raises(ValueError, match="pad_to_multiple_of"):
            model.resize_token_embeddings(pad_to_multiple_of=wrong)


def test_counts_that_trainers_ask_for():
    """By hand, for 128 tokens of width 64: transformers' numbers for the same sizes."""
    model, tied = tiny(), tiny(tie_word_embeddings=True)
    whole, table = model.num_parameters(), 128 * 64
    assert model.num_parameters(exclude_embeddings=True) == whole - table
    assert tied.num_parameters(exclude_embeddings=True) == whole - 2 * table
    model.model.layers[0].requires_grad_(False)
    frozen = sum(weight.numel() for weight in model.model.layers[0].parameters())
    assert model.num_parameters(only_trainable=True) == whole - frozen
    assert model.num_parameters(only_trainable=True, exclude_embeddings=True) == whole - frozen - table
    batch = {"input_ids": ids(2, 9), "labels": ids(2, 9)}
    assert model.estimate_tokens(batch) == 18
    assert model.floating_point_ops(batch) == 6 * 18 * (whole - table)
    assert model.floating_point_ops(batch, exclude_embeddings=False) == 6 * 18 * whole
    with pytest.warns(UserWarning, match="without input_ids"):
        assert model.floating_point_ops({"inputs_embeds": torch.zeros(2, 9, 64)}) == 0
    assert model.estimate_tokens({}) == 0  # said once
    assert model.get_memory_footprint() == 4 * whole
    assert model.bfloat16().get_memory_footprint() == 2 * whole
    model.register_buffer("extra", torch.zeros(10))
    assert model.get_memory_footprint() - model.get_memory_footprint(return_buffers=False) == 40


def test_counts_are_those_of_transformers():
    theirs = transformers.PersimmonForCausalLM(
        transformers.PersimmonConfig(
            vocab_size=128, hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4
        )
    )
    for options in ({}, {"exclude_embeddings": True}, {"only_trainable": True}):
        assert tiny().num_parameters(**options) == theirs.num_parameters(**options)


def test_names_that_trainers_ask_for():
    causal, body = tiny(), tiny(PersimmonModel)
    assert causal.base_model is causal.get_decoder() is causal.model
    assert body.base_model is body
    assert (causal.can_generate(), body.can_generate()) == (True, False)
    assert (causal.main_input_name, causal.framework, causal.is_parallelizable) == ("input_ids", "pt", False)
    assert (causal.vocab_size, causal.padding_idx, tiny(pad_token_id=3).model.padding_idx) == (128, None, 3)
    assert causal(**causal.dummy_inputs).logits.shape == (3, 5, 128)
    other = tiny(PersimmonModel)
    causal.set_decoder(other)
    assert causal.model is other


@pytest.mark.parametrize("name", ["add_adapter", "push_to_hub", "beam_search", "no_such_name"])
def test_what_is_elsewhere(name):
    """A refusal says what to use, and is an AttributeError all the same; what exists is found as before."""
    model = tiny()
    assert not hasattr(model, name)
    assert getattr(model, name, 5) == 5
    with pytest.raises(
        AttributeError, match=f"no attribute '{name}'|PersimmonForCausalLM has no {name}: use "
    ) as caught:
        getattr(model, name)
    assert ("use " in str(caught.value)) == (name != "no_such_name")
    for copied in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not hasattr(copied, name)
        assert torch.equal(copied(ids()).logits, model(ids()).logits)
    model.add_module(name, torch.nn.Identity())
    assert isinstance(getattr(model, name), torch.nn.Identity)


def test_who_writes_says_so():
    for model in (tiny(PersimmonModel), tiny(PersimmonForSequenceClassification, pad_token_id=0)):
        with pytest.raises(AttributeError, match="has no generate: use PersimmonForCausalLM"):
            model.generate(ids())


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_gradient_checkpointing_gives_the_same_gradients(implementation):
    def gradients(model) -> list[torch.Tensor]:
        model(ids(), labels=ids(), use_cache=False).loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    kept = gradients(tiny(attn_implementation=implementation).train())
    model = tiny(attn_implementation=implementation).train()
    runs = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda *call: runs.append(1))
    recomputed = gradients(model.gradient_checkpointing_enable())
    assert len(runs) == 2  # once forward, once more for the backward pass
    for ours, theirs in zip(recomputed, kept, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)
    model.gradient_checkpointing_disable()(ids(), use_cache=False)
    assert len(runs) == 3


def test_gradient_checkpointing_repeats_its_dropout():
    model = tiny(hidden_dropout=0.5, attention_dropout=0.5).train().gradient_checkpointing_enable()
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        loss = model(ids(), labels=ids(), use_cache=False).loss
        loss.backward()
        gradient = model.model.layers[0].mlp.dense_h_to_4h.weight.grad.clone()
        model.zero_grad()
        model.gradient_checkpointing_disable()
        torch.random.manual_seed(0)
        model(ids(), labels=ids(), use_cache=False).loss.backward()
    assert torch.allclose(model.model.layers[0].mlp.dense_h_to_4h.weight.grad, gradient, atol=1e-7)


def test_gradient_checkpointing_and_a_cache():
    model = tiny().gradient_checkpointing_enable()
    past = model(ids()).past_key_values
    assert past is not None  # evaluation mode: nothing to recompute
    model.train()
    with pytest.warns(UserWarning, match="keeps no cache"):
        assert model(ids()).past_key_values is None
    with pytest.raises(ValueError, match="9 positions; train without a past"):
        model(ids()[:, :1], past_key_values=past, use_cache=False)


def test_gradient_checkpointing_by_its_other_names():
    model = tiny()
    assert not model.is_gradient_checkpointing
    for quiet in ({}, {"gradient_checkpointing_kwargs": {"use_reentrant": False}}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert model.gradient_checkpointing_enable(**quiet) is model
    assert model.is_gradient_checkpointing
    with pytest.warns(UserWarning, match=r"gradient_checkpointing_kwargs=\{'use_reentrant': True\} is ignored"):
        model.gradient_checkpointing_enable({"use_reentrant": True})
    model.gradient_checkpointing_disable()
    assert model.activation_checkpointing_enable({"use_reentrant": False}).is_gradient_checkpointing
    for unlike in ({"every_n_layers": 2}, {"offload": True}):
        with pytest.raises(NotImplementedError, match="every_n_layers="):
            model.activation_checkpointing_enable(**unlike)


def test_inputs_that_ask_for_gradients():
    """With a frozen table the layers' inputs would ask for none; the request copies, pickles and ends."""
    model = tiny().requires_grad_(False)
    model.enable_input_require_grads()
    model.enable_input_require_grads()
    assert len(model.model.embed_tokens._forward_hooks) == 1
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    for one in (model, copied):
        assert one(ids()).logits.requires_grad
        one.disable_input_require_grads()
        one.disable_input_require_grads()
        assert not one(ids()).logits.requires_grad
    with torch.no_grad():
        model.enable_input_require_grads()
        assert model(ids()).logits.shape == (2, 9, 128)


@pytest.mark.parametrize("with_mask", [False, True])
def test_inputs_for_a_loop_of_transformers(with_mask):
    """Greedy decoding written out with `prepare_inputs_for_generation` writes what `generate` writes."""
    model, sequences = tiny(), ids()
    mask = torch.ones_like(sequences)
    if with_mask:
        mask[0, :4] = 0
    expected = model.generate(sequences, attention_mask=mask, max_new_tokens=6, eos_token_id=None, engine="plain")
    past = None
    for _ in range(6):
        inputs = model.prepare_inputs_for_generation(
            sequences, past_key_values=past, attention_mask=mask if with_mask else None, use_cache=True
        )
        with torch.no_grad():
            output = model(**inputs)
        past = output.past_key_values
        sequences = torch.cat((sequences, output.logits[:, -1:].argmax(dim=-1)), dim=1)
        mask = torch.cat((mask, torch.ones_like(mask[:, :1])), dim=1)
    assert torch.equal(sequences, expected)
    embeds = torch.zeros(2, 9, 64)
    assert model.prepare_inputs_for_generation(ids(), inputs_embeds=embeds)["inputs_embeds"] is embeds
    assert "inputs_embeds" not in model.prepare_inputs_for_generation(ids(2, 10), past, inputs_embeds=embeds)


def test_who_does_not_ask_for_its_inputs_refuses_to_generate():
    """peft replaces the method on the instance and puts the old one back: that one is no replacement."""
    model = tiny()
    require_own_inputs(model)
    model.prepare_inputs_for_generation = model.prepare_inputs_for_generation
    require_own_inputs(model)
    model.prepare_inputs_for_generation = lambda *given, **options: {}
    with pytest.raises(NotImplementedError, match="prepare_inputs_for_generation of this PersimmonForCausalLM"):
        require_own_inputs(model)
    require_own_inputs(object())


def test_transition_scores():
    model = tiny()
    output = model.generate(ids(), max_new_tokens=4, eos_token_id=None, return_dict_in_generate=True,
                            output_scores=True)  # fmt: skip
    with torch.no_grad():
        logits = model(output.sequences).logits[:, 8:-1]
    tokens = output.sequences[:, 9:, None]
    ours = model.compute_transition_scores(output.sequences, output.scores)
    torch.testing.assert_close(ours, logits.gather(-1, tokens)[..., 0], atol=1e-4, rtol=1e-4)
    ours = model.compute_transition_scores(output.sequences, output.scores, normalize_logits=True)
    torch.testing.assert_close(ours, logits.log_softmax(-1).gather(-1, tokens)[..., 0], atol=1e-4, rtol=1e-4)


def test_transition_scores_of_beams_are_those_of_transformers():
    model = tiny()
    draws = torch.Generator().manual_seed(0)
    scores = tuple(torch.randn(6, 128, generator=draws) for _ in range(5))
    beams = torch.tensor([[0, 2, 1, -1, -1], [3, 3, 4, 5, -1]])
    sequences = torch.randint(0, 128, (2, 13), generator=draws)
    theirs = transformers.GenerationMixin.compute_transition_scores
    peer = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: model.config))
    for normalize in (False, True):
        expected = theirs(peer, sequences, scores, beams, normalize)
        ours = model.compute_transition_scores(sequences, scores, beams, normalize)
        torch.testing.assert_close(ours, expected)
    with pytest.raises(ValueError, match="2 sequences, but scores of 6 rows"):
        model.compute_transition_scores(sequences, scores)


def test_dropout_only_while_training():
    model = tiny(hidden_dropout=0.5, attention_dropout=0.5)
    assert torch.equal(model(ids()).logits, tiny()(ids()).logits)
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model.train()
        assert not torch.allclose(model(ids()).logits, model(ids()).logits)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_dropout_drops_its_share_of_the_weights(implementation):
    """With keys that are all alike, each output is the mean of the values over what was kept, scaled up."""
    model = tiny(attention_dropout=0.25, attn_implementation=implementation, num_hidden_layers=1).train()
    attention = model.model.layers[0].self_attn
    seen = []
    attention.rotated_key.register_forward_hook(lambda module, given, output: torch.zeros_like(output))
    attention.value.register_forward_hook(lambda module, given, output: torch.ones_like(output))
    attention.head_output.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model(ids(8, 60), use_cache=False)
    last = seen[0][:, :, -1, 0]  # (batch head): kept weights / 60 / 0.75
    kept = (last * 60 * 0.75).round()
    assert torch.allclose(last, kept / 60 / 0.75, atol=1e-5)
    assert kept.mean().item() == pytest.approx(45, abs=3 * (60 * 0.25 * 0.75 / 32) ** 0.5)


def test_hidden_dropout_drops_its_share_of_the_mlp_once():
    model = tiny(PersimmonModel, hidden_dropout=0.25, num_hidden_layers=1).train()
    seen = {}
    layer = model.layers[0]
    layer.mlp.register_forward_hook(lambda *call: seen.update(mlp=call[2]))
    layer.dropout.register_forward_hook(lambda *call: seen.update(dropped=call[2]))
    layer.post_attention_layernorm.register_forward_pre_hook(lambda *call: seen.update(attended=call[1][0]))
    layer.register_forward_hook(lambda *call: seen.update(out=call[2][0]))
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        model(ids(2, 60))
    added = seen["out"] - seen["attended"]
    assert torch.allclose(added, seen["dropped"], atol=1e-6)
    kept = seen["dropped"] != 0
    assert torch.allclose(seen["dropped"][kept], seen["mlp"][kept] / 0.75, atol=1e-5)
    count = kept.numel()
    assert kept.float().mean().item() == pytest.approx(0.75, abs=3 * (0.25 * 0.75 / count) ** 0.5)


def test_every_parameter_has_a_part_in_the_loss():
    model = tiny()
    model(ids(), labels=ids()).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-6, name


def test_double_precision_is_double_throughout():
    """No float32 step on the way: eager then agrees with the fused kernel, which has none, to the last digits."""
    embeddings = uniform("embeddings", 1, 9, 64).double()
    eager, sdpa = (
        tiny(PersimmonModel, attn_implementation=name).double()(inputs_embeds=embeddings).last_hidden_state
        for name in ("eager", "sdpa")
    )
    assert eager.dtype == torch.float64
    assert torch.allclose(eager, sdpa, rtol=0, atol=TOLERANCE[torch.float64])


def test_the_two_implementations_give_the_same_gradients():
    for ours, theirs in zip(*(gradients_of(name) for name in ("eager", "sdpa")), strict=True):
        assert torch.allclose(ours, theirs, atol=TOLERANCE[torch.float32])


def gradients_of(implementation: str) -> list[torch.Tensor]:
    model = tiny(attn_implementation=implementation)
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 1, 1, 1]])
    model(ids(), attention_mask=mask, labels=ids().masked_fill(mask == 0, -100)).loss.backward()
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("cls", [PersimmonModel, PersimmonForCausalLM, PersimmonForSequenceClassification])
@pytest.mark.parametrize("config", [{}, "config.json", transformers.PersimmonConfig()], ids=["dict", "text", "theirs"])
def test_another_config_is_refused_by_its_kind(cls, config, unchecked_annotations):
    with pytest.raises(TypeError, match=f"config is a {type(config).__name__}; give a PersimmonConfig"):
        cls(config)


def test_a_checkpoint_is_not_loaded_with_another_kind_of_config(tmp_path, unchecked_annotations):
    tiny().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="config is a str; give a PersimmonConfig"):
        PersimmonForCausalLM.from_pretrained(tmp_path, config="config.json")
