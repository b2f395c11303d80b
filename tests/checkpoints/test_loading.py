"""What is saved is what is loaded: by us, by transformers, from one into the other."""

import copy
import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from persimmon_lab import PersimmonConfig, PersimmonForCausalLM, PersimmonForSequenceClassification, PersimmonModel
from persimmon_lab.checkpoints.safetensors_writer import write_safetensors
from persimmon_lab.checkpoints.tensor_streams import BITE
from persimmon_lab.checkpoints.weight_files import SafetensorsFile
from tests.checkpoints.conftest import FIELDS, build
from tests.tolerances import TOLERANCE

IDS = torch.randint(1, 128, (2, 12), generator=torch.Generator().manual_seed(1))
ARCHITECTURES = [PersimmonModel, PersimmonForCausalLM, PersimmonForSequenceClassification]
CASES = {
    "plain": {},
    "sharded": {"shard": 60_000},
    "tied": {"tie_word_embeddings": True},
    "tied and sharded": {"tie_word_embeddings": True, "shard": 60_000},
    "bfloat16": {"dtype": torch.bfloat16},
    "scaled": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "no qk-layernorm": {"qk_layernorm": False},
}


@torch.no_grad()
def output(model) -> torch.Tensor:
    return model(IDS)[0].float()


def same_tensors(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_readers_of_two_writers_agree(tmp_path, architecture, case):
    """Ours is read by both, and so is what transformers makes of it."""
    options = dict(CASES[case])
    shard = options.pop("shard", "5GB")
    model = build(architecture, **options)
    their_class = getattr(transformers, architecture.__name__)
    model.save_pretrained(tmp_path / "ours", max_shard_size=shard)
    theirs = their_class.from_pretrained(tmp_path / "ours", dtype="auto").eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shard)
    for folder in ("ours", "theirs"):
        assert (tmp_path / folder / "model.safetensors.index.json").exists() == (shard != "5GB")
        loaded = architecture.from_pretrained(tmp_path / folder, torch_dtype="auto")
        same_tensors(loaded, model)
        same_tensors(loaded, theirs)
        assert torch.equal(output(loaded), output(model))
        torch.testing.assert_close(output(loaded), output(theirs), rtol=0, atol=TOLERANCE[model.dtype])


