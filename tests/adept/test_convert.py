"""A release becomes a checkpoint with exactly its tensors, which this package and transformers load to equal logits."""

import errno
import json
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
import transformers

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, PersimmonTokenizer
from persimmon_lab.adept.convert import convert
from persimmon_lab.adept.open_release import open_release, rounded
from persimmon_lab.adept.verify import verify
from persimmon_lab.checkpoints.errors import CheckpointError
from tests.adept.conversions import SILENT, TOKENIZER, VARIANTS, WITH_TOKENIZER, release, same_tensors, snapshot, stored
from tests.adept.releases import as_tar

IDS = torch.randint(0, 64, (2, 17), generator=torch.Generator().manual_seed(0))
# Far from every default, so that a field lost on the way shows in the logits; 16 channels a head, so that dividing by
# their root and multiplying with its inverse, as transformers does, are the same number.
FIELDS = {"hidden": 64, "mlp": 96, "rotary_pct": 0.25, "rotary_emb_base": 700, "layernorm_epsilon": 1e-3}


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(IDS).logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_tensors_are_the_ones_of_the_release(tmp_path, variant):
    whole = release(tmp_path / "release", args=SILENT, **VARIANTS[variant])
    converted = convert(tmp_path / "release", tmp_path / "out")
    same_tensors(stored(tmp_path / "out"), whole)
    assert converted.notes == ["there is no adept_vocab.model, so no token is known to begin or end a text"]
    assert converted.nbytes == sum(tensor.nbytes for tensor in whole.values())
    assert converted.parameters == sum(tensor.numel() for tensor in whole.values())
    PersimmonForCausalLM.from_pretrained(tmp_path / "out", device="meta")  # whose configuration fits


@pytest.mark.parametrize("form", ["tar", "iteration", "file"])
def test_every_form_of_a_release(tmp_path, form):
    whole = release(tmp_path / "release")
    source = {
        "tar": as_tar(tmp_path / "release"),
        "iteration": tmp_path / "release" / "iter_0001000",
        "file": tmp_path / "release" / "iter_0001000" / "mp_rank_00" / "model_optim_rng.pt",
    }[form]
    convert(source, tmp_path / "out")
    same_tensors(stored(tmp_path / "out"), whole)


@pytest.mark.parametrize(
    "options",
    [{}, {"tensor_parallel": 2, "pipeline": 3}, {"tied": True}, {"qk_layernorm": "none"}, {"dtype": torch.float16}],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, "auto"])
def test_transformers_computes_the_same_logits(tmp_path, options, dtype):
    """To the bit: both add and multiply the same numbers in the same order, in float32 and in what is stored."""
    release(tmp_path / "release", **FIELDS | options)
    convert(tmp_path / "release", tmp_path / "out", max_shard_size="100KB")
    ours = PersimmonForCausalLM.from_pretrained(tmp_path / "out", torch_dtype=dtype, attn_implementation="eager")
    theirs = transformers.PersimmonForCausalLM.from_pretrained(
        tmp_path / "out", dtype=dtype, attn_implementation="eager"
    )
    assert ours.dtype == theirs.dtype
    assert torch.equal(logits(ours), logits(theirs))
    assert logits(ours).std() > 0.1


def test_all_files_of_a_checkpoint(tmp_path):
    release(tmp_path / "release", **FIELDS | WITH_TOKENIZER, tensor_parallel=2)
    counts = []
    converted = convert(tmp_path / "release", tmp_path / "out", max_shard_size="100KB", progress=counts.append)
    shards = len(list((tmp_path / "out").glob("model-*.safetensors")))
    assert shards > 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json", "generation_config.json", "model.safetensors.index.json",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
        *(f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)),
    }  # fmt: skip
    assert sum(counts) == converted.nbytes
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert list(index["weight_map"]) == list(PersimmonForCausalLM(converted.config).state_dict())
    config = PersimmonConfig.from_pretrained(tmp_path / "out")
    assert config == converted.config == PersimmonConfig(
        vocab_size=704, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=48, partial_rotary_factor=0.25, rope_theta=700.0, layer_norm_eps=1e-3,
        bos_token_id=3, eos_token_id=3, torch_dtype="bfloat16", architectures=["PersimmonForCausalLM"],
    )  # fmt: skip
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (theirs.rope_parameters["rope_theta"], theirs.eos_token_id, theirs.dtype) == (700.0, 3, torch.bfloat16)
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (settings["bos_token_id"], settings["eos_token_id"]) == (3, 3)


