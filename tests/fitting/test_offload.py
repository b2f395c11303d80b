"""A model laid out over devices, CPU memory and disk is the model that was plainly loaded, and takes less memory.

Without a GPU the CPU computes and the disk keeps; what a GPU adds is at the end.
"""

import json
import subprocess
import sys

import pytest
import torch

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, PersimmonForSequenceClassification, PersimmonModel
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.fitting import offload
from persimmon_lab.fitting.offload import by_block, load_over_devices
from tests.checkpoints.conftest import build
from tests.loading_peaks import ENVIRONMENT

IDS = torch.randint(1, 128, (2, 12), generator=torch.Generator().manual_seed(1))
EMBED, LAYERS, FIRST, SECOND, NORM, HEAD = (
    "model.embed_tokens", "model.layers", "model.layers.0", "model.layers.1", "model.final_layernorm", "lm_head",
)  # fmt: skip
MAPS = {
    "all in memory": {"": "cpu"},
    "layers on disk": {EMBED: "cpu", LAYERS: "disk", NORM: "cpu", HEAD: "cpu"},
    "embedding on disk": {EMBED: "disk", LAYERS: "cpu", NORM: "disk", HEAD: "disk"},
    "one layer in memory": {"": "disk", FIRST: "disk", SECOND: torch.device("cpu")},
}


@torch.no_grad()
def outputs(model) -> torch.Tensor:
    return model(IDS)[0]


