"""A configuration comes from args, which must agree with the tensors, or from the tensors and what is assumed."""

import dataclasses

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM
from persimmon_lab.adept.frequencies import base_of, belong_to
from persimmon_lab.adept.megatron_args import ASSUMED, read_settings
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.tensor_streams import InMemory
from persimmon_lab.rotary import inverse_frequencies

CONFIG = PersimmonConfig(
    vocab_size=96, hidden_size=32, intermediate_size=80, num_hidden_layers=3, num_attention_heads=2,
    max_position_embeddings=48, partial_rotary_factor=0.25, rope_theta=700.0, layer_norm_eps=1e-3,
    initializer_range=0.01, attention_dropout=0.1,
    bos_token_id=1, eos_token_id=2, architectures=["PersimmonForCausalLM"],
)  # fmt: skip
ARGS = {
    "num_layers": 3, "hidden_size": 32, "ffn_hidden_size": 80, "num_attention_heads": 2, "kv_channels": 16,
    "padded_vocab_size": 96, "seq_length": 48, "max_position_embeddings": 64, "rotary_pct": 0.25,
    "rotary_emb_base": 700, "layernorm_epsilon": 1e-3, "qk_layernorm": "weights_per_layer", "sq_relu": True,
    "untie_embeddings": True, "pos_emb": "rotary", "apply_residual_connection_post_layernorm": False,
    "bias_gelu_fusion": None, "init_method_std": 0.01, "attention_dropout": 0.1, "hidden_dropout": 0.0,
    "tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1, "lr": 1e-4, "data_path": None,
}  # fmt: skip


def tensors_of(config: PersimmonConfig = CONFIG) -> dict[str, InMemory]:
    """The tensors of a model, without values; with the head even where it is tied, as the last stage has it."""
    with torch.device("meta"):
        return {name: InMemory(tensor) for name, tensor in PersimmonForCausalLM(config).state_dict().items()}


def frequencies_of(base: float = 700, width: int = 4, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    """The buffers of three layers."""
    frequencies = inverse_frequencies(width, float(base)).to(dtype)
    return {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": frequencies for layer in range(3)}


def settings(args=ARGS, tensors=None, frequencies=None, ranks=(1, 1)):
    tensors = tensors_of() if tensors is None else tensors
    frequencies = frequencies_of() if frequencies is None else frequencies
    return read_settings(args if isinstance(args, list) else [args], tensors, frequencies, ranks)


def refused(*lines: str, **given):
    """All these lines are in one error, and no other."""
    with pytest.raises(CheckpointError) as caught:
        settings(**given)
    told = str(caught.value).split("\n  ")
    assert told[0] == "this release cannot be converted:"
    assert len(told) == 1 + len(lines), told
    for line, expected in zip(told[1:], lines):
        assert expected in line


def test_args_become_a_configuration():
    assert settings() == (CONFIG, [])


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"qk_layernorm": "none"}, {"qk_layernorm": False}),
        ({"untie_embeddings": None}, {"tie_word_embeddings": True}),
        ({"untie_embeddings": False}, {"tie_word_embeddings": True}),
        ({"kv_channels": None, "ffn_hidden_size": None}, {}),
        ({"qk_layernorm": "weights_per_tensor_parallel_rank_and_layer"}, {}),
    ],
    ids=str,
)
def test_settings_that_megatron_completes(changes, fields):
    config = dataclasses.replace(CONFIG, **fields)
    assert settings(ARGS | changes, tensors_of(config)) == (config, [])


def test_what_a_release_leaves_out_is_assumed_and_said():
    """Sizes, heads and the rotation follow from the tensors; the rest is what Persimmon-8B has."""
    config, notes = settings([], frequencies=frequencies_of(25000))
    assert config == dataclasses.replace(
        CONFIG, rope_theta=25000.0, max_position_embeddings=16384, layer_norm_eps=1e-5,
        initializer_range=0.02, attention_dropout=0.0,
    )  # fmt: skip
    assert notes == [
        "there are no args: sizes are those of the tensors",
        "not in the release, so assumed as in Persimmon-8B: seq_length 16384, layernorm_epsilon 1e-05, pos_emb rotary, "
        "sq_relu True, apply_residual_connection_post_layernorm False",
    ]