def test_the_tokenizer_travels(tmp_path):
    release(tmp_path / "release", **WITH_TOKENIZER)
    convert(tmp_path / "release", tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == TOKENIZER
    ours = PersimmonTokenizer.from_pretrained(tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "human: Shall I compare thee?\n\nadept: 柿"
    assert theirs(text).input_ids == ours(text).input_ids
    assert ours.eos_token_id == theirs.eos_token_id == 3 == ours.sp_model.piece_to_id("|ENDOFTEXT|")


@pytest.mark.parametrize(("vocab", "token"), [(72000, 71013), (704, None)])
def test_without_a_tokenizer(tmp_path, vocab, token):
    """The id of `|ENDOFTEXT|` in Adept's release, where the vocabulary is large enough for it."""
    release(tmp_path / "release", hidden=8, heads=2, vocab=vocab, args=SILENT)
    converted = convert(tmp_path / "release", tmp_path / "out")
    assert not list((tmp_path / "out").glob("tokenizer*"))
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.bos_token_id, config.eos_token_id) == (token, token)
    assert len(converted.notes) == 1 and "no adept_vocab.model" in converted.notes[0]
    assert ("71013" in converted.notes[0]) == (token is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_another_dtype(tmp_path, dtype):
    whole = release(tmp_path / "release", tensor_parallel=2)
    converted = convert(tmp_path / "release", tmp_path / "out", dtype=dtype)
    same_tensors(stored(tmp_path / "out"), {name: tensor.to(dtype) for name, tensor in whole.items()})
    assert PersimmonForCausalLM.from_pretrained(tmp_path / "out", torch_dtype="auto").dtype == dtype
    assert converted.nbytes == sum(tensor.numel() * dtype.itemsize for tensor in whole.values())


def test_a_few_tensors_in_another_dtype_are_kept_and_told(tmp_path):
    def widen(checkpoint, stage, rank):
        encoder = checkpoint["model"]["language_model"]["encoder"]
        encoder["final_layernorm.bias"] = encoder["final_layernorm.bias"].float()

    whole = release(tmp_path / "release", edit=widen, args=SILENT, **WITH_TOKENIZER)
    converted = convert(tmp_path / "release", tmp_path / "out")
    whole["model.final_layernorm.bias"] = whole["model.final_layernorm.bias"].float()
    same_tensors(stored(tmp_path / "out"), whole)
    assert converted.notes == ["model.final_layernorm.bias is stored in torch.float32, the embedding in torch.bfloat16"]


@pytest.mark.parametrize(("dtype", "told"), [(torch.float16, 1), (torch.bfloat16, 0)])
def test_args_that_name_another_dtype_than_the_tensors_have(tmp_path, dtype, told):
    def say(checkpoint, stage, rank):
        checkpoint["args"].bf16, checkpoint["args"].fp16 = True, False

    whole = release(tmp_path / "release", dtype=dtype, edit=say, args=SILENT, **WITH_TOKENIZER)
    converted = convert(tmp_path / "release", tmp_path / "out", dtype=torch.float32)
    same_tensors(stored(tmp_path / "out"), {name: tensor.float() for name, tensor in whole.items()})
    note = "args say bf16, but the embedding is stored in torch.float16: tensors are converted as they are stored"
    assert converted.notes == [note] * told


# Where it may be written


def test_an_older_checkpoint_is_replaced(tmp_path):
    release(tmp_path / "release", **WITH_TOKENIZER)
    convert(tmp_path / "release", tmp_path / "fresh")
    PersimmonForCausalLM(PersimmonConfig.tiny()).save_pretrained(tmp_path / "out", max_shard_size="60KB")
    convert(tmp_path / "release", tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


@pytest.mark.parametrize("held", ["notes.txt", "config.json", "deeper/notes.txt"])
def test_other_things_are_left_alone(tmp_path, held):
    release(tmp_path / "release", **WITH_TOKENIZER)
    (tmp_path / "out" / held).parent.mkdir(parents=True)
    (tmp_path / "out" / held).write_text('{"model_type": "llama"}')
    before = snapshot(tmp_path)
    with pytest.raises(CheckpointError, match=f"out holds {held.split('/')[0]}, which is no Persimmon checkpoint"):
        convert(tmp_path / "release", tmp_path / "out")
    with pytest.raises(CheckpointError, match="release holds adept_vocab.model, .*, which is no Persimmon checkpoint"):
        convert(tmp_path / "release", tmp_path / "release")
    with pytest.raises(CheckpointError, match="adept_vocab.model is a file; give the name of a folder"):
        convert(tmp_path / "release", tmp_path / "release" / "adept_vocab.model")
    assert snapshot(tmp_path) == before


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    release(tmp_path / "release", **WITH_TOKENIZER)
    before, needed = snapshot(tmp_path), open_release(tmp_path / "release").nbytes + 2**24
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1000))
    with pytest.raises(
        OSError, match=f"out would take {needed:,} bytes, but .* {needed - 1000:,} free, 1,000 too"
    ) as e:
        convert(tmp_path / "release", tmp_path / "out")
    assert e.value.errno == errno.ENOSPC
    assert snapshot(tmp_path) == before
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed))
    convert(tmp_path / "release", tmp_path / "out")


