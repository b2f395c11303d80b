"""generate() beside transformers' on the same weights, then everything around the loop."""

import threading

import pytest
import torch

from persimmon_lab import DynamicCache, StaticCache
from persimmon_lab.generation import GenerationConfig, decode_steps, generate

CONFIGS = {
    "plain": {},
    "no qk-layernorm": {"qk_layernorm": False},
    "full rotary": {"partial_rotary_factor": 1.0},
    "tied": {"tie_word_embeddings": True},
    "linear scaling": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "three heads": {"hidden_size": 48, "num_attention_heads": 3},
}


@pytest.mark.parametrize("overrides", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}], ids=str)
def test_greedy_equals_transformers(twins, padded_prompts, overrides, settings):
    """A batch padded on the left, 25 tokens past it."""
    ids, mask = padded_prompts
    ours, theirs = twins(**overrides)
    expected = theirs.generate(ids, attention_mask=mask, max_new_tokens=25, **settings)
    assert torch.equal(ours.generate(ids, attention_mask=mask, max_new_tokens=25, **settings), expected)


def test_rows_stop_by_themselves_and_are_padded(twins, padded_prompts):
    """Any of six ids ends a row; the rows end at different steps."""
    ids, mask = padded_prompts
    ours, theirs = twins()
    free = ours.generate(ids, attention_mask=mask, max_new_tokens=25)[:, 7:]
    ends = [int(free[0, 4]), int(free[1, 9])]
    expected = theirs.generate(ids, attention_mask=mask, max_new_tokens=25, eos_token_id=ends)
    result = ours.generate(ids, attention_mask=mask, max_new_tokens=25, eos_token_id=ends)
    assert torch.equal(result, expected)
    assert len({row.index(0) if 0 in row else 25 for row in result[:, 7:].tolist()}) > 1, "the rows ended together"


def test_without_a_pad_id_rows_are_filled_with_the_first_eos(twins, padded_prompts):
    ids, mask = padded_prompts
    ours, theirs = twins(pad_token_id=None)
    ends = ours.generate(ids, attention_mask=mask, max_new_tokens=5)[0, -2:].tolist()
    expected = theirs.generate(ids, attention_mask=mask, max_new_tokens=25, eos_token_id=ends)
    assert torch.equal(ours.generate(ids, attention_mask=mask, max_new_tokens=25, eos_token_id=ends), expected)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8, "temperature": 1.5},
        {"min_p": 0.1, "repetition_penalty": 1.2},
        {"top_k": 30, "top_p": 0.9, "min_p": 0.02, "temperature": 0.9, "num_return_sequences": 3},
    ],
    ids=str,
)
def test_sampling_equals_transformers(twins, padded_prompts, settings):
    """torch draws the same numbers from a generator and from its global state after the same seed."""
    ids, mask = padded_prompts
    ours, theirs = twins()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        settings = {"top_k": 0, "do_sample": True, "max_new_tokens": 12} | settings
        expected = theirs.generate(ids, attention_mask=mask, **settings)
    assert torch.equal(ours.generate(ids, attention_mask=mask, seed=5, **settings), expected)


def test_scores_and_logits_equal_transformers(twins, padded_prompts):
    ids, mask = padded_prompts
    ours, theirs = twins()
    wanted = {"max_new_tokens": 6, "repetition_penalty": 1.5, "return_dict_in_generate": True,
              "output_scores": True, "output_logits": True}  # fmt: skip
    expected = theirs.generate(ids, attention_mask=mask, **wanted)
    result = ours.generate(ids, attention_mask=mask, **wanted)
    assert len(result.scores) == len(result.logits) == 6
    for mine, other in [*zip(result.scores, expected.scores), *zip(result.logits, expected.logits)]:
        torch.testing.assert_close(mine, other, atol=5e-5, rtol=0)
    assert result.past_key_values.get_seq_length() == 7 + 6 - 1
    assert list(generate(ours, ids, max_new_tokens=2, return_dict_in_generate=True)) == ["sequences", "past_key_values"]


def test_each_row_of_a_padded_batch_is_what_it_is_alone(tiny_model, padded_prompts):
    ids, mask = padded_prompts
    model = tiny_model()
    together = model.generate(ids, attention_mask=mask, max_new_tokens=20)
    for row in range(3):
        alone = model.generate(ids[row : row + 1, mask[row].bool()], max_new_tokens=20)
        assert torch.equal(together[row, 7:], alone[0, -20:])