@pytest.mark.parametrize("key", sorted(ASSUMED))
def test_each_field_that_is_missing(key):
    """Without kv_channels and the frequencies' two settings the tensors tell; without the others it is said."""
    args = {name: value for name, value in ARGS.items() if name != key}
    config, notes = settings(args)
    followed = {"kv_channels", "rotary_pct", "rotary_emb_base"}
    assert (notes == []) == (key in followed)
    if key in followed:
        assert config.rope_theta == pytest.approx(700, rel=0.02)
        assert dataclasses.replace(config, rope_theta=700.0) == CONFIG
    else:
        assert f"Persimmon-8B: {key} {ASSUMED[key]}" in notes[0]


@pytest.mark.parametrize(
    ("norm", "frequencies", "heads", "factor"),
    [
        (True, {}, 4, 0.5),  # from the width of the norm; the rotation is assumed
        (False, frequencies_of(25000, 8), 4, 0.5),  # from the frequencies, of half the channels
        (False, {}, 1, 0.5),  # of 64 channels
    ],
)
def test_heads_without_args(norm, frequencies, heads, factor):
    config = PersimmonConfig.tiny(num_attention_heads=4, qk_layernorm=norm)
    found, notes = settings([], tensors_of(config), frequencies)
    assert (found.num_attention_heads, found.partial_rotary_factor, found.qk_layernorm) == (heads, factor, norm)
    assert ("kv_channels 64" in notes[1]) == (heads == 1)


def test_dropout_that_falls_elsewhere_is_said():
    config, notes = settings(ARGS | {"hidden_dropout": 0.2})
    assert config == dataclasses.replace(CONFIG, hidden_dropout=0.2)
    assert notes == ["hidden_dropout 0.2 falls after the MLP alone here; Megatron's also on embeddings and attention"]


# Disagreement


def test_all_disagreements_are_listed_at_once():
    refused(
        "num_layers: args say 4, the tensors 3",
        "hidden_size: args say 48, the tensors 32",
        "padded_vocab_size: args say 95, the tensors 96",
        "ffn_hidden_size: args say 81, the tensors 80",
        "kv_channels: args say 24, the tensors 16",
        "qk_layernorm: args say 'none', the tensors 'weights_per_layer'",
        "pipeline_model_parallel_size: args say 3, but there are 1; files of other ranks are missing",
        "tensor_model_parallel_size: args say 2, but there are 1; files of other ranks are missing",
        "rotary_pct 0.25 of kv_channels 24 rotates 6 channels, but model.layers.0.self_attn.rotary_emb.inv_freq is fo",
        args=ARGS | {"num_layers": 4, "hidden_size": 48, "padded_vocab_size": 95, "ffn_hidden_size": 81,
                     "kv_channels": 24, "qk_layernorm": "none", "pipeline_model_parallel_size": 3,
                     "tensor_model_parallel_size": 2},
    )  # fmt: skip


@pytest.mark.parametrize("key", ["tensor_model_parallel_size", "pipeline_model_parallel_size"])
def test_a_release_shared_out_anew_under_its_old_args(key):
    """All layers and all of the vocabulary are there, so no rank is missing, whatever args say of their number."""
    assert settings(ARGS | {key: 8}) == (CONFIG, [])


def test_a_head_that_is_not_there():
    tensors = tensors_of()
    del tensors["lm_head.weight"]
    refused("untie_embeddings: args say True, the tensors False", tensors=tensors)


def test_args_of_ranks_that_differ():
    refused(
        "layernorm_epsilon: the args of one rank say 0.001, those of another 1e-05",
        args=[ARGS, ARGS, ARGS | {"layernorm_epsilon": 1e-5, "lr": 3.0}],
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pos_emb": "learned"}, "pos_emb is 'learned': Persimmon's positions are rotary"),
        ({"pos_emb": "alibi"}, "pos_emb is 'alibi'"),
        ({"sq_relu": None}, "sq_relu is off"),
        ({"sq_relu": False}, "sq_relu is off"),
        ({"bias_gelu_fusion": True}, "bias_gelu_fusion is on, which makes the activation GELU"),
        ({"apply_residual_connection_post_layernorm": True}, "Persimmon is pre-LayerNorm"),
        ({"num_attention_heads": 4}, "kv_channels 16 x num_attention_heads 4 is not hidden_size 32"),
        ({"rotary_emb_base": 10000}, "rotary_emb_base 10000 does not give the frequencies in model.layers.0"),
    ],
    ids=str,
)
def test_what_is_no_persimmon(changes, message):
    refused(message, args=ARGS | changes)