@pytest.mark.parametrize("existing", [True, False])
def test_interrupted_and_run_again(tmp_path, existing):
    """Ctrl-C between two pieces leaves what was there; the second run gives what one run would have given."""
    release(tmp_path / "release")
    convert(tmp_path / "release", tmp_path / "fresh")
    if existing:
        PersimmonForCausalLM(PersimmonConfig.tiny()).save_pretrained(tmp_path / "out")
    before, pieces = snapshot(tmp_path), []

    def interrupt(count):
        pieces.append(count)
        if len(pieces) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path / "release", tmp_path / "out", progress=interrupt)
    assert snapshot(tmp_path) == before
    convert(tmp_path / "release", tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_killed_and_run_again(tmp_path):
    """A staging folder that nobody could clean up is no obstacle, and is gone afterwards."""
    release(tmp_path / "release")
    convert(tmp_path / "release", tmp_path / "fresh")
    (tmp_path / "out" / ".unfinished-save").mkdir(parents=True)
    (tmp_path / "out" / ".unfinished-save" / "model.safetensors").write_bytes(b"as far as it went")
    convert(tmp_path / "release", tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


def test_killed_while_the_files_moved_to_their_places(tmp_path):
    """The first conversion was complete, so it is finished first, and `out` is known for a checkpoint."""
    release(tmp_path / "release")
    convert(tmp_path / "release", tmp_path / "fresh")
    shutil.copytree(tmp_path / "fresh", tmp_path / "out" / ".finished-save")
    (tmp_path / "out" / ".finished-save" / "generation_config.json").rename(tmp_path / "out" / "generation_config.json")
    convert(tmp_path / "release", tmp_path / "out")
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "fresh")


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of resident memory")
def test_memory_does_not_grow_with_the_release(tmp_path):
    """300 MB, with tensors put together from two ranks, convert in less than 40 MB (benchmarks/convert.py: GBs)."""
    release(tmp_path / "release", hidden=1024, mlp=4096, heads=16, layers=6, vocab=36864, tensor_parallel=2,
            scratch=tmp_path / "scratch")  # fmt: skip
    shutil.rmtree(tmp_path / "scratch")
    program = f"""
import torch
from pathlib import Path
from persimmon_lab.adept.convert import convert

def resident(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # starts the high-water mark afresh
converted = convert({str(tmp_path / "release")!r}, {str(tmp_path / "out")!r})
print(converted.nbytes, resident("VmHWM") - before)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    nbytes, grown = map(int, result.stdout.split())
    assert nbytes > 300e6
    assert grown < 40e6


@pytest.mark.parametrize(
    ("variant", "quantize"), [("plain", "int8"), ("two tensor ranks", "int4"), ("tied", "int4"), ("float32", "int8")]
)
def test_a_rounded_checkpoint_is_what_loading_rounds(tmp_path, variant, quantize):
    release(tmp_path / "release", args=SILENT, **VARIANTS[variant])
    convert(tmp_path / "release", tmp_path / "plain")
    converted = convert(tmp_path / "release", tmp_path / "rounded", quantize=quantize)
    dtype = torch.float32 if variant == "float32" else torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of emulation in float32
        PersimmonForCausalLM.from_pretrained(tmp_path / "plain", quantize=quantize, dtype=dtype).save_pretrained(
            tmp_path / "saved"
        )
        verify(converted, tmp_path / "rounded")
    same_tensors(stored(tmp_path / "rounded"), stored(tmp_path / "saved"))
    assert converted.nbytes == sum(tensor.nbytes for tensor in stored(tmp_path / "rounded").values())
    config, other = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("rounded", "saved"))
    assert config["quantization_config"] == other["quantization_config"]
    assert converted.parameters == sum(tensor.numel() for tensor in stored(tmp_path / "plain").values())


def test_a_rounded_checkpoint_is_verified_and_replaced(tmp_path):
    release(tmp_path / "release", args=SILENT)
    converted = convert(tmp_path / "release", tmp_path / "out", quantize="int4")
    file = tmp_path / "out" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"is not what .* holds|not the ones that were saved"):
        verify(converted, tmp_path / "out")
    convert(tmp_path / "release", tmp_path / "out", quantize="int4")
    verify(converted, tmp_path / "out")


def test_widths_that_four_bits_do_not_take(tmp_path):
    release(tmp_path / "release", hidden=48, mlp=96, heads=4, args=SILENT)
    with pytest.raises(
        CheckpointError, match=r"weight: rows of 48 weights are no whole number of groups of 32: take int8"
    ):
        convert(tmp_path / "release", tmp_path / "out", quantize="int4")
    with pytest.raises(CheckpointError, match="take int8"):  # before anything is read
        rounded(open_release(tmp_path / "release"), "int4")
    assert not (tmp_path / "out").exists()
    convert(tmp_path / "release", tmp_path / "out", quantize="int8")