@pytest.mark.parametrize("source", ARCHITECTURES)
@pytest.mark.parametrize("target", ARCHITECTURES)
def test_bodies_and_heads_are_exchanged(tmp_path, source, target):
    """Every class reads every other's checkpoint; the head that is not there is new, and announced by name."""
    model = build(source)
    model.save_pretrained(tmp_path)
    new = {PersimmonForCausalLM: ["lm_head.weight"], PersimmonForSequenceClassification: ["score.weight"]}
    expected = [] if source is target else new.get(target, [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded, again = (target.from_pretrained(tmp_path, generator=torch.Generator().manual_seed(3)) for _ in "12")
    assert [
        name for name in ("lm_head.weight", "score.weight") if any(name in str(w.message) for w in caught)
    ] == expected
    same_tensors(loaded.body, model.body)
    for name in expected:
        weight = loaded.state_dict()[name]
        assert torch.equal(weight, again.state_dict()[name])
        assert weight.std().item() == pytest.approx(loaded.config.initializer_range, rel=0.2)


def test_the_tied_tensor_is_stored_once_and_shared_again(saved):
    folder = saved(tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = PersimmonForCausalLM.from_pretrained(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    # A file may hold it twice, as transformers' .bin files do, if both copies are equal.
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    same_tensors(PersimmonForCausalLM.from_pretrained(folder), model)


@pytest.mark.parametrize("form", ["whole", "sharded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bin_files_are_read(tmp_path, form, dtype):
    model = build(dtype=dtype)
    model.config.save_pretrained(tmp_path)
    tensors = model.state_dict()
    if form == "whole":
        torch.save(tensors, tmp_path / "pytorch_model.bin")
    else:
        names = list(tensors)
        weight_map = {name: f"pytorch_model-{1 + index % 2:05}-of-00002.bin" for index, name in enumerate(names)}
        for shard in set(weight_map.values()):
            torch.save({name: tensors[name] for name in names if weight_map[name] == shard}, tmp_path / shard)
        index = {"metadata": {}, "weight_map": weight_map}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    same_tensors(PersimmonForCausalLM.from_pretrained(tmp_path, dtype="auto"), model)
    same_tensors(PersimmonForCausalLM.from_pretrained(tmp_path), model.float())


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_reading_bite_by_bite_reads_all(tmp_path, monkeypatch, form):
    """Bites that do not divide the rows, maps that are made again, and conversion in between."""
    monkeypatch.setattr("persimmon_lab.checkpoints.weight_files.BITE", 1000)
    monkeypatch.setattr("persimmon_lab.checkpoints.weight_files.MAPPED_BYTES", 5000)
    model = build(intermediate_size=77)
    model.save_pretrained(tmp_path)
    if form == "bin":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    same_tensors(PersimmonForCausalLM.from_pretrained(tmp_path), model)
    same_tensors(PersimmonForCausalLM.from_pretrained(tmp_path, dtype="float64"), model.double())


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, torch.float32),
        ({"torch_dtype": "auto"}, torch.bfloat16),
        ({"dtype": "auto"}, torch.bfloat16),
        ({"torch_dtype": torch.float16}, torch.float16),
        ({"dtype": "float64"}, torch.float64),
        ({"dtype": "torch.bfloat16", "torch_dtype": torch.bfloat16}, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("config_says", [True, False])
def test_dtype(saved, asked, expected, config_says):
    """None is float32 and "auto" what is stored, whether config.json says so or only the tensors do."""
    folder = saved(dtype=torch.bfloat16)
    values = json.loads((folder / "config.json").read_text())
    assert values["torch_dtype"] == "bfloat16"
    if not config_says:
        (folder / "config.json").write_text(json.dumps(values | {"torch_dtype": None}))
    model = PersimmonForCausalLM.from_pretrained(folder, **asked)
    assert {parameter.dtype for parameter in model.parameters()} == {expected}
    assert model.config.torch_dtype == str(expected).removeprefix("torch.")
    same_tensors(model, build(dtype=torch.bfloat16).to(expected))


def test_dtype_refused(saved):
    folder = saved()
    with pytest.raises(ValueError, match="two names of one argument"):
        PersimmonForCausalLM.from_pretrained(folder, dtype="float16", torch_dtype="bfloat16")
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        PersimmonForCausalLM.from_pretrained(folder, dtype="int8")


def test_configuration_is_overridden(saved):
    folder = saved()
    model = PersimmonForCausalLM.from_pretrained(folder, attn_implementation="eager", use_cache=False)
    assert (model.config.attn_implementation, model.config.use_cache) == ("eager", False)
    assert model.config.rope_theta == FIELDS["rope_theta"]
    with pytest.warns(UserWarning, match="score.weight"):
        classifier = PersimmonForSequenceClassification.from_pretrained(folder, num_labels=5)
    assert classifier.score.weight.shape == (5, 64)
    assert len(classifier.config.to_dict()["id2label"]) == 5
    with pytest.raises(TypeError, match="num_lables"):
        PersimmonForCausalLM.from_pretrained(folder, num_lables=5)


def test_a_given_configuration_is_copied(saved):
    config = PersimmonConfig.tiny(**FIELDS | {"rope_theta": 900.0})
    model = PersimmonForCausalLM.from_pretrained(saved(), config=config, use_cache=False, dtype="bfloat16")
    assert (model.config.rope_theta, model.config.use_cache) == (900.0, False)
    assert config.use_cache
    assert config.torch_dtype is None


def test_loading_is_for_inference_on_the_device_asked_for(saved):
    folder = saved()
    state = torch.get_rng_state()
    model = PersimmonForCausalLM.from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    meta = PersimmonForCausalLM.from_pretrained(folder, device="meta")
    assert all(tensor.is_meta for tensor in meta.state_dict().values())
    with torch.device("meta"):  # the caller's default is not what was asked for
        model = PersimmonForCausalLM.from_pretrained(folder, dtype="float64")
    same_tensors(model, build(dtype=torch.float64))


def test_nothing_is_drawn_to_be_thrown_away(saved):
    """Weights that the file replaces are never initialised: torch would load its compiler to do so on meta."""

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            assert function not in (torch.Tensor.normal_, torch.nn.init.normal_, torch.nn.init.kaiming_uniform_)
            return function(*args, **(kwargs or {}))

    folder = saved()
    with Watch():
        PersimmonForCausalLM.from_pretrained(folder)


def test_a_loaded_model_does_not_depend_on_its_file(saved):
    """Neither overwriting nor cutting the file under it changes a model or crashes it."""
    folder = saved()
    model = PersimmonForCausalLM.from_pretrained(folder, dtype="auto")
    before = output(model)
    with open(folder / "model.safetensors", "r+b") as file:
        file.seek(10_000)
        file.write(bytes(50_000))
        file.truncate(70_000)
    assert torch.equal(output(model), before)


@pytest.mark.skipif(sys.platform != "linux", reason="what a private map shows of a file that changes is the system's")
def test_a_mapped_model_depends_on_its_file(saved):
    """What is mapped is the file itself, as the docstring says; another file in its place changes nothing."""
    folder = saved(max_shard_size=60_000)
    copied = PersimmonForCausalLM.from_pretrained(folder, dtype="auto")
    mapped = PersimmonForCausalLM.from_pretrained(folder, dtype="auto", mmap=True)
    before = output(copied)
    same_tensors(mapped, copied)
    assert torch.equal(output(mapped), before)
    assert mapped.generate(IDS[:1], max_new_tokens=5).equal(copied.generate(IDS[:1], max_new_tokens=5))
    build(seed=1).save_pretrained(folder, max_shard_size=60_000)
    assert torch.equal(output(mapped), before), "saved over"
    again = PersimmonForCausalLM.from_pretrained(folder, dtype="auto", mmap=True)
    shard = max(folder.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    with shard.open("r+b") as file:
        file.seek(shard.stat().st_size - 1000)
        file.write(bytes(1000))
    whole = PersimmonForCausalLM.from_pretrained(folder, dtype="auto", verify=False)
    same_tensors(again, whole)
    assert not all(torch.equal(one, other) for one, other in zip(again.parameters(), build(seed=1).parameters()))


def test_writing_into_a_mapped_model_does_not_reach_the_file(saved):
    folder = saved()
    mapped = PersimmonForCausalLM.from_pretrained(folder, dtype="auto", mmap=True)
    with torch.no_grad():
        for weight in mapped.parameters():
            weight.zero_()
    same_tensors(PersimmonForCausalLM.from_pretrained(folder, dtype="auto", mmap=True, verify=True), build())


def test_pickles_are_mapped_too(saved):
    folder = saved()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    mapped = PersimmonForCausalLM.from_pretrained(folder, mmap=True)
    same_tensors(mapped, build())
    with torch.no_grad():
        for weight in mapped.parameters():
            weight.zero_()
    same_tensors(PersimmonForCausalLM.from_pretrained(folder), build())


def test_what_cannot_be_mapped_is_said(saved):
    folder = saved()
    tensors = load_file(folder / "model.safetensors")
    tensors |= {name: tensors[name].bfloat16() for name in [*tensors][::2]}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    right = PersimmonForCausalLM.from_pretrained(folder)
    with pytest.warns(UserWarning, match="18 of 36 weights are copied: they are stored as bfloat16 .* as float32"):
        same_tensors(PersimmonForCausalLM.from_pretrained(folder, mmap=True), right)
    with pytest.warns(UserWarning, match="36 of 36 weights are copied: what is for another device than the CPU"):
        PersimmonForCausalLM.from_pretrained(saved(), mmap=True, device="meta")


def test_generation_settings_travel(saved, tmp_path):
    folder = saved()
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 6
    assert transformers.GenerationConfig.from_pretrained(folder).eos_token_id == 6
    # It repeats config.json, so a later change of the configuration must not be overruled by it.
    model = PersimmonForCausalLM.from_pretrained(folder)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (6, 0)
    model.config.eos_token_id = 9
    assert model.generation_config.eos_token_id == 9
    settings = {"eos_token_id": [6, 7], "temperature": 0.5, "do_sample": True, "typical_p": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    model = PersimmonForCausalLM.from_pretrained(folder)
    assert (model.generation_config.eos_token_id, model.generation_config.temperature) == ([6, 7], 0.5)
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text()) == settings


def test_generation_settings_that_were_set_stay(tmp_path):
    """Where nothing was read, settings are made from the configuration; what is set in them is kept and saved."""
    model = build()
    model.generation_config.temperature = 0.5
    model.generation_config.pad_token_id = 4
    model.config.pad_token_id = 3
    model.config.eos_token_id = 9
    settings = model.generation_config
    assert (settings.temperature, settings.pad_token_id, settings.eos_token_id) == (0.5, 4, 9)
    again = copy.deepcopy(model)
    again.config.eos_token_id = 8
    assert (again.generation_config.eos_token_id, model.generation_config.eos_token_id) == (8, 9)
    model.save_pretrained(tmp_path)
    loaded = PersimmonForCausalLM.from_pretrained(tmp_path).generation_config
    assert (loaded.temperature, loaded.pad_token_id, loaded.eos_token_id) == (0.5, 4, 9)
    model.generation_config = None
    assert model.generation_config.pad_token_id == 3


def test_name_or_path(saved, tmp_path):
    """On the instance, where peft looks, and in no file."""
    folder = saved()
    model = PersimmonForCausalLM.from_pretrained(folder)
    assert vars(model)["name_or_path"] == str(folder)
    assert build().name_or_path == ""
    model.save_pretrained(tmp_path / "again")
    assert all(str(folder) not in file.read_text() for file in (tmp_path / "again").glob("*.json"))


@pytest.mark.parametrize(
    "keywords",
    [{"low_cpu_mem_usage": True}, {"trust_remote_code": True}, {"resume_download": True, "mirror": "here"}],
    ids=str,
)
def test_arguments_that_change_nothing(saved, keywords):
    """Ignored with a word that names them."""
    with pytest.warns(UserWarning, match=".*".join(keywords)):
        loaded = PersimmonForCausalLM.from_pretrained(saved(), **keywords)
    assert torch.equal(output(loaded), output(build()))


def test_arguments_that_ask_for_nothing_pass_quietly(saved):
    nothing = {"device_map": None, "load_in_8bit": False, "trust_remote_code": False, "subfolder": "", "variant": None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PersimmonForCausalLM.from_pretrained(saved(), **nothing)


@pytest.mark.parametrize(
    ("keywords", "use"),
    [
        ({"device_map": "auto"}, "persimmon_lab.fitting.offload.load_over_devices"),
        ({"load_in_8bit": True}, 'quantize="int8"'),
        ({"quantization_config": {"bits": 4}}, "torchao.quantize_"),
        ({"subfolder": "last"}, "the path of the folder itself"),
        ({"use_safetensors": False}, "pickles"),
        ({"variant": "fp16", "use_auth_token": True}, "token="),
    ],
    ids=str,
)
def test_arguments_of_transformers_are_refused_with_what_to_use(saved, keywords, use):
    with pytest.raises(TypeError, match="from_pretrained does not take") as caught:
        PersimmonForCausalLM.from_pretrained(saved(), **keywords)
    assert all(name in str(caught.value) for name in keywords)
    assert use in str(caught.value)


def test_unknown_fields_of_the_configuration_survive(saved, tmp_path):
    folder = saved()
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"trained_by": "someone"}))
    PersimmonForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["trained_by"] == "someone"


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of resident memory")
def test_peak_memory_is_that_of_the_weights(tmp_path):
    """At most 1.15 times the weights (benchmarks/load.py measures larger models, beside transformers)."""
    config = PersimmonConfig.tiny(hidden_size=1024, intermediate_size=4096, num_hidden_layers=3, vocab_size=2048)
    with torch.device("meta"):
        model = PersimmonForCausalLM(config)
    model = model.to_empty(device="cpu")
    model.load_state_dict({name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}, assign=True)
    model.save_pretrained(tmp_path / "safetensors")
    config.save_pretrained(tmp_path / "bin")
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    for form in ("safetensors", "bin"):
        for dtype in (torch.float32, torch.bfloat16):
            loaded = PersimmonForCausalLM.from_pretrained(tmp_path / form, dtype=dtype)  # what is imported only once
            weights = sum(parameter.nbytes for parameter in loaded.parameters())
            assert weights > 80e6  # so that an allocator's odd megabyte does not decide
            del loaded
            before = resident("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # starts the high-water mark afresh
            PersimmonForCausalLM.from_pretrained(tmp_path / form, dtype=dtype)
            assert resident("VmHWM") - before <= 1.15 * weights, (form, dtype)


def resident(field: str) -> int:
    """Bytes, from Linux's account of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_bite_of_a_tensor_takes_the_same_memory(tmp_path, monkeypatch, dtype):
    """One each would leave holes between the tensors that stay: half as much memory again, by benchmarks/load.py."""
    tensor = torch.randn(4 * BITE // 64, 64, generator=torch.Generator().manual_seed(0))
    write_safetensors(tmp_path / "model.safetensors", {"tensor": tensor})
    places = []

    def fill(self, landing, name, start, fill=SafetensorsFile._fill):
        places.append(landing.data_ptr())
        fill(self, landing, name, start)

    monkeypatch.setattr(SafetensorsFile, "_fill", fill)
    read = SafetensorsFile(tmp_path / "model.safetensors").read("tensor", dtype=dtype, device="cpu")
    assert torch.equal(read, tensor.to(dtype))
    straight_in = [read.data_ptr() + start * tensor.itemsize for start in range(0, tensor.numel(), BITE)]
    assert len(places) == 4
    assert places == straight_in if dtype == tensor.dtype else len(set(places)) == 1