def test_signs_of_other_models_without_args():
    tensors = tensors_of() | {"model.position_embeddings.weight": InMemory(torch.zeros(48, 32))}
    refused("a table of learned positions", args=[], tensors=tensors, frequencies=frequencies_of(25000))
    tensors = {name: tensor for name, tensor in tensors_of().items() if "q_layernorm" not in name}
    tensors["model.layers.0.self_attn.q_layernorm.layernorms.0.weight"] = InMemory(torch.zeros(16))
    refused("qk_layernorm is weights_per_attention_head_and_layer: Persimmon has one", args=[], tensors=tensors,
            frequencies=frequencies_of(25000))  # fmt: skip


@pytest.mark.parametrize("layer", [0, 2])
def test_frequencies_of_one_layer_that_differ(layer):
    frequencies = frequencies_of()
    name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
    frequencies[name] = frequencies_of(25000)[name]
    refused(f"rotary_emb_base 700 does not give the frequencies in {name}, whose base looks like 25000",
            frequencies=frequencies)  # fmt: skip


def test_more_heads_than_channels():
    refused(
        "kv_channels 1 x num_attention_heads 64 is not hidden_size 32",
        "rotates 0 channels",
        args=ARGS | {"num_attention_heads": 64, "kv_channels": None, "qk_layernorm": "none"},
        tensors=tensors_of(dataclasses.replace(CONFIG, qk_layernorm=False)),
    )


def test_frequencies_that_are_none():
    refused("rotary_pct 0.25 of kv_channels 16 rotates 4 channels, but x is for 0", frequencies={"x": torch.zeros(0)})


@pytest.mark.parametrize("value", [0, -3, "many", 2.5, object()])
def test_sizes_that_are_no_numbers(value):
    with pytest.raises(CheckpointError, match="args should have a number above 0 for num_attention_heads, not"):
        settings(ARGS | {"num_attention_heads": value})


def test_settings_that_no_model_has():
    with pytest.raises(CheckpointError, match="describe no Persimmon model: hidden_dropout is 3"):
        settings(ARGS | {"hidden_dropout": 3.0})


def test_nothing_to_go_by():
    for args in ([], {"num_attention_heads": 4}):
        with pytest.raises(CheckpointError, match="neither args nor tensors tell hidden_size, .*padded_vocab_size"):
            settings(args, {"model.final_layernorm.bias": InMemory(torch.zeros(32))})


# Frequencies


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [2, 4, 32, 128])
@pytest.mark.parametrize("base", [700, 10000, 25000, 1000000.0])
def test_frequencies_belong_to_their_base(dtype, width, base):
    """As Adept computes them: a power in float32, then the model's dtype."""
    frequencies = (1.0 / base ** (torch.arange(0, width, 2).float() / width)).to(dtype)
    assert belong_to(frequencies, base)
    if width > 2:  # one pair turns by 1 whatever the base
        for factor in (0.9, 1.1):
            assert not belong_to(frequencies, base * factor)
        assert base_of(frequencies) == pytest.approx(base, rel=0.02)
        assert base_of(frequencies) == base or base not in (10000, 25000)


def test_a_power_that_is_a_few_steps_off():
    """As one that a GPU took may be."""
    frequencies = inverse_frequencies(32, 25000.0)
    assert belong_to(frequencies * (1 + 1e-6), 25000)
    assert not belong_to(frequencies * (1 + 1e-4), 25000)


def test_float32_tells_bases_apart_that_bfloat16_cannot():
    for dtype, tells in ((torch.float32, True), (torch.bfloat16, False)):
        assert belong_to(inverse_frequencies(32, 25000.0).to(dtype), 25050) != tells
