"""Checkpoints rounded as they are read, saved rounded, and what refuses such a model by name."""

import copy
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, PersimmonForSequenceClassification, PersimmonModel
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.fitting import first_layers
from persimmon_lab.quantisation import FORMATS, rounded_weights
from tests.checkpoints.conftest import build

ROOT = Path(__file__).parents[2]
IDS = torch.tensor([[7, 20, 3, 99, 41]])
HALF = {"dtype": torch.bfloat16}

every_format = pytest.mark.parametrize("name", FORMATS)


def dequantized(model):
    """The same model on plain weights of the same numbers."""
    plain = type(model)(copy.deepcopy(model.config)).to(model.dtype).eval()
    weights = rounded_weights(model)
    state = {n: t for n, t in model.state_dict().items() if not n.endswith((".codes", ".scales"))}
    plain.load_state_dict(state | {n: weight.dequantized() for n, weight in weights.items()})
    return plain


@every_format
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_each_weight_is_that_of_the_file_rounded(saved, name, tied):
    folder = saved(**HALF, tie_word_embeddings=tied, vocab_size=100)  # no whole number of blocks
    plain = PersimmonForCausalLM.from_pretrained(folder, dtype="auto")
    model = PersimmonForCausalLM.from_pretrained(folder, quantize=name)
    weights = rounded_weights(model)
    matrices = [n for n, weight in plain.named_parameters(remove_duplicate=False) if weight.ndim == 2]
    assert sorted(weights) == sorted(matrices)
    for n, weight in weights.items():
        right = FORMATS[name].round(plain.get_parameter(n).detach(), torch.bfloat16)
        assert torch.equal(weight.file_rows(0, weight.outputs), right), n
    for n, parameter in model.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(n))
        assert not parameter.requires_grad
    assert model.dtype == torch.bfloat16
    assert not model.training
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    assert model.config.get("quantization_config")["format"] == name
    assert "quantization_config" not in plain.config
    assert model.num_parameters() == plain.num_parameters()
    assert model.num_parameters(exclude_embeddings=True) == plain.num_parameters(exclude_embeddings=True)
    assert model.get_memory_footprint() < plain.get_memory_footprint()


@every_format
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_computes_what_its_numbers_compute(saved, name, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PersimmonForCausalLM.from_pretrained(saved(), quantize=name, dtype=dtype)
    right = dequantized(model)(IDS).logits.detach()
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 0.06}[dtype] * right.abs().max()
    assert (model(IDS).logits - right).abs().max() <= tolerance
    torch.testing.assert_close(model(IDS[:, :1]).logits, right[:, :1], rtol=0, atol=float(tolerance))


@every_format
@pytest.mark.parametrize("architecture", [PersimmonForCausalLM, PersimmonModel, PersimmonForSequenceClassification])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_saved_and_loaded_to_the_bit(tmp_path, name, architecture, tied):
    build(architecture, torch.bfloat16, tie_word_embeddings=tied).save_pretrained(tmp_path / "plain")
    model = architecture.from_pretrained(tmp_path / "plain", quantize=name)
    model.save_pretrained(tmp_path / "rounded", max_shard_size="20KB")
    again = architecture.from_pretrained(tmp_path / "rounded")
    state = again.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[n], tensor) for n, tensor in model.state_dict().items())
    assert again.dtype == torch.bfloat16
    again.save_pretrained(tmp_path / "twice", max_shard_size="20KB")
    for file in (tmp_path / "rounded").iterdir():
        assert (tmp_path / "twice" / file.name).read_bytes() == file.read_bytes()
    about = json.loads((tmp_path / "rounded" / "config.json").read_text())["quantization_config"]
    assert about == {"quant_method": "persimmon_lab", "format": name, "scale_dtype": "bfloat16"}