def test_positions_count_tokens_and_not_padding(tiny_model, padded_prompts):
    """Rotation sees distances alone, so that shifted positions would give the same text: look at what is passed."""
    ids, mask = padded_prompts
    model, passed = tiny_model(eos_token_id=None), []
    model.register_forward_pre_hook(lambda *call: passed.append(call[2]["position_ids"]), with_kwargs=True)
    model.generate(ids, attention_mask=mask, max_new_tokens=3)
    assert passed[0].tolist() == [[0, 1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 1, 2, 3], [0, 0, 1, 2, 3, 4, 5]]
    assert [positions.tolist() for positions in passed[1:]] == [[[7], [4], [6]], [[8], [5], [7]]]


def test_greedy_is_the_argmax_of_a_forward_over_everything(tiny_model, padded_prompts):
    """Without the cache, by the definition: each token is the argmax after all tokens before it."""
    ids, _ = padded_prompts
    model = tiny_model()
    result = model.generate(ids[:1], max_new_tokens=20)
    assert torch.equal(model(result).logits[0, 6:-1].argmax(dim=-1), result[0, 7:])
    assert torch.equal(model.generate(ids[:1], max_new_tokens=20, use_cache=False), result)


def test_padding_is_inferred_where_the_pad_id_means_only_that(tiny_model, padded_prompts):
    ids, mask = padded_prompts
    model = tiny_model()
    assert torch.equal(model.generate(ids), model.generate(ids, attention_mask=mask))
    everything = torch.ones_like(ids)
    assert torch.equal(model.generate(ids, bos_token_id=0), model.generate(ids, attention_mask=everything))
    assert torch.equal(
        model.generate(ids, eos_token_id=0), model.generate(ids, attention_mask=everything, eos_token_id=0)
    )


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty`")
def test_embeddings_in_place_of_ids(twins, padded_prompts):
    ids, mask = padded_prompts
    ours, theirs = twins()
    embeds = ours.get_input_embeddings()(ids).detach()
    from_ids = ours.generate(ids, attention_mask=mask, max_new_tokens=9)
    from_embeds = ours.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=9)
    assert torch.equal(from_embeds, from_ids[:, 7:])
    without_cache = ours.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=9, use_cache=False)
    assert torch.equal(without_cache, from_embeds)
    # The penalty sees generated tokens alone. Unpadded: transformers takes a row's padding off its generated tokens.
    penalty = {"max_new_tokens": 9, "repetition_penalty": 1.4}
    expected = theirs.generate(inputs_embeds=embeds[:1], **penalty)
    assert torch.equal(ours.generate(inputs_embeds=embeds[:1], **penalty), expected)


def test_a_preallocated_cache(tiny_model, padded_prompts):
    ids, mask = padded_prompts
    model = tiny_model()
    expected = model.generate(ids, attention_mask=mask)
    assert torch.equal(model.generate(ids, attention_mask=mask, past_key_values=StaticCache(26)), expected)


def test_a_cache_of_the_beginning_saves_only_work(tiny_model, padded_prompts):
    ids, mask = padded_prompts
    model = tiny_model()
    expected = model.generate(ids, attention_mask=mask)
    cache = DynamicCache()
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    model(ids[:, :5], attention_mask=mask[:, :5], position_ids=positions[:, :5], past_key_values=cache)
    legacy = cache.to_legacy_cache()
    assert torch.equal(model.generate(ids, attention_mask=mask, past_key_values=legacy), expected)
    assert torch.equal(model.generate(ids, attention_mask=mask, past_key_values=cache), expected)
    with pytest.raises(ValueError, match=r"26 positions and the prompt has 7.*crop\(6\)"):
        model.generate(ids, attention_mask=mask, past_key_values=cache)


# How long


def test_lengths(tiny_model, padded_prompts):
    ids, _ = padded_prompts
    model = tiny_model(eos_token_id=None)
    assert model.generate(ids, max_length=30).shape == (3, 30)
    assert model.generate(ids, max_new_tokens=4).shape == (3, 11)
    assert model.generate(ids, max_new_tokens=4, max_length=60).shape == (3, 11)
    assert model.generate(ids).shape == (3, 27)
    assert model.generate(torch.full((1, 60), 5)).shape == (1, 64), "the default ends where the context ends"


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        (7, {"max_length": 7}, "max_length=7 leaves no room after a prompt of 7"),
        (7, {"max_new_tokens": 0}, "max_new_tokens=0"),
        (60, {"max_new_tokens": 5}, "60 tokens and 5 new ones.*make 65.*64 positions.*at most 4 new"),
        (64, {}, "prompt of 64 tokens"),
    ],
)
def test_lengths_that_cannot_be(tiny_model, prompt, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny_model().generate(torch.full((1, prompt), 5), **settings)


def test_padding_takes_no_positions(tiny_model):
    """60 wide, but 50 of text in the longest row: room for 14 more."""
    model, ids = tiny_model(eos_token_id=None), torch.full((2, 60), 5)
    mask = torch.ones_like(ids)
    mask[0, :10] = mask[1, :20] = 0
    assert model.generate(ids, attention_mask=mask, max_new_tokens=14).shape == (2, 74)
    with pytest.raises(ValueError, match="50 tokens and 15 new ones"):
        model.generate(ids, attention_mask=mask, max_new_tokens=15)


def test_scaled_models_go_as_far_as_their_scale(tiny_model):
    model = tiny_model(rope_scaling={"type": "dynamic", "factor": 2.0}, eos_token_id=None)
    assert model.generate(torch.full((1, 60), 5), max_length=128).shape == (1, 128)
    with pytest.raises(ValueError, match="128 positions"):
        model.generate(torch.full((1, 60), 5), max_length=129)


# Where to begin


def test_nothing_begins_with_bos(tiny_model):
    model = tiny_model()
    expected = model.generate(torch.tensor([[1]]))
    assert torch.equal(model.generate(), expected)
    assert torch.equal(model.generate(torch.empty(2, 0, dtype=torch.int64)), expected.expand(2, -1))
    with pytest.raises(ValueError, match="bos_token_id"):
        model.generate(bos_token_id=None)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_ids": torch.tensor([1, 2])}, ValueError, r"shape \(2,\).*ids\[None\]"),
        ({"input_ids": {"input_ids": 1}}, ValueError, "a dict.*input_ids"),
        ({"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}, ValueError, 'row 0.*padding_side = "left"'),
        ({"attention_mask": torch.ones(1, 3)}, ValueError, r"\(1, 3\) but the prompt is \(2, 3\)"),
        ({"inputs_embeds": torch.zeros(2, 3, 64)}, ValueError, "both input_ids and inputs_embeds"),
        ({"stop_strings": ["x", ""]}, ValueError, "an empty stop string"),
        ({"num_return_sequences": 2}, ValueError, "do_sample=True"),
        ({"seed": 1, "generator": torch.Generator()}, ValueError, "seed and generator"),
        ({"stop_strings": "x"}, ValueError, "tokenizer="),
        ({"temprature": 2.0}, TypeError, "'temprature' .did you mean 'temperature'"),
        ({"do_sample": True, "temperature": 0.0}, ValueError, "temperature=0.0"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_named(tiny_model, arguments, error, message):
    arguments = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 10]])} | arguments
    with pytest.raises(error, match=message):
        generate(tiny_model(), **arguments)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_an_error_with_its_place(tiny_model, value):
    model = tiny_model()
    model.lm_head.weight.data[9] = value
    with pytest.raises(FloatingPointError, match="position 3 of row 0.*bfloat16"):
        model.generate(torch.tensor([[5, 6, 7]]))


# Settings


def test_sampling_options_without_sampling_are_noticed(tiny_model):
    model, ids = tiny_model(), torch.tensor([[5, 6, 7]])
    with pytest.warns(UserWarning, match="temperature, top_p have no effect.*do_sample=True"):
        model.generate(ids, temperature=0.5, top_p=0.9)
    model.generate(ids, temperature=0.5, do_sample=False)


def test_settings_come_from_the_model_and_are_overruled(tiny_model):
    model, ids = tiny_model(eos_token_id=None), torch.tensor([[5, 6, 7]])
    greedy = model.generate(ids, max_new_tokens=6)
    model.generation_config = GenerationConfig(max_new_tokens=6, do_sample=True, temperature=3.0)
    assert model.generate(ids).shape == (1, 9)
    assert not torch.equal(model.generate(ids, seed=0), greedy)
    assert torch.equal(model.generate(ids, do_sample=False), greedy)
    assert model.generate(ids, max_length=5).shape == (1, 5)
    assert torch.equal(model.generate(ids, generation_config=GenerationConfig(max_new_tokens=6)), greedy)


def test_eos_from_the_config_and_none_at_all(tiny_model):
    ids = torch.tensor([[5, 6, 7]])
    free = tiny_model(eos_token_id=None).generate(ids, max_new_tokens=6)
    end = int(free[0, 5])
    model = tiny_model(eos_token_id=end)
    assert torch.equal(model.generate(ids, max_new_tokens=6), free[:, : free[0].tolist().index(end, 3) + 1])
    assert torch.equal(model.generate(ids, max_new_tokens=6, eos_token_id=None), free)


# Step by step


def test_callback_sees_every_token_and_can_stop(tiny_model):
    model, ids = tiny_model(eos_token_id=None), torch.tensor([[5, 6, 7]])
    expected = model.generate(ids, max_new_tokens=10)
    seen = []

    def three_tokens(step):
        seen.append(step)
        return len(seen) == 3

    assert torch.equal(model.generate(ids, max_new_tokens=10, on_token=three_tokens), expected[:, :6])
    assert [int(step.token_ids) for step in seen] == expected[0, 3:6].tolist()
    assert torch.equal(model.generate(ids, max_new_tokens=10, on_token=lambda step: "not True"), expected)
    assert torch.equal(model.generate(ids, max_new_tokens=10), expected), "the model is as it was"


def test_cancel_from_another_thread(tiny_model):
    """The first token gives the other thread its turn; it cancels; the loop then ends before its time."""
    model, ids = tiny_model(eos_token_id=None), torch.tensor([[5, 6, 7]])
    cancel, started = threading.Event(), threading.Event()

    def stop():
        started.wait()
        cancel.set()

    other = threading.Thread(target=stop)
    other.start()

    def first_token(step):
        started.set()
        other.join()

    assert model.generate(ids, max_new_tokens=50, on_token=first_token, cancel=cancel).shape == (1, 4)


def test_an_error_in_the_callback_reaches_the_caller(tiny_model):
    def broken(step):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tiny_model().generate(torch.tensor([[5]]), on_token=broken)


def test_steps_tell_where_they_are(tiny_model):
    model, ids = tiny_model(eos_token_id=None), torch.tensor([[5, 6, 7]])
    steps = list(decode_steps(model, ids, max_new_tokens=4))
    assert [step.is_last for step in steps] == [False, False, False, True]
    assert torch.equal(steps[-1].sequences, model.generate(ids, max_new_tokens=4))
    assert all(step.choice().rank == 1 for step in steps)
    assert torch.equal(steps[2].logits, model(steps[1].sequences).logits[:, -1]) or torch.allclose(
        steps[2].logits, model(steps[1].sequences).logits[:, -1], atol=5e-5
    )


def test_choice_is_of_the_model_before_the_filters(tiny_model):
    step = next(decode_steps(tiny_model(), torch.tensor([[5, 6, 7]]), do_sample=True, top_k=1, temperature=0.2, seed=0))
    assert step.choice().probability == pytest.approx(float(step.logits.softmax(-1).max()))
    assert step.choice().probability < 1.0


def test_gradients_are_off_inside_and_on_outside(tiny_model):
    model, ids = tiny_model(), torch.tensor([[5, 6, 7]])
    for step in decode_steps(model, ids, max_new_tokens=2):
        assert torch.is_grad_enabled(), "the loop's no_grad leaks into the code that iterates over it"
        assert not step.logits.requires_grad
    generated = model.generate(ids, max_new_tokens=5)
    model(generated, labels=generated).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_in_training_keeps_its_mode_and_its_dropout(tiny_model):
    model, ids = tiny_model(hidden_dropout=0.5, eos_token_id=None).train(), torch.tensor([[5, 6, 7]])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model.generate(ids), model.generate(ids))
    assert model.training


def test_only_the_last_position_is_projected(tiny_model):
    model, widths = tiny_model(), []
    model.lm_head.register_forward_pre_hook(lambda module, arguments: widths.append(arguments[0].shape[1]))
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4)
    assert widths == [1, 1, 1, 1]


def test_token_ids_that_a_generation_config_leaves_open_are_the_models(tiny_model):
    model, ids = tiny_model(eos_token_id=None), torch.tensor([[5, 6, 7]])
    free = model.generate(ids, max_new_tokens=6)
    model.generation_config.eos_token_id = [int(free[0, 5])]
    stopped = model.generate(ids, max_new_tokens=6)
    assert stopped.shape[1] < free.shape[1]
    for given in (GenerationConfig(max_new_tokens=6), {"max_new_tokens": 6}):
        assert torch.equal(model.generate(ids, generation_config=given), stopped)


def test_settings_of_beams_without_beams_are_noticed(tiny_model):
    with pytest.warns(UserWarning, match="length_penalty, early_stopping have no effect.*num_beams"):
        tiny_model().generate(torch.tensor([[5, 6]]), max_new_tokens=2, length_penalty=2.0, early_stopping=True)


@pytest.mark.parametrize("engine", ["plain", "fast"])
def test_a_model_that_returns_tuples_generates(tiny_model, engine):
    model, ids = tiny_model(), torch.tensor([[5, 6, 7]])
    right = model.generate(ids, max_new_tokens=4, engine=engine)
    model.config.return_dict = False
    assert torch.equal(model.generate(ids, max_new_tokens=4, engine=engine), right)
