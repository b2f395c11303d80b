"""`from_pretrained` and `save_pretrained`: a model from a folder of weights and back, in transformers' layout."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persimmon_lab.checkpoints import hub
from persimmon_lab.checkpoints.matching import HEADS, check_fit, check_tied, names_in_file
from persimmon_lab.checkpoints.saving import finish_save, staged, write_weights
from persimmon_lab.checkpoints.settings import (
    choose_dtype,
    default_generation_config,
    override,
    read_config,
    read_generation_config,
)
from persimmon_lab.checkpoints.shards import open_weights
from persimmon_lab.checkpoints.skeletons import module_of, shapes_in_file, skeleton
from persimmon_lab.checkpoints.weight_files import WeightFile
from persimmon_lab.config import PersimmonConfig
from persimmon_lab.generation_config import GenerationConfig

Device = torch.device | str | int


class Pretrained(nn.Module):
    """Loading and saving, for a model class that `cls(config)` builds.

    `generation_config` is what `generation_config.json` asks for beyond the token ids of `config.json`. A model has a
    `config`, says which of its tensors are tied where the configuration ties them, and defines the three methods that
    are not implemented here.
    """

    config: PersimmonConfig
    generation_config: GenerationConfig | None = None
    _tied_weights_keys: tuple[str, ...] = ()

    def get_input_embeddings(self) -> nn.Module:
        """What makes embeddings of ids; its `weight` has a row a token."""
        raise NotImplementedError

    def tie_weights(self) -> None:
        """Let tied tensors be one, where the configuration says so."""
        raise NotImplementedError

    def initialize_weights(self, generator: torch.Generator | None = None, only: nn.Module | None = None) -> None:
        """Draw first weights: of all modules, or of `only`."""
        raise NotImplementedError

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        config: PersimmonConfig | None = None,
        torch_dtype: torch.dtype | str | None = None,
        dtype: torch.dtype | str | None = None,
        device: Device | Mapping[str, Device] | None = None,
        attn_implementation: str | None = None,
        verify: bool = True,
        generator: torch.Generator | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        **overrides: Any,
    ) -> Self:
        """Load a checkpoint folder or a hub id, ready for inference (`eval()`).

        `torch_dtype` (`dtype` is the same) is float32 when None, the stored one when "auto". Tensors are read one by
        one, converted and put on `device` (the CPU by default): the peak of memory is the weights and at most a tenth
        more (benchmarks/load.py), and a few bites of a tensor here when they go elsewhere. A mapping from modules to
        devices is what `persimmon_lab.fitting.offload` uses; alone it makes no model that runs.

        `attn_implementation` ("sdpa" unless it says "eager") and `overrides` (such as `num_labels=3`) replace fields of
        the configuration.

        A body loads into a head and a head's checkpoint into a body. A head that the checkpoint does not have is drawn
        from `generator`, with a warning; every other missing, unexpected or misshapen tensor is an error. `verify`
        compares the checksums that `save_pretrained` stores. `revision`, `token`, `cache_dir` and `local_files_only`
        are for hub ids.

        Raises CheckpointNotFoundError when there is no such checkpoint, CheckpointError (a ValueError) when it is
        damaged, unsafe or does not fit, and TypeError for an override that is no field.
        """
        folder = hub.resolve(
            path, revision=revision, token=token, cache_dir=cache_dir, local_files_only=local_files_only
        )
        finish_save(folder)
        if attn_implementation is not None:
            overrides["attn_implementation"] = attn_implementation
        config = override(read_config(folder) if config is None else config, overrides)
        files = open_weights(folder)
        dtype = choose_dtype(torch_dtype, dtype, config, files)
        config.torch_dtype = str(dtype).removeprefix("torch.")

        model = skeleton(cls, config)
        stored, new_heads = _match(folder, model, files)
        devices = device if isinstance(device, Mapping) else {"": "cpu" if device is None else device}
        tensors = _read_tensors(stored, files, dtype, devices, verify)
        for name in new_heads:
            head = model.get_submodule(name.removesuffix(".weight")).to_empty(device="cpu")
            model.initialize_weights(generator, only=head)
            weight = head.get_parameter("weight").detach()
            tensors[name] = weight.to(torch.device(devices[module_of(name, devices)]), dtype)
        model.load_state_dict(tensors, assign=True, strict=False)  # everything is there but the tied, tied below
        model.tie_weights()
        if new_heads:
            warnings.warn(
                f"{folder} has no {', '.join(new_heads)}: newly initialised at random, to be trained before use",
                stacklevel=2,
            )
        model.generation_config = read_generation_config(folder)
        return model.eval()

    def save_pretrained(self, path: str | os.PathLike[str], max_shard_size: int | str = "5GB") -> None:
        """Write `config.json`, `generation_config.json` and safetensors that transformers 4 and 5 load as well.

        Weights above `max_shard_size` (bytes, or text such as "200MB") are cut into shards with an index. Other files
        of the folder stay, weights of an older save go. An interruption leaves the old checkpoint or the new one.

        Raises OSError when the disk is full or the folder cannot be written; what was there before is unchanged.
        """
        dtype = str(next(self.parameters()).dtype).removeprefix("torch.")
        config = dataclasses.replace(self.config, torch_dtype=dtype, architectures=[type(self).__name__])
        tensors = self.state_dict()
        embedding = self.get_input_embeddings().get_parameter("weight")
        if (rows := len(embedding)) != config.vocab_size:
            raise ValueError(
                f"the embedding has {rows} rows and config.vocab_size is {config.vocab_size}: rows were dropped, and "
                "nothing in a checkpoint says which; save the whole model"
            )
        if meta := [name for name, tensor in tensors.items() if tensor.is_meta]:
            raise ValueError(
                f"{len(meta)} tensors are on the meta device and have no values to save: {', '.join(meta)}"
            )
        if config.tie_word_embeddings:
            pointers = {name: tensors[name].data_ptr() for name in self._tied_weights_keys}
            if untied := [name for name, pointer in pointers.items() if pointer != embedding.data_ptr()]:
                raise ValueError(
                    f"config.tie_word_embeddings is True, but {', '.join(untied)} is a tensor of its own; call "
                    "tie_weights() to give it up, or set config.tie_word_embeddings=False to keep it"
                )
            tensors = {name: tensor for name, tensor in tensors.items() if name not in self._tied_weights_keys}
        with staged(Path(path).expanduser()) as folder:
            write_weights(folder, tensors, max_shard_size)
            config.save_pretrained(folder)
            if hasattr(self, "generate"):
                (self.generation_config or default_generation_config(config)).save_pretrained(folder)


def _match(folder: Path, model: Pretrained, files: dict[str, WeightFile]) -> tuple[dict[str, str], list[str]]:
    """What each tensor of a model is called in the files, and the heads that the checkpoint does not have.

    Raises CheckpointError for every other difference.
    """
    tied = model._tied_weights_keys if model.config.tie_word_embeddings else ()
    shapes = shapes_in_file(model, tied)
    names = names_in_file(shapes, files)
    # The architecture the file names must bring its head; to others a head is new.
    absent = [name for name in HEADS if name in shapes and name not in files]
    architecture = type(model).__name__
    new_heads = [] if architecture in (model.config.architectures or []) else absent
    stored = {name: names[name] for name in shapes if name not in new_heads}
    check_fit(folder, architecture, {name: shapes[name] for name in stored}, stored, files)
    check_tied(folder, tied, files)
    return stored, new_heads


def _read_tensors(
    stored: Mapping[str, str],
    files: Mapping[str, WeightFile],
    dtype: torch.dtype,
    devices: Mapping[str, Device],
    verify: bool,
) -> dict[str, Float[Tensor, "..."]]:
    """A model's tensors by its own names, each read straight to the device of the module that it is in.

    `stored` says what each is called in the files.
    """
    tensors = {}
    for name, name_in_file in stored.items():
        device = torch.device(devices[module_of(name, devices)])
        tensors[name] = files[name_in_file].read(name_in_file, dtype=dtype, device=device, verify=verify)
    return tensors