@pytest.mark.parametrize("device_map", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard", ["5GB", 60_000])
def test_a_map_changes_nothing(tmp_path, device_map, stored, shard):
    """Logits and what is generated, converted on the way or not, from one file or many."""
    build(dtype=stored).save_pretrained(tmp_path, max_shard_size=shard)
    for dtype in (None, "auto"):
        plain = PersimmonForCausalLM.from_pretrained(tmp_path, torch_dtype=dtype)
        model = load_over_devices(PersimmonForCausalLM, tmp_path, torch_dtype=dtype, device_map=device_map)
        assert torch.equal(outputs(model), outputs(plain))
        assert (model.device, model.dtype) == (torch.device("cpu"), plain.dtype)
        assert torch.equal(model.generate(IDS, max_new_tokens=4), plain.generate(IDS, max_new_tokens=4))
        on_disk = {name for name, place in model.hf_device_map.items() if place == "disk"}
        kept = {name.rsplit(".", 1)[0] for name, tensor in model.state_dict().items() if tensor.is_meta}
        assert {block for block in model.hf_device_map if any(name.startswith(block) for name in kept)} == on_disk


@pytest.mark.parametrize("architecture", [PersimmonModel, PersimmonForCausalLM, PersimmonForSequenceClassification])
@pytest.mark.parametrize("tied", [False, True])
def test_every_class_and_tied_tables(tmp_path, architecture, tied):
    """Also as another class's checkpoint: a body read out of a causal-LM model, by the plan and by hand."""
    build(PersimmonForCausalLM if architecture is PersimmonModel else architecture, pad_token_id=0,
          num_hidden_layers=3, tie_word_embeddings=tied).save_pretrained(tmp_path)  # fmt: skip
    plain = architecture.from_pretrained(tmp_path)
    # 32,768 bytes a table, 200,192 a layer: room for the first of them, and for another one that visits
    planned = load_over_devices(architecture, tmp_path, max_memory={"cpu": 600_000, "disk": 1e9}, context=12)
    assert list(planned.hf_device_map.values())[:4] == ["cpu", "cpu", "disk", "disk"]
    body = "" if architecture is PersimmonModel else "model."
    by_hand = load_over_devices(architecture, tmp_path, device_map={"": "disk", f"{body}layers.0": "cpu"})
    for model in (planned, by_hand):
        assert torch.equal(outputs(model), outputs(plain))


def test_layer_10_is_not_in_layer_1():
    with torch.device("meta"):
        model = PersimmonForCausalLM(PersimmonConfig.tiny(num_hidden_layers=12))
    spread = by_block({"": "cpu", "model.layers.1": "disk"}, model)
    assert [block for block, device in spread.items() if device == "disk"] == ["model.layers.1"]
    assert len(spread) == 12 + 3


def test_a_cache_goes_in_and_out(tmp_path):
    build().save_pretrained(tmp_path)
    plain = PersimmonForCausalLM.from_pretrained(tmp_path)
    model = load_over_devices(PersimmonForCausalLM, tmp_path, device_map=MAPS["layers on disk"])
    with torch.no_grad():
        past = model(IDS[:, :7]).past_key_values
        assert isinstance(past, tuple)
        late = model(IDS[:, 7:], past_key_values=past, labels=IDS[:, 7:])
        expected = plain(IDS[:, 7:], past_key_values=plain(IDS[:, :7]).past_key_values, labels=IDS[:, 7:])
    assert torch.equal(late.logits, expected.logits)
    assert late.loss == expected.loss


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of resident memory")
@pytest.mark.parametrize("device", ["cpu", "meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_memory_that_loading_takes(tmp_path, report_table, device):
    """To the CPU the weights and a few bites of a tensor, whatever is converted; elsewhere two bites; from disk two
    bites, and when it runs the largest weight. meta stands for any other device: it is read, checked and copied to."""
    build(hidden_size=512, intermediate_size=2048, num_hidden_layers=7).save_pretrained(tmp_path, "20MB")
    command = [sys.executable, "-m", "tests.loading_peaks", str(tmp_path), device]
    output = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout
    found = json.loads(output.splitlines()[-1])
    report_table("Loading 88.8 MB of float32: host memory", [{"to": k, "MB": v / 1e6} for k, v in found.items()])
    weights, bites = 88.8e6, 5e6
    most = {
        f"{device} torch.float32": bites,
        f"{device} torch.bfloat16": bites,
        "disk": bites,
        "disk, and run": 2 * bites,
    }
    if device == "cuda":  # whose driver has buffers of its own: two shards
        most |= {what: 40e6 for what in found if "cuda" in what}
    if device == "cpu":
        most |= {"cpu torch.float32": weights + 2 * bites, "cpu torch.bfloat16": weights / 2 + 2 * bites}
    assert all(found[what] < limit for what, limit in most.items()), found
    assert found.keys() == most.keys()


def test_what_stays_on_disk_is_verified_too(tmp_path):
    build().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    for device_map in ({"": "cpu"}, {"": "disk", EMBED: "cpu"}):
        with pytest.raises(CheckpointError, match="CRC-32 differs"):
            load_over_devices(PersimmonForCausalLM, tmp_path, device_map=device_map)
        load_over_devices(PersimmonForCausalLM, tmp_path, device_map=device_map, verify=False)


def test_the_folder_may_be_named_from_anywhere(tmp_path, monkeypatch):
    build().save_pretrained(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    model = load_over_devices(PersimmonForCausalLM, "here", device_map={"": "disk", EMBED: "cpu"})
    monkeypatch.chdir("/")
    assert torch.equal(outputs(model), outputs(PersimmonForCausalLM.from_pretrained(tmp_path / "here")))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device_map": "balanced"}, 'device_map is .balanced.; give "auto", or a mapping'),
        ({"device_map": {"": "disk"}}, "keeps everything on disk"),
        ({"device_map": {LAYERS: "cpu"}}, "no device is given for model.embed_tokens.weight"),
        (
            {"device_map": {"": "cpu", "model.layers.2": "disk"}},
            "names model.layers.2; it may name model.embed_tokens,",
        ),
        ({"device_map": {"": "cpu", "model.layers.0.mlp": "disk"}}, "names model.layers.0.mlp; it may name"),
        ({"device_map": {"": "gpu"}}, "device 'gpu' is no \"disk\", and none that torch knows"),
        ({"device_map": {"": 97}}, "device 'cuda:97' is not there: torch sees"),
        ({"max_memory": {"cpu": 100_000}}, "find no place on cpu 100 kB;"),
        ({"torch_dtype": "int8"}, "dtype is 'int8'"),
    ],
)
def test_what_cannot_be_laid_out_is_said(tmp_path, options, says):
    build().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=says.replace("(", r"\(").replace(")", r"\)")):
        load_over_devices(PersimmonForCausalLM, tmp_path, **options)


def test_what_cannot_stay_on_disk(tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    device_map = {"model": "cpu", "score": "disk"}
    with pytest.warns(UserWarning, match="newly initialised"), pytest.raises(ValueError, match=r"score\.weight is new"):
        load_over_devices(PersimmonForSequenceClassification, tmp_path, device_map=device_map)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        load_over_devices(PersimmonForCausalLM, tmp_path, device_map=MAPS["layers on disk"])
    loaded = load_over_devices(PersimmonForCausalLM, tmp_path, device_map={"": "cpu"})
    assert torch.equal(outputs(loaded), outputs(model))


def test_without_accelerate_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(offload, "accelerate", None)
    with pytest.raises(ImportError, match=r"pip install 'persimmon-lab\[offload\]'"):
        load_over_devices(PersimmonForCausalLM, tmp_path)


def test_from_pretrained_says_where_to_go(tmp_path):
    build().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=r"device_map.*persimmon_lab\.fitting\.offload\.load_over_devices"):
        PersimmonForCausalLM.from_pretrained(tmp_path, device_map="auto")
    with pytest.raises(TypeError) as error:
        PersimmonForCausalLM.from_pretrained(tmp_path, num_lables=3)
    assert "offload" not in str(error.value)


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize(
    "device_map",
    [
        {"": 0},
        {"": 0, LAYERS: "cpu"},
        {"": 0, FIRST: "cpu", HEAD: "disk"},
        {"": "disk", FIRST: "cuda"},
        {"": torch.cuda.device_count() - 1, EMBED: 0, FIRST: 0},  # over two, where there are two
    ],
)
def test_a_map_changes_nothing_on_a_gpu(tmp_path, device_map):
    build(dtype=torch.bfloat16).save_pretrained(tmp_path)
    plain = PersimmonForCausalLM.from_pretrained(tmp_path, torch_dtype="auto", device="cuda")
    model = load_over_devices(PersimmonForCausalLM, tmp_path, torch_dtype="auto", device_map=device_map)
    with torch.no_grad():
        logits = model(IDS.cuda()).logits
        assert logits.device == torch.device("cuda:0")
        assert torch.equal(logits, plain(IDS.cuda()).logits)
    assert torch.equal(model.generate(IDS, max_new_tokens=4), plain.generate(IDS, max_new_tokens=4))


@pytest.mark.gpu
def test_the_plan_fills_a_gpu(tmp_path):
    """A limit that leaves half of it on the CPU: no more is taken than was allowed."""
    build(hidden_size=512, intermediate_size=2048, num_hidden_layers=12).save_pretrained(tmp_path)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    limit = 90e6
    model = load_over_devices(PersimmonForCausalLM, tmp_path, max_memory={0: limit, "cpu": 1e9}, batch=2, context=12)
    assert {"cuda:0", "cpu"} == set(model.hf_device_map.values())
    with torch.no_grad():
        model(IDS.cuda(), logits_to_keep=1)
    assert 0.5 * limit < torch.cuda.max_memory_allocated() - before < limit