@every_format
def test_a_body_into_a_head_and_back(saved, tmp_path, name):
    model = PersimmonForCausalLM.from_pretrained(saved(**HALF), quantize=name)
    model.save_pretrained(tmp_path / "rounded")
    body = PersimmonModel.from_pretrained(tmp_path / "rounded")
    assert torch.equal(body(IDS).last_hidden_state, model.model(IDS).last_hidden_state)
    body.save_pretrained(tmp_path / "body")
    with pytest.warns(UserWarning, match="no lm_head"):
        new = PersimmonForCausalLM.from_pretrained(tmp_path / "body")
    assert torch.equal(new.model(IDS).last_hidden_state, body(IDS).last_hidden_state)
    assert "lm_head.weight" in rounded_weights(new)
    new.save_pretrained(tmp_path / "again")
    assert torch.equal(PersimmonForCausalLM.from_pretrained(tmp_path / "again")(IDS).logits, new(IDS).logits)
    with pytest.warns(UserWarning, match="no score"):
        classifier = PersimmonForSequenceClassification.from_pretrained(tmp_path / "rounded")
    assert type(classifier.score) is nn.Linear
    assert classifier(IDS).logits.shape == (1, 3)


@every_format
def test_another_dtype_casts_the_scales(saved, tmp_path, name):
    PersimmonForCausalLM.from_pretrained(saved(**HALF), quantize=name).save_pretrained(tmp_path / "rounded")
    model = PersimmonForCausalLM.from_pretrained(tmp_path / "rounded")
    with pytest.warns(UserWarning, match=rf"products of {name} weights in torch.float32 on cpu are emulated"):
        wide = PersimmonForCausalLM.from_pretrained(tmp_path / "rounded", dtype=torch.float32)
    assert wide.dtype == torch.float32
    assert wide.config.get("quantization_config")["scale_dtype"] == "float32"
    for n, weight in rounded_weights(wide).items():
        assert torch.equal(weight.scales, rounded_weights(model)[n].scales.float())
        assert torch.equal(weight.codes, rounded_weights(model)[n].codes)
    wide.save_pretrained(tmp_path / "wide")
    again = PersimmonForCausalLM.from_pretrained(tmp_path / "wide", dtype="auto", verify=False)
    assert again.dtype == torch.float32
    assert torch.equal(again(IDS).logits, wide(IDS).logits)
    assert model.half().dtype == torch.float16
    assert model(IDS).logits.dtype == torch.float16


@every_format
def test_the_checksum_of_rounded_bytes(saved, tmp_path, name):
    PersimmonForCausalLM.from_pretrained(saved(**HALF), quantize=name).save_pretrained(tmp_path / "rounded")
    file = tmp_path / "rounded" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="the bytes of .*weight are not the ones that were saved"):
        PersimmonForCausalLM.from_pretrained(tmp_path / "rounded")
    PersimmonForCausalLM.from_pretrained(tmp_path / "rounded", verify=False)


def test_what_is_refused(saved, tmp_path):
    folder = saved(**HALF)
    load = PersimmonForCausalLM.from_pretrained
    with pytest.raises(ValueError, match="quantize is 'int3'; choose one of 'int8', 'int4', or None"):
        load(folder, quantize="int3")
    load(folder, quantize="int4").save_pretrained(tmp_path / "int4")
    with pytest.raises(ValueError, match="quantize is 'int8', but the checkpoint is rounded to int4 already"):
        load(tmp_path / "int4", quantize="int8")
    load(tmp_path / "int4", quantize="int4")
    with pytest.raises(CheckpointError, match=r"holds int4 weights, which from_pretrained alone reads"):
        first_layers(tmp_path / "int4", 1, torch.bfloat16)
    plain = PersimmonConfig.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="not floating point"):
        load(tmp_path / "int4", config=plain)
    with pytest.raises(CheckpointError, match=r"of another shape: [\s\S]*not rounded, as config.json says"):
        load(folder, config=PersimmonConfig.from_pretrained(tmp_path / "int4"))


@pytest.mark.parametrize(
    "about",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "another", "format": "int4", "scale_dtype": "bfloat16"},
        {"quant_method": "persimmon_lab", "format": "int3", "scale_dtype": "bfloat16"},
        {"quant_method": "persimmon_lab", "format": "int4", "scale_dtype": "int4"},
        {"bits": 4},
        "gptq",
    ],
    ids=str,
)
def test_the_formats_of_others(saved, about):
    folder = saved(**HALF)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": about}))
    method = about.get("quant_method", "an unnamed method") if isinstance(about, dict) else "an unnamed method"
    with pytest.raises(CheckpointError, match=f"quantised by {method} .*pass quantize, one of 'int8', 'int4'"):
        PersimmonForCausalLM.from_pretrained(folder)


