"""A model over several devices, and what they have no room for in CPU memory or on disk.

accelerate's hooks bring inputs and weights together; reading and placing are ours. What is kept on the CPU or on disk
is copied to a device that computes in every forward pass: such a model writes at the speed of the bus, or of the disk.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.errors import CheckpointError
from persimmon_lab.checkpoints.matching import EMBEDDING, names_in_file
from persimmon_lab.checkpoints.settings import choose_dtype, override, read_config
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.checkpoints.skeletons import module_of, skeleton
from persimmon_lab.checkpoints.weight_files import SafetensorsFile, WeightFile
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.dtypes import dtype_name
from persimmon_lab.fitting.memory import OFFLOAD, memory_plan
from persimmon_lab.footprint import Device, free_memory
from persimmon_lab.pretrained import PersimmonPreTrainedModel

try:
    import accelerate
except ImportError:  # told on use; everything else works without it
    accelerate = None

Model = TypeVar("Model", bound=PersimmonPreTrainedModel)

SHARE = 0.9  # of what is free: kernels' workspaces and the allocator's rounding come on top of any plan
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")
FIELDS = {field.name for field in dataclasses.fields(PersimmonConfig)}


def load_over_devices(
    model_class: type[Model],
    path: str | os.PathLike[str],
    *,
    torch_dtype: torch.dtype | str | None = None,
    device_map: Mapping[str, Device | torch.device] | str = "auto",
    max_memory: Mapping[Device, int | float] | None = None,
    batch: int = 1,
    context: int | None = None,
    **options: Any,
) -> Model:
    """`model_class.from_pretrained(path, ...)` with its modules laid out over devices; equal to it bit for bit.

    "auto" fills the devices of `max_memory` in order, each with so many bytes (by default nine tenths of what is free
    on the GPUs and the CPU; "disk": 1e12 lets it use the disk). It leaves room for the cache and the activations of
    `batch` rows of `context` positions (all that the configuration has by default): see `MemoryPlan.place`. A map of
    your own goes from modules to devices, {"model.embed_tokens": 0, "model.layers": "cpu", ...}, or {"": "cpu"}, and
    may name GPUs, "cpu" and "disk". Where it names a GPU, "cpu" only keeps.

    Every tensor is read straight to its place and its checksum compared, also those on disk; they stay in the
    checkpoint's safetensors, which must not change while the model lives. `options` are those of `from_pretrained`.

    Raises ImportError without accelerate; ValueError for a map that leaves something out, names what is not there or
    keeps everything on disk, and where nothing fits; CheckpointError as `from_pretrained`, and for a .bin on disk.
    """
    if accelerate is None:
        raise ImportError("laying a model out over devices needs accelerate: pip install 'persimmon-lab[offload]'")
    if options.get("quantize") is not None:
        raise ValueError("quantize is for from_pretrained; rounded weights are not laid out over devices")
    folder = hub.resolve(path, **{name: options.pop(name) for name in HUB_OPTIONS if name in options})
    overrides = {name: value for name, value in options.items() if name in FIELDS}
    config = override(options.get("config") or read_config(folder), overrides)
    files = open_weights(folder)
    dtype = choose_dtype(torch_dtype, options.pop("dtype", None), config, files)
    empty = skeleton(model_class, config)
    if isinstance(device_map, str):
        if device_map != "auto":
            raise ValueError(f'device_map is {device_map!r}; give "auto", or a mapping such as {{"": "cpu"}}')
        if max_memory is None:
            max_memory = {device: SHARE * free for device, free in free_memory().items()}
        planned = memory_plan(config, dtype, batch, context).place(max_memory)
        device_map = dict(zip(blocks(empty), planned.values()))
    devices = by_block(device_map, empty)
    main_device = next((device for device in devices.values() if device not in OFFLOAD), "cpu")

    reading = {block: "meta" if device == "disk" else device for block, device in devices.items()}
    model = model_class.from_pretrained(folder, torch_dtype=dtype, device=reading, **options)
    accelerate.dispatch_model(
        model,
        devices,
        main_device=main_device,
        offload_index=offload_index(model, files, dtype) or None,
        skip_keys="past_key_values",  # each layer's cache stays where the layer is
    )
    if len(set(devices.values()) - set(OFFLOAD)) > 1:
        # accelerate would bring home a tuple or a dict, and knows no other outputs.
        head: nn.Module = getattr(model, "lm_head", getattr(model, "score", model.body.final_layernorm))
        head.register_forward_hook(lambda module, inputs, output: output.to(main_device))
    return model


def blocks(model: PersimmonPreTrainedModel) -> list[str]:
    """The modules that have a device of their own, in the order they run; a plan of a causal-LM model has as many."""
    body = f"{model.base_model_prefix}." if model.base_model_prefix else ""
    layers = [f"{body}layers.{index}" for index in range(model.config.num_hidden_layers)]
    heads = [name for name in ("lm_head", "score") if hasattr(model, name)]
    return [f"{body}embed_tokens", *layers, f"{body}final_layernorm", *heads]


def by_block(device_map: Mapping[str, Device | torch.device], model: PersimmonPreTrainedModel) -> dict[str, str]:
    """A map with one entry for each block, in order, and one name for each device: 0, "cuda" and "cuda:0" are one."""
    modules = {block: module_of(f"{block}.weight", device_map) for block in blocks(model)}
    if useless := [module for module in device_map if module not in modules.values()]:
        raise ValueError(
            f"the device map names {', '.join(useless)}; it may name {', '.join(modules)}, and modules around them"
        )
    spread = {block: canonical(device_map[module]) for block, module in modules.items()}
    if set(spread.values()) == {"disk"}:
        raise ValueError(
            "the device map keeps everything on disk; put at least the embedding where it is computed with"
        )
    return spread


def canonical(device: Device | torch.device) -> str:
    """A device's one name; ValueError if it is not there."""
    name = {"cuda": "cuda:0"}.get(str(device), f"cuda:{device}" if isinstance(device, int) else str(device))
    try:
        index = None if name == "disk" else torch.device(name).index
    except RuntimeError as error:
        raise ValueError(f'device {device!r} is no "disk", and none that torch knows: {error}') from None
    if name.startswith("cuda:") and index is not None and index >= torch.cuda.device_count():
        raise ValueError(f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices")
    return name


def offload_index(
    model: PersimmonPreTrainedModel, files: Mapping[str, WeightFile], dtype: torch.dtype
) -> dict[str, dict[str, str]]:
    """Where accelerate finds each tensor that was left on disk: in the checkpoint itself."""
    tensors = model.state_dict()
    stored = names_in_file(tensors, files)
    index = {}
    for name in [name for name, tensor in tensors.items() if tensor.is_meta]:
        name_in_file = stored[name]
        if name_in_file not in files and name in model._tied_weights_keys and model.config.tie_word_embeddings:
            name_in_file = next(stored[other] for other in tensors if other.endswith(EMBEDDING))
        if name_in_file not in files:
            raise ValueError(f"{name} is new and not in the checkpoint, so it cannot stay on disk; put it elsewhere")
        file = files[name_in_file]
        if not isinstance(file, SafetensorsFile):
            raise CheckpointError(
                f"{file.path} is no safetensors file, and only those are read in place; load the model and "
                "save_pretrained it once, or keep nothing on disk"
            )
        index[name] = {
            "safetensors_file": str(file.path.absolute()),
            "weight_name": name_in_file,
            "dtype": dtype_name(dtype),
        }
    return index
