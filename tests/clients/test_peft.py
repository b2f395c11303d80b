"""peft: adapters in, trained, saved, loaded, merged."""

import pytest
import torch

from persimmon_lab.causal_lm import PersimmonForCausalLM
from persimmon_lab.classification import PersimmonForSequenceClassification
from persimmon_lab.mini import MINI
from tests.clients.clients import mini, prompt, rows

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

LAYERS = 2  # of persimmon-mini: enough to see, and quick
TARGETS = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


def adapted(model=None):
    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules=TARGETS)
    return peft.get_peft_model(model or mini(LAYERS), config)


def trained(model=None):
    model = adapted(model).train()
    optimiser = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    seen = []
    for _ in range(3):
        loss = model(input_ids=rows(), labels=rows()).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        seen.append(loss.item())
    assert seen[-1] < seen[0] - 0.1
    return model.eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=rows()).logits


def test_new_adapter_changes_nothing():
    model = adapted().eval()
    assert torch.equal(logits(model), logits(mini(LAYERS)))
    assert all("lora_" in name for name, weight in model.named_parameters() if weight.requires_grad)


def test_save_and_load(tmp_path):
    model = trained()
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(mini(LAYERS), tmp_path)
    torch.testing.assert_close(logits(again), logits(model))
    assert not torch.allclose(logits(model), logits(mini(LAYERS)), atol=1e-2)


def test_merge(tmp_path):
    """A merged model is an ordinary one: it saves, loads and generates as such."""
    model = trained()
    expected = logits(model)
    merged = model.merge_and_unload()
    assert type(merged) is PersimmonForCausalLM
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(PersimmonForCausalLM.from_pretrained(tmp_path)), logits(merged))


def test_generate_with_the_adapter_in():
    model = trained()
    given = model.generate(input_ids=prompt(), max_new_tokens=8)
    merged = model.merge_and_unload()
    assert torch.equal(given, merged.generate(prompt(), max_new_tokens=8, engine="plain"))


def test_resized_embeddings_are_saved_with_the_adapter(tmp_path):
    """peft looks up the base model by its name to see whether its vocabulary has grown."""
    base = mini()
    vocabulary = base.config.vocab_size
    base.resize_token_embeddings(vocabulary + 4)
    model = adapted(base)
    model.save_pretrained(tmp_path)
    from safetensors import safe_open

    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert any("embed_tokens" in name for name in file.keys())  # noqa: SIM118


def test_gradient_checkpointing_with_frozen_embeddings():
    """The embeddings' output must ask for gradients, else no adapter learns: enable_input_require_grads."""
    plain, checkpointed = adapted().train(), adapted().train()
    checkpointed.base_model.model.gradient_checkpointing_enable()
    checkpointed.enable_input_require_grads()
    for model in (plain, checkpointed):
        model(input_ids=rows(), labels=rows(), use_cache=False).loss.backward()
    pairs = zip(plain.named_parameters(), checkpointed.named_parameters(), strict=True)
    for (name, one), (_, other) in pairs:
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_prompt_tuning_trains_and_does_not_generate_without_its_tokens():
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    model = peft.get_peft_model(mini(LAYERS), config)
    assert model(input_ids=rows(), labels=rows()).loss.requires_grad
    with pytest.raises((NotImplementedError, ValueError, TypeError), match="prepare_inputs_for_generation"):
        model.generate(input_ids=prompt(), max_new_tokens=4)


@pytest.mark.parametrize("task", ["CAUSAL_LM", "FEATURE_EXTRACTION"])
def test_save_pretrained_of_ours_refuses_a_model_with_adapters_in(task, tmp_path):
    """It would write what cannot be read."""
    model = adapted().base_model.model
    with pytest.raises(ValueError, match="lora"):
        model.save_pretrained(tmp_path / task)
    assert not (tmp_path / task).exists()


@pytest.mark.parametrize("kind", ["PrefixTuningConfig", "PromptEncoderConfig"])
def test_other_virtual_tokens_train_and_do_not_generate_in_silence(kind):
    model = peft.get_peft_model(mini(LAYERS), getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4))
    model(input_ids=rows(), labels=rows()).loss.backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
    with pytest.raises(NotImplementedError, match="prepare_inputs_for_generation"):
        model.generate(input_ids=prompt(), max_new_tokens=4)


@torch.no_grad()
def test_a_prefix_is_read_as_transformers_reads_it(tmp_path):
    """peft hands it over as a cache: of keys, values and positions that our model must count as its past."""
    mini(LAYERS).save_pretrained(tmp_path)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    bases = mini(LAYERS), transformers.PersimmonForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours, theirs = (peft.get_peft_model(base, config).eval() for base in bases)
    theirs.prompt_encoder.load_state_dict(ours.prompt_encoder.state_dict())
    mask = torch.ones_like(rows())
    given, expected = (model(input_ids=rows(), attention_mask=mask).logits for model in (ours, theirs))
    torch.testing.assert_close(given, expected, atol=1e-4, rtol=1e-4)
    assert (given - mini(LAYERS)(rows()).logits).abs().max() > 1e-2, "the prefix is seen"


KINDS = {
    "scaled activations": lambda: peft.IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["query_key_value", "dense_4h_to_h"],
        feedforward_modules=["dense_4h_to_h"],
    ),
    "a whole module": lambda: peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["query_key_value"], modules_to_save=["lm_head"]
    ),
    "some tokens": lambda: peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["query_key_value"], trainable_token_indices=[300, 301]
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_else_learns_comes_back(kind, tmp_path):
    torch.manual_seed(0)
    model = peft.get_peft_model(mini(LAYERS), KINDS[kind]()).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape)
    assert not torch.allclose(logits(model), logits(mini(LAYERS)), atol=1e-2)
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(mini(LAYERS), tmp_path).eval()
    torch.testing.assert_close(logits(again), logits(model))
    written = model.generate(input_ids=prompt(), max_new_tokens=6)
    assert torch.equal(written, again.generate(input_ids=prompt(), max_new_tokens=6, engine="plain"))


def test_a_classifier_learns_with_its_head():
    base = PersimmonForSequenceClassification.from_pretrained(MINI, num_labels=3)
    model = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query_key_value"]))
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name for name in learning if "lora_" not in name} == {
        "base_model.model.score.modules_to_save.default.weight"
    }
    model(input_ids=rows(2), labels=torch.tensor([0, 2])).loss.backward()
    assert model.get_parameter("base_model.model.score.modules_to_save.default.weight").grad.abs().sum() > 0