@every_format
def test_weights_that_are_not_finite(saved, name):
    folder = saved(**HALF)
    model = PersimmonForCausalLM.from_pretrained(folder, dtype="auto")
    with torch.no_grad():
        model.model.layers[1].mlp.dense_h_to_4h.weight[200, 7] = torch.nan
    model.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"model.layers.1.mlp.dense_h_to_4h.weight: a weight is NaN or infinite"):
        PersimmonForCausalLM.from_pretrained(folder, quantize=name)


def test_widths_that_groups_do_not_divide(saved):
    folder = saved(**HALF, hidden_size=48, intermediate_size=96, partial_rotary_factor=0.5)
    with pytest.raises(CheckpointError, match=r"embed_tokens.weight: rows of 48 weights .* take int8"):
        PersimmonForCausalLM.from_pretrained(folder, quantize="int4")
    assert PersimmonForCausalLM.from_pretrained(folder, quantize="int8")(IDS).logits.isfinite().all()


@every_format
def test_what_needs_plain_weights_says_so(saved, tmp_path, name):
    model = PersimmonForCausalLM.from_pretrained(saved(**HALF), quantize=name)
    before = {n: tensor.clone() for n, tensor in model.state_dict().items()}
    for act in (lambda: model.resize_token_embeddings(200), model.initialize_weights):
        with pytest.raises(
            ValueError, match=f"needs plain weights, and .* is rounded to {name}: load the model without"
        ):
            act()
    with pytest.raises(RuntimeError, match="does not require grad"):  # all of it is frozen
        model(IDS, labels=IDS).loss.backward()
    with pytest.raises(ValueError, match="state_dict= is for the parts of plain weights"):
        model.save_pretrained(tmp_path / "x", state_dict=model.state_dict())
    model.tie_weights()
    assert all(torch.equal(before[n], tensor) for n, tensor in model.state_dict().items())
    mixed = copy.deepcopy(model)
    mixed.lm_head = nn.Linear(64, 128, bias=False)
    with pytest.raises(ValueError, match=r"1 that could be are not \(lm_head.weight\)"):
        mixed.save_pretrained(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@every_format
def test_copies_states_and_pickles(saved, name):
    model = PersimmonForCausalLM.from_pretrained(saved(**HALF), quantize=name)
    right = model(IDS).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(IDS).logits, right)
    other = copy.deepcopy(model)
    for buffer in other.buffers():
        buffer.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(IDS).logits, right)


def test_a_plain_model_of_a_rounded_configuration(saved, tmp_path):
    """A configuration says how a checkpoint is stored; a model made of it, or of plain weights, is not rounded."""
    config = PersimmonForCausalLM.from_pretrained(saved(**HALF), quantize="int4").config
    model = PersimmonForCausalLM(config)
    model.save_pretrained(tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    again = PersimmonForCausalLM.from_pretrained(tmp_path / "plain", dtype="auto")
    assert torch.equal(again(IDS).logits, model(IDS).logits)


def test_nothing_else_takes_it_for_weights(saved, tmp_path):
    transformers = pytest.importorskip("transformers")
    PersimmonForCausalLM.from_pretrained(saved(**HALF), quantize="int4").save_pretrained(tmp_path / "rounded")
    with pytest.raises(RuntimeError, match="mismatched"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "rounded")
    for n, file in open_weights(tmp_path / "rounded").items():
        assert (file.dtypes[n] == torch.uint8) is (len(file.shapes[n]) == 2)


def test_the_unrounded_model_is_never_in_memory(tmp_path):
    """In a process of its own: at the peak the rounded weights, and a few rows of what they were."""
    build(dtype=torch.bfloat16, hidden_size=512, intermediate_size=2048, num_hidden_layers=4, vocab_size=4096,
          num_attention_heads=8).save_pretrained(tmp_path / "plain")  # fmt: skip
    command = [sys.executable, "-m", "tests.rounded_peaks", str(tmp_path / "plain")]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536",
                                "OMP_NUM_THREADS": "1"}  # fmt: skip
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment).stdout
    for peaks in json.loads(output).values():
        assert peaks["taken"] < peaks["rounded"] + 6e6
        assert peaks["taken"] < 0.9 * peaks["plain"]
